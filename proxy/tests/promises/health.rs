//! Only silence cuts connections: an upstream that answers, well or badly, keeps the ones it has.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use trivet_proxy::{net::socket, status};

use crate::support::{
    apiserver::{Apiserver, Mode},
    authority::{self, Authority},
    eventually,
    node::{Node, Pool, all, node_with},
};

/// Several times longer than it takes to find a hung apiserver Down.
const SEVERAL_ROUNDS: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_hung_member_is_down_and_its_clients_are_reset() {
    let (node, apiservers) = node_with(3).await;
    let mut client = node.client_on(&apiservers[0]).await;
    let mut other = node.client_on(&apiservers[1]).await;
    apiservers[0].set(Mode::Hung);
    let end = timeout(Duration::from_secs(20), client.end()).await.unwrap();
    assert_eq!(end, ErrorKind::ConnectionReset);
    node.sees(&apiservers[0], "Down").await;
    assert_eq!(other.who().await.unwrap(), "cp2");
    let line = "trivet_proxy_connections_ended_total{reason=\"MemberSilent\"}";
    assert!(node.metric(line).await.unwrap() >= 1);
}

#[tokio::test]
async fn a_refusal_at_the_second_address_does_not_hide_silence_at_the_first() {
    let mut node = Node::new();
    let silent = "trivet_proxy_connections_ended_total{reason=\"MemberSilent\"}";
    let apiservers = ["cp1", "cp2"].map(|name| Apiserver::start(name, node.authority.server()));
    let pool = node.pool();
    node.write(&apiservers.iter().fold(pool, Pool::member_with_a_dead_address));
    node.start().await;
    for apiserver in &apiservers {
        node.sees(apiserver, "Up").await;
    }
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::Hung);
    let end = timeout(Duration::from_secs(20), client.end()).await.unwrap();
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert_eq!(node.metric(silent).await, Some(1));
    // It answers at one of its addresses, if only by a refusal.
    node.sees(&apiservers[0], "Unready").await;
}

#[tokio::test]
async fn a_member_whose_first_address_fails_is_probed_at_its_second_however_late_the_failure() {
    let mut node = Node::new();
    // Before half a probe interval, after it, and after the liveness request has been sent.
    let members = [100, 375, 700].map(|late| {
        let broken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = broken.local_addr().unwrap();
        let second = SocketAddr::from(([127, 0, 0, 2], address.port()));
        let apiserver = Apiserver::start_at(second, &format!("cp{late}"), node.authority.server());
        let resets = reset_each(broken, Duration::from_millis(late));
        (
            address.ip(),
            apiserver,
            AbortOnDropHandle::new(tokio::spawn(resets)),
        )
    });
    node.write(
        &members
            .iter()
            .fold(node.pool().unhurried(), |pool, (first, apiserver, _)| {
                pool.member_also_at(*first, apiserver)
            }),
    );
    node.start().await;
    for (_, apiserver, _) in &members {
        node.sees(apiserver, "Up").await;
    }
}

/// Accepts, and resets each connection after this time.
async fn reset_each(listener: std::net::TcpListener, late: Duration) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            sleep(late).await;
            socket::reset_on_close(&stream);
        });
    }
}

#[tokio::test]
async fn when_all_hang_at_once_nothing_is_cut() {
    let (node, apiservers) = node_with(3).await;
    let mut clients = Vec::new();
    for apiserver in &apiservers {
        clients.push(node.client_on(apiserver).await);
    }
    all(&apiservers, Mode::Hung);
    for apiserver in &apiservers {
        node.sees(apiserver, "Down").await;
    }
    sleep(SEVERAL_ROUNDS).await;
    all(&apiservers, Mode::Ready);
    for (client, apiserver) in clients.iter_mut().zip(&apiservers) {
        assert_eq!(client.who().await.unwrap(), apiserver.name);
    }
}

#[tokio::test]
async fn a_member_that_is_not_ready_keeps_its_connections_and_gets_no_new_one() {
    let (node, apiservers) = node_with(3).await;
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::NotReady);
    node.sees(&apiservers[0], "Unready").await;
    for _ in 0..10 {
        assert_ne!(node.who().await.unwrap(), "cp1");
    }
    sleep(SEVERAL_ROUNDS).await;
    assert_eq!(client.who().await.unwrap(), "cp1");
    apiservers[0].set(Mode::Ready);
    node.sees(&apiservers[0], "Up").await;
}

