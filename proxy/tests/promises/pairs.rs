//! The connections of a proxy that ends go on in the next one of its node, and neither end notices.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    relaying::{random, read_slowly, write_slowly},
    support::{
        apiserver::{Apiserver, Mode},
        client::{Client, client_hello},
        eventually,
        node::{Node, Pool},
    },
};

/// Far less than the drain takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long a proxy of these tests drains.
const DRAIN_SECONDS: u32 = 60;

/// The smallest limit that a document may have.
const FEWEST_CONNECTIONS: u32 = 64;

/// A proxy that hands over, and serves.
pub(crate) async fn serving(document: impl FnOnce(Pool) -> Pool) -> Node {
    let mut node = Node::new().of_generation(1);
    node.write(&document(node.pool()).drain_within(DRAIN_SECONDS));
    node.start().await;
    node
}

/// A proxy that hands over and is ready, before members of these names.
pub(crate) async fn ready_before<const COUNT: usize>(
    names: [&str; COUNT],
    document: impl FnOnce(Pool) -> Pool,
) -> (Node, [Apiserver; COUNT]) {
    let mut first = Node::new().of_generation(1);
    let apiservers = names.map(|name| Apiserver::start(name, first.authority.server()));
    let pool = first.pool().drain_within(DRAIN_SECONDS);
    first.write(&document(apiservers.iter().fold(pool, Pool::member)));
    first.start().await;
    eventually("ready", async || first.ready().await).await;
    (first, apiservers)
}

/// The next proxy, which has taken over from this one.
async fn successor(node: &Node, generation: u64) -> Node {
    let mut next = node.successor().of_generation(generation);
    next.start().await;
    eventually("the next proxy is ready", async || next.ready().await).await;
    next
}

/// Ends a proxy, which must not take the time of a drain.
async fn end(node: &mut Node) {
    timeout(SOON, node.stop()).await.unwrap();
}

pub(crate) async fn connections(node: &Node) -> u64 {
    node.metric("trivet_proxy_client_connections").await.unwrap()
}

pub(crate) async fn taken(node: &Node) -> u64 {
    node.metric("trivet_proxy_connections_taken_total").await.unwrap()
}

#[tokio::test]
async fn established_connections_go_on_in_the_next_proxy() {
    let (mut first, apiservers) = ready_before(["cp1", "cp2"], |pool| pool).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = first.client().await.unwrap();
        let member = client.who().await.unwrap();
        clients.push((client, member));
    }
    let mut next = successor(&first, 2).await;
    assert_eq!(taken(&next).await, 0, "they stay until the first one ends");
    end(&mut first).await;
    assert_eq!(taken(&next).await, 10);
    let last = successor(&next, 3).await;
    end(&mut next).await;
    assert_eq!(taken(&last).await, 10);
    for apiserver in &apiservers {
        let line = format!(
            "trivet_proxy_upstream_connections{{member=\"{}\"}}",
            apiserver.name
        );
        assert!(last.metric(&line).await >= Some(4), "{line}");
    }
    for (client, member) in &mut clients {
        assert_eq!(client.who().await.unwrap(), *member);
    }
    drop(clients);
    eventually("they have ended", async || connections(&last).await == 0).await;
    let line = "trivet_proxy_connections_ended_total{reason=\"ClientLeft\"}";
    assert!(last.metric(line).await >= Some(10));
}

/// A member that sends what it reads back to the client, and half-closes after it.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut server, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = server.split();
                // The probes of the proxy end as they like.
                drop(tokio::io::copy(&mut reads, &mut writes).await);
                drop(writes.shutdown().await);
            });
        }
    });
    address
}

