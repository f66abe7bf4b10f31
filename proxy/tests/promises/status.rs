//! Status, metrics and log lines are true, whatever the members do.

use std::{
    io,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use tokio::task::{JoinSet, spawn_blocking};
use tracing::Level;
use tracing_subscriber::{filter::Targets, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};
use trivet_proxy::status::{Observation, Status, UpstreamStatus};

use crate::support::{
    apiserver::{Apiserver, Mode},
    client::{Client, answered, client_hello},
    eventually,
    node::{Node, Pool, node_with, shared},
};

fn of<'a>(status: &'a Status, apiserver: &Apiserver) -> &'a UpstreamStatus {
    let upstreams = &status.upstreams;
    upstreams
        .iter()
        .find(|upstream| upstream.member == apiserver.name)
        .unwrap()
}

fn found<'a>(upstream: &'a UpstreamStatus, outcome: &str) -> &'a Observation {
    let evidence = &upstream.evidence;
    evidence
        .iter()
        .find(|evidence| evidence.outcome == outcome)
        .unwrap_or_else(|| panic!("no {outcome} in {evidence:#?}"))
}

async fn ask(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trivet-proxy"));
    command
        .args(arguments)
        .arg("--socket")
        .arg(node.path("proxy.sock"));
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_status_of_a_healthy_proxy_is_complete() {
    let (node, apiservers) = node_with(2).await;
    eventually("ready", async || node.ready().await).await;
    let _client = node.client_on(&apiservers[0]).await;
    let status = node.status().await;
    assert_eq!(status.node, "w1");
    assert_eq!(status.not_ready_because, None);
    let document = status.document.as_ref().unwrap();
    assert_eq!((document.pool.as_str(), document.revision), ("default", 1));
    assert_eq!(document.source, "File");
    let listener = &status.listeners[0];
    assert_eq!(
        (listener.address.as_str(), listener.bound),
        (node.proxy.to_string().as_str(), true)
    );
    assert!(
        (1..=status.clients.limit).contains(&status.clients.open),
        "{:?}",
        status.clients
    );
    for apiserver in &apiservers {
        let upstream = of(&status, apiserver);
        assert_eq!(upstream.address, apiserver.address.to_string());
        assert_eq!(
            (upstream.state.as_str(), upstream.reason.as_str()),
            ("Up", "Answering")
        );
        assert_eq!((upstream.standing.as_str(), upstream.proven), ("Active", true));
        let probe = upstream.last_probe.as_ref().unwrap();
        assert_eq!(probe.outcome, "Ready");
        assert!(probe.latency_microseconds.is_some());
    }
    eventually("the one connection is told", async || {
        of(&node.status().await, &apiservers[0]).connections == 1
    })
    .await;
    assert_eq!(
        node.metric("trivet_proxy_document_source{source=\"File\"}").await,
        Some(1)
    );
}

#[tokio::test]
async fn a_hung_member_is_shown_as_silent_and_its_failover_is_timed() {
    let (node, apiservers) = node_with(2).await;
    let mut client = node.client_on(&apiservers[0]).await;
    apiservers[0].set(Mode::Hung);
    client.end().await;
    let status = node.status().await;
    let upstream = of(&status, &apiservers[0]);
    assert_eq!(
        (upstream.state.as_str(), upstream.reason.as_str()),
        ("Down", "Silent")
    );
    assert!(
        upstream.effect.contains("old ones are cut"),
        "{}",
        upstream.effect
    );
    assert!(
        upstream.way_back.starts_with("2 good answers in a row"),
        "{}",
        upstream.way_back
    );
    let silent = found(upstream, "Silent");
    assert!(silent.times >= 2);
    assert!(
        silent.detail.contains(&apiservers[0].address.to_string()),
        "{}",
        silent.detail
    );
    assert_eq!(upstream.last_probe.as_ref().unwrap().outcome, "Silent");
    // The outcomes before the failure are there as well.
    found(upstream, "Ready");
    let count = "trivet_proxy_failover_duration_seconds_count";
    assert_eq!(node.metric(count).await, Some(1));
    let in_time = "trivet_proxy_failover_duration_seconds_bucket{le=\"15.0\"}";
    assert_eq!(node.metric(in_time).await, Some(1));
    let transitions = "trivet_proxy_upstream_transitions_total{member=\"cp1\",to=\"Down\"}";
    assert_eq!(node.metric(transitions).await, Some(1));
}

#[tokio::test]
async fn a_killed_member_is_shown_as_refusing_with_the_kernels_error() {
    let (node, apiservers) = node_with(2).await;
    apiservers[0].set(Mode::Killed);
    node.sees(&apiservers[0], "Unready").await;
    let status = node.status().await;
    let upstream = of(&status, &apiservers[0]);
    assert_eq!(upstream.reason, "Refused");
    assert!(
        upstream.effect.contains("old ones are left alone"),
        "{}",
        upstream.effect
    );
    assert!(
        upstream.way_back.contains("of hold-down left"),
        "{}",
        upstream.way_back
    );
    eventually("the refusal is told in full", async || {
        let status = node.status().await;
        let evidence = &of(&status, &apiservers[0]).evidence;
        evidence
            .iter()
            .any(|evidence| evidence.outcome == "Refused" && evidence.detail.contains("Connection refused"))
    })
    .await;
}

#[tokio::test]
async fn a_member_that_is_not_ready_is_shown_with_its_failing_checks() {
    let (node, apiservers) = node_with(2).await;
    apiservers[0].set(Mode::NotReady);
    node.sees(&apiservers[0], "Unready").await;
    let status = node.status().await;
    let upstream = of(&status, &apiservers[0]);
    assert_eq!(upstream.reason, "EtcdFailed");
    assert_eq!(found(upstream, "EtcdFailed").detail, "answers 500, failing: etcd");
    assert_eq!(upstream.hold_down_milliseconds, 0);
}

#[tokio::test]
async fn bytes_are_counted_while_their_connection_lives() {
    let (node, apiservers) = node_with(1).await;
    // The proxy's own request through its listener is over.
    eventually("ready", async || node.ready().await).await;
    eventually("nobody is connected", async || {
        node.metric("trivet_proxy_client_connections").await == Some(0)
    })
    .await;
    let mut client = node.client_on(&apiservers[0]).await;
    let mut counted = [0; 2];
    for _ in 0..3 {
        client.who().await.unwrap();
        for (name, before) in ["sent", "received"].into_iter().zip(&mut counted) {
            let line = format!("trivet_proxy_{name}_bytes_total");
            let now = node.metric(&line).await.unwrap();
            assert!(now > *before, "{name}: {now} after {before}");
            *before = now;
        }
    }
    assert_eq!(node.metric("trivet_proxy_client_connections").await, Some(1));
}

#[tokio::test]
async fn hedges_are_counted_for_the_member_that_won_and_the_one_that_lost() {
    let (node, apiservers) = node_with(2).await;
    apiservers[0].set(Mode::Hung);
    let mut attempts = JoinSet::new();
    for _ in 0..10 {
        let (proxy, tls) = shared(&node);
        attempts.spawn(async move { Client::connect(proxy, tls).await?.who().await });
    }
    for answer in attempts.join_all().await {
        assert_eq!(answer.unwrap(), "cp2");
    }
    let count = async |name: &str, member: &str| {
        let line = format!("trivet_proxy_{name}{{member=\"{member}\"}}");
        node.metric(&line).await.unwrap()
    };
    let lost = count("hedges_lost_total", "cp1").await;
    assert!(lost >= 1);
    assert_eq!(count("hedges_won_total", "cp2").await, lost);
    assert_eq!(count("hedges_won_total", "cp1").await, 0);
    assert_eq!(count("first_byte_duration_seconds_count", "cp1").await, 0);
    assert!(count("first_byte_duration_seconds_count", "cp2").await >= 10);
}

#[tokio::test]
async fn the_bytes_of_a_hedged_first_flight_are_counted_once() {
    const CLIENTS: u64 = 10;
    let (node, apiservers) = node_with(2).await;
    eventually("ready", async || node.ready().await).await;
    let nobody = async || node.metric("trivet_proxy_client_connections").await == Some(0);
    eventually("nobody is connected", nobody).await;
    let before = node.metric("trivet_proxy_sent_bytes_total").await.unwrap();
    apiservers[0].set(Mode::Hung);
    let hello = client_hello(node.authority.client());
    for _ in 0..CLIENTS {
        answered(node.proxy, &hello).await;
    }
    eventually("all have left", nobody).await;
    assert!(node.metric("trivet_proxy_hedges_total{member=\"cp1\"}").await >= Some(1));
    let sent = node.metric("trivet_proxy_sent_bytes_total").await.unwrap() - before;
    assert_eq!(sent, CLIENTS * hello.len() as u64);
}

#[tokio::test]
async fn nothing_is_shown_of_a_member_that_is_gone() {
    let (node, apiservers) = node_with(2).await;
    let mut leaving = node.client_on(&apiservers[0]).await;
    node.write(&node.pool().revision(2).member(&apiservers[1]));
    leaving.end().await;
    eventually("no series is left", async || {
        !node.metrics().await.contains("member=\"cp1\"")
    })
    .await;
    assert_eq!(node.status().await.upstreams.len(), 1);
    assert_eq!(node.who().await.unwrap(), "cp2");
    assert!(!node.metrics().await.contains("member=\"cp1\""));
}

#[tokio::test]
async fn the_commands_print_the_status() {
    let (node, apiservers) = node_with(2).await;
    apiservers[0].set(Mode::NotReady);
    node.sees(&apiservers[0], "Unready").await;

    let table = ask(&node, &["status"]).await;
    let text = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.status.code(), Some(0));
    let row = text.lines().find(|line| line.starts_with("cp1")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells[1..4],
        [&apiservers[0].address.to_string(), "Unready", "EtcdFailed"],
        "{text}"
    );
    assert!(text.contains("revision 1 of pool default"), "{text}");

    let json = ask(&node, &["status", "-o", "json"]).await;
    let status: Status = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(of(&status, &apiservers[0]).state, "Unready");
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(value["upstreams"][0]["stateMilliseconds"].is_u64(), "{value}");

    let account = ask(&node, &["explain", "cp1"]).await;
    let text = String::from_utf8(account.stdout).unwrap();
    assert_eq!(account.status.code(), Some(0));
    for words in [
        "cp1 at",
        "Unready (EtcdFailed)",
        "cannot reach its etcd",
        "failing: etcd",
        "good answer",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }

    let unknown = ask(&node, &["explain", "cp9"]).await;
    let text = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(64));
    for words in ["cp9", "cp1, cp2"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[tokio::test]
async fn a_proxy_without_a_document_says_so() {
    let mut node = Node::new();
    node.start().await;
    let status = node.status().await;
    assert_eq!((status.document, status.upstreams), (None, Vec::new()));
    assert!(status.not_ready_because.unwrap().contains("no document"));
    assert_eq!(ask(&node, &["explain", "cp1"]).await.status.code(), Some(64));
}

/// The log of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_connection_logs_one_line_with_its_result() {
    let log = Log::default();
    // For the whole process: tracing caches per call site whether a subscriber is interested, and another test's thread
    // may reach a call site before this one.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(log.clone());
    let filter = Targets::new().with_target("trivet_proxy::connection", Level::DEBUG);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&Pool::new(&node.authority, node.proxy.port()).member(&apiserver));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    let hello = client_hello(node.authority.client());
    let from = answered(node.proxy, &hello).await;
    let whose = format!("client={from} ");
    let line = async || {
        let text = log.text();
        let line = text
            .lines()
            .find(|line| line.contains("connection ended") && line.contains(&whose));
        line.map(str::to_owned)
    };
    eventually("the line is there", async || line().await.is_some()).await;
    let line = line().await.unwrap();
    for field in [
        format!("listener={} ", node.proxy),
        "member=\"cp1\" ".to_owned(),
        format!("upstream={} ", apiserver.address),
        "reason=\"".to_owned(),
        format!(" sent={} ", hello.len()),
        " received=".to_owned(),
        " milliseconds=".to_owned(),
        " first_byte_milliseconds=".to_owned(),
        " hedged=false".to_owned(),
    ] {
        assert!(line.contains(&field), "{field:?} is not in {line}");
    }
}