#[tokio::test]
async fn when_no_member_is_ready_all_are_used() {
    let (node, apiservers) = node_with(2).await;
    all(&apiservers, Mode::NotReady);
    for apiserver in &apiservers {
        node.sees(apiserver, "Unready").await;
    }
    for apiserver in &apiservers {
        eventually("each serves", async || {
            node.who().await.unwrap() == apiserver.name
        })
        .await;
    }
}

#[tokio::test]
async fn a_member_cut_off_from_etcd_is_unready_and_not_down() {
    let (node, apiservers) = node_with(2).await;
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::Late(Duration::from_secs(4)));
    node.sees(&apiservers[0], "Unready").await;
    for _ in 0..20 {
        sleep(SEVERAL_ROUNDS / 20).await;
        let down = "trivet_proxy_upstream_state{member=\"cp1\",state=\"Down\"}";
        assert_eq!(node.metric(down).await, Some(0));
    }
    assert_eq!(client.who().await.unwrap(), "cp1");
}

#[tokio::test]
async fn a_member_whose_clients_get_replies_keeps_them_though_it_answers_no_probe() {
    let (node, apiservers) = node_with(2).await;
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::Starved(Duration::from_millis(100)));
    let starved = tokio::time::Instant::now();
    // Several times what a silent one gets.
    while starved.elapsed() < Duration::from_millis(2500) {
        assert_eq!(client.who().await.unwrap(), "cp1");
    }
    node.sees(&apiservers[0], "Unready").await;
    assert_eq!(node.who().await.unwrap(), "cp2");
    apiservers[0].set(Mode::Ready);
    node.sees(&apiservers[0], "Up").await;
    assert_eq!(client.who().await.unwrap(), "cp1");
}

#[tokio::test]
async fn a_member_that_answers_anonymous_probes_with_401_or_403_is_up() {
    for status in [401, 403] {
        let mut node = Node::new();
        let apiserver = Apiserver::start("cp1", node.authority.server());
        apiserver.set(Mode::Status(status));
        node.write(&node.pool().member(&apiserver));
        node.start().await;
        node.sees(&apiserver, "Up").await;
        assert_eq!(node.who().await.unwrap(), "cp1");
    }
}

#[tokio::test]
async fn a_member_that_tells_only_the_token_is_not_ready_and_without_etcd_as_any_other() {
    let mut node = Node::new();
    node.write_token("secret");
    let apiservers = ["cp1", "cp2"].map(|name| Apiserver::start(name, node.authority.server()));
    for apiserver in &apiservers {
        apiserver.demand("secret");
    }
    node.write(&apiservers.iter().fold(node.pool(), Pool::member));
    node.start().await;
    for apiserver in &apiservers {
        node.sees(apiserver, "Up").await;
    }
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::NotReady);
    node.sees(&apiservers[0], "Unready").await;
    let failed = "trivet_proxy_probes_total{member=\"cp1\",reason=\"EtcdFailed\"}";
    assert!(node.metric(failed).await.unwrap() >= 1);
    for _ in 0..10 {
        assert_eq!(node.who().await.unwrap(), "cp2");
    }
    assert_eq!(client.who().await.unwrap(), "cp1");
    apiservers[0].set(Mode::Ready);
    node.sees(&apiservers[0], "Up").await;
}

#[tokio::test]
async fn a_token_is_sent_once_a_probe_and_read_again_when_it_changes() {
    let mut node = Node::new();
    node.write_token("old\n");
    let apiserver = Apiserver::start("cp1", node.authority.server());
    // Both are good for a while, as where a token is rotated.
    apiserver.demand("old");
    apiserver.demand("new");
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    assert_eq!(
        apiserver.tokens()[0],
        None,
        "a token is sent before it is asked for"
    );
    // Ready is a proxy that was answered through its own listener, as a client without a token is.
    eventually("the proxy is ready", async || node.ready().await).await;
    let so_far = apiserver.tokens().len();
    node.write_token("new");
    let is_new = |token: &Option<String>| token.as_deref() == Some("new");
    eventually("the new token is sent", async || {
        apiserver.tokens().iter().any(is_new)
    })
    .await;
    let later = apiserver.tokens().split_off(so_far);
    assert!(!later.contains(&None), "a probe is sent twice: {later:?}");
}

