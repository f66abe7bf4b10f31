//! A proxy that ends gives its clients time, and then ends.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    apiserver::{Apiserver, Mode},
    client::Client,
    eventually,
    node::{Node, node_with, shared},
};

#[tokio::test]
async fn a_proxy_that_ends_accepts_no_more_and_closes_the_rest_within_its_time() {
    let (mut node, apiservers) = node_with(2).await;
    let mut clients = vec![
        node.client_on(&apiservers[0]).await,
        node.client_on(&apiservers[1]).await,
    ];
    let ended = node.terminate();
    eventually("no more accepted", async || {
        node.client()
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    // The drain timeout is one second.
    let started = Instant::now();
    for client in &mut clients {
        timeout(Duration::from_secs(20), client.end()).await.unwrap();
    }
    ended.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_proxy_without_clients_ends_at_once() {
    let (mut node, _apiservers) = node_with(1).await;
    timeout(Duration::from_secs(20), node.stop()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_says_nothing_is_ended_with_the_proxy() {
    let (mut node, _apiservers) = node_with(1).await;
    let mut silent = TcpStream::connect(node.proxy).await.unwrap();
    let line = "trivet_proxy_client_connections";
    eventually("accepted", async || node.metric(line).await == Some(1)).await;
    let ended = node.terminate();
    // Well before it would be ended for its silence.
    let end = timeout(Duration::from_secs(5), silent.read(&mut [0]))
        .await
        .unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_proxy_that_ends_says_that_it_is_not_ready() {
    let (mut node, apiservers) = node_with(1).await;
    eventually("ready", async || node.ready().await).await;
    let _client = node.client_on(&apiservers[0]).await;
    let ended = node.terminate();
    eventually("not ready", async || !node.ready().await).await;
    ended.await.unwrap();
}

#[tokio::test]
async fn an_open_that_finishes_while_the_proxy_drains_is_served_and_told_to_end_in_time() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    // It is told to end half way; until then it has the time to finish on a machine that does much else.
    node.write(&node.pool().member(&apiserver).drain_within(6));
    node.start().await;
    eventually("ready", async || node.ready().await).await;
    apiserver.set(Mode::Hung);
    let (proxy, tls) = shared(&node);
    let opening = tokio::spawn(Client::connect(proxy, tls));
    let line = "trivet_proxy_upstream_connections{member=\"cp1\"}";
    eventually("it is being opened", async || node.metric(line).await == Some(1)).await;
    let ended = node.terminate();
    eventually("not ready", async || !node.ready().await).await;
    apiserver.set(Mode::Ready);
    let mut client = opening.await.unwrap().unwrap();
    timeout(Duration::from_secs(20), client.end()).await.unwrap();
    ended.await.unwrap();
}

#[tokio::test]
async fn a_successor_shares_the_port_and_no_moment_is_without_a_listener() {
    let (mut node, apiservers) = node_with(2).await;
    let mut client = node.client_on(&apiservers[0]).await;
    let mut successor = node.successor();
    successor.start().await;
    eventually("the successor is ready", async || successor.ready().await).await;
    let ended = node.terminate();
    while !ended.is_finished() {
        assert!(node.who().await.is_ok());
    }
    ended.await.unwrap();
    assert!(node.who().await.is_ok());
    // The old connection was closed in time, and its client finds the successor.
    client.end().await;
}