#[tokio::test]
async fn no_byte_is_lost_or_sent_twice_on_the_way_through_five_proxies() {
    const LENGTH: usize = 4_000_000;
    let member = echo().await;
    let mut node = serving(|pool| pool.impatient_with(member)).await;
    let mut streams = Vec::new();
    for seed in 0..6 {
        eventually("it listens", async || {
            TcpStream::connect(node.proxy).await.is_ok()
        })
        .await;
        let stream = TcpStream::connect(node.proxy).await.unwrap();
        streams.push(tokio::spawn(async move {
            let sent = random(seed, LENGTH);
            let (mut reads, mut writes) = stream.into_split();
            let ((), got) = tokio::join!(
                write_slowly(&mut writes, &sent, seed),
                // Some readers are so slow that tails are full.
                read_slowly(&mut reads, if seed % 2 == 0 { 4_000 } else { 60_000 }, seed)
            );
            assert!(got == sent, "seed {seed}: {} bytes", got.len());
        }));
    }
    let mut hand_overs = 0;
    for generation in 2..7 {
        sleep(Duration::from_millis(50)).await;
        let mut next = node.successor().of_generation(generation);
        next.start().await;
        let ended = node.terminate();
        timeout(SOON, ended).await.unwrap().unwrap();
        hand_overs += taken(&next).await;
        node = next;
    }
    assert!(hand_overs > 0, "all streams ended before the first hand-over");
    for stream in streams {
        timeout(Duration::from_secs(60), stream).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn clients_that_are_being_opened_are_opened_by_the_next_proxy() {
    let (mut first, [apiserver]) = ready_before(["cp1"], Pool::unhurried).await;
    let next = successor_of_idle(&first).await;
    let silent = TcpStream::connect(first.proxy).await.unwrap();
    let mut half = TcpStream::connect(first.proxy).await.unwrap();
    let hello = client_hello(first.authority.client());
    half.write_all(&hello[..hello.len() / 2]).await.unwrap();
    apiserver.set(Mode::Hung);
    let racing = tokio::spawn(Client::connect(first.proxy, first.authority.client()));
    eventually("the first one has them", async || connections(&first).await == 3).await;
    eventually("one waits for its answer", async || {
        let line = "trivet_proxy_upstream_connections{member=\"cp1\"}";
        first.metric(line).await == Some(1)
    })
    .await;
    end(&mut first).await;
    assert_eq!(taken(&next).await, 3);
    apiserver.set(Mode::Ready);
    let mut client = timeout(SOON, racing).await.unwrap().unwrap().unwrap();
    assert_eq!(client.who().await.unwrap(), "cp1");
    half.write_all(&hello[hello.len() / 2..]).await.unwrap();
    let answer = timeout(SOON, half.read_u8()).await.unwrap();
    assert_eq!(answer.unwrap(), 22, "a handshake record");
    let mut client = Client::over(silent, first.authority.client()).await.unwrap();
    assert_eq!(client.who().await.unwrap(), "cp1");
}

/// A proxy of lower rank, so that clients stay with the first one until it ends.
pub(crate) async fn successor_of_idle(first: &Node) -> Node {
    let mut next = first.successor().of_generation(0);
    next.start().await;
    eventually("it holds the listener", async || {
        next.metrics().await.contains("trivet_proxy_document_revision 1")
    })
    .await;
    next
}

#[tokio::test]
async fn what_the_next_proxy_has_no_room_for_drains() {
    let (mut first, [apiserver]) = ready_before(["cp1"], |pool| pool.drain_within(1)).await;
    let mut clients = Vec::new();
    for _ in 0..=FEWEST_CONNECTIONS {
        clients.push(first.client_on(&apiserver).await);
    }
    let mut next = first.successor().of_generation(2);
    let narrow = first
        .pool()
        .member(&apiserver)
        .revision(2)
        .max_connections(FEWEST_CONNECTIONS);
    next.write(&narrow);
    next.start().await;
    eventually("the next proxy is ready", async || next.ready().await).await;
    // It tries for ten seconds.
    end(&mut first).await;
    // Each batch had them all.
    assert_eq!(taken(&next).await, 0);
    for client in &mut clients {
        timeout(SOON, client.end()).await.unwrap();
    }
}

#[tokio::test]
async fn the_next_proxy_cuts_what_it_took_when_the_member_falls_silent() {
    let (mut first, apiservers) = ready_before(["cp1", "cp2"], |pool| pool).await;
    let mut client = first.client_on(&apiservers[0]).await;
    let mut other = first.client_on(&apiservers[1]).await;
    let next = successor(&first, 2).await;
    end(&mut first).await;
    next.sees(&apiservers[0], "Up").await;
    next.sees(&apiservers[1], "Up").await;
    apiservers[0].set(Mode::Hung);
    timeout(SOON, client.end()).await.unwrap();
    assert_eq!(other.who().await.unwrap(), "cp2");
    let line = "trivet_proxy_connections_ended_total{reason=\"MemberSilent\"}";
    assert_eq!(next.metric(line).await, Some(1));
}

#[tokio::test]
async fn a_proxy_that_has_stood_by_for_a_while_gives_what_it_relays() {
    let (first, [apiserver]) = ready_before(["cp1"], |pool| pool).await;
    let mut client = first.client_on(&apiserver).await;
    let next = successor(&first, 2).await;
    assert_eq!(taken(&next).await, 0);
    let is_taken = async {
        while taken(&next).await == 0 {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), is_taken).await.unwrap();
    assert_eq!(client.who().await.unwrap(), "cp1");
    assert!(first.ready().await, "it stands by as before");
}

#[tokio::test]
async fn a_drain_goes_on_in_the_next_proxy_and_does_not_begin_anew() {
    let (mut first, apiservers) = ready_before(["cp1", "cp2"], |pool| pool.drain_within(12)).await;
    let pool = first.pool().member(&apiservers[1]).drain_within(12);
    let mut client = first.client_on(&apiservers[0]).await;
    let mut other = first.client_on(&apiservers[0]).await;
    let next = successor(&first, 2).await;
    let began = Instant::now();
    for node in [&first, &next] {
        node.write(&pool.clone().draining(&apiservers[0]).revision(2));
        node.follows(2).await;
    }
    // One of two has ended at half of the time.
    timeout(SOON, client.end()).await.unwrap();
    end(&mut first).await;
    assert_eq!(taken(&next).await, 1);
    assert_eq!(other.who().await.unwrap(), "cp1");
    timeout(SOON, other.end()).await.unwrap();
    let took = began.elapsed();
    // Begun anew it would take half as long again.
    assert!(took < Duration::from_secs(16), "{took:?}");
}