#[tokio::test]
async fn no_token_is_sent_under_a_certificate_that_does_not_verify() {
    let mut node = Node::new();
    node.write_token("secret");
    let stranger = Authority::new();
    let apiservers = [
        Apiserver::start("cp1", node.authority.expired_server()),
        Apiserver::start("cp2", stranger.server()),
    ];
    for apiserver in &apiservers {
        apiserver.demand("secret");
    }
    node.write(&apiservers.iter().fold(node.pool(), Pool::member));
    node.start().await;
    for apiserver in &apiservers {
        eventually("it is probed", async || apiserver.tokens().len() >= 5).await;
        let tokens = apiserver.tokens();
        assert!(
            tokens.iter().all(Option::is_none),
            "{}: {tokens:?}",
            apiserver.name
        );
    }
}

#[tokio::test]
async fn a_probe_connection_outlives_new_documents_but_not_new_authorities() {
    let (node, apiservers) = node_with(1).await;
    let apiserver = &apiservers[0];
    // Until then it tries its own listener on further connections.
    eventually("the proxy is ready", async || node.ready().await).await;
    let probed_twice = async || {
        let so_far = apiserver.tokens().len();
        eventually("it is probed twice", async || {
            apiserver.tokens().len() >= so_far + 2
        })
        .await;
    };
    probed_twice().await;
    let accepted = apiserver.accepted();
    let pool = node.pool().member(apiserver);
    for revision in 2..5 {
        node.write(&pool.clone().revision(revision).max_connections(500));
        node.follows(revision).await;
        probed_twice().await;
    }
    assert_eq!(apiserver.accepted(), accepted);
    let bundle = format!("{}{}", node.authority.bundle, Authority::new().bundle);
    node.write(&pool.revision(5).with_authorities(&bundle));
    eventually("it is connected to anew", async || {
        apiserver.accepted() == accepted + 1
    })
    .await;
    node.sees(apiserver, "Up").await;
}

#[tokio::test]
async fn a_member_with_two_addresses_is_told_by_each_of_them() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(
        &node
            .pool()
            .member_also_at("127.0.0.2".parse().unwrap(), &apiserver),
    );
    node.start().await;
    node.sees(&apiserver, "Up").await;
    let refusing = format!("127.0.0.2:{}", apiserver.address.port());
    eventually("the first address has been probed", async || {
        let status = node.status().await;
        let paths = &status.upstreams[0].paths;
        paths.iter().any(|path| path.reason == "Refused")
    })
    .await;
    let status = node.status().await;
    assert_eq!(status.upstreams.len(), 1);
    let upstream = &status.upstreams[0];
    assert_eq!((upstream.member.as_str(), upstream.state.as_str()), ("cp1", "Up"));
    assert_eq!(upstream.address, apiserver.address.to_string());
    assert_eq!(upstream.addresses, [upstream.address.clone(), refusing.clone()]);
    let told: Vec<_> = upstream
        .paths
        .iter()
        .map(|path| (path.address.as_str(), path.state.as_str(), path.proven))
        .collect();
    assert_eq!(
        told,
        [
            (upstream.address.as_str(), "Up", true),
            (refusing.as_str(), "Unready", false)
        ]
    );
    let account = status::account(upstream);
    assert!(account.contains(&refusing), "{account}");
    assert_eq!(status::overview(&status).matches("cp1").count(), 2);
    node.who().await.unwrap();
}

#[tokio::test]
async fn a_member_with_a_p521_key_is_up() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", authority::p521_server());
    node.write(
        &node
            .pool()
            .with_authorities(authority::P521_BUNDLE)
            .member(&apiserver),
    );
    node.start().await;
    node.sees(&apiserver, "Up").await;
}

#[tokio::test]
async fn an_expired_certificate_warns_and_changes_no_state() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.expired_server());
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    let line = "trivet_proxy_certificate_refused{member=\"cp1\"}";
    assert_eq!(node.metric(line).await, Some(1));
}

#[tokio::test]
async fn a_killed_member_is_unready_at_once_and_up_again_after_its_restart() {
    let (node, apiservers) = node_with(2).await;
    apiservers[0].set(Mode::Killed);
    node.sees(&apiservers[0], "Unready").await;
    apiservers[0].set(Mode::Ready);
    node.sees(&apiservers[0], "Up").await;
    eventually("cp1 serves again", async || node.who().await.unwrap() == "cp1").await;
}
