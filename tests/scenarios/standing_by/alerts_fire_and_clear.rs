//! A real Prometheus scrapes every proxy at its node's address, as the API server lets it, and the operator. In a healthy
//! cluster no alert's expression holds. Each holds within a minute of its fault, for the node and the member that it is
//! about, and none a minute after the heal.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::eventually;
use trivet_testbed::{Component, Fault, Host};
use trivet_tests::attempts::LOOPBACKS;
use trivet_tests::held::Held;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, standbys};
use trivet_tests::prometheus::Prometheus;
use trivet_tests::say::say;
use trivet_tests::serving::daemon_set_serves;

/// Within this time of a fault its alert's expression holds, and within this time of the heal none does.
const TOLD: Duration = Duration::from_secs(60);

/// The least that a pool may allow.
const CONNECTIONS: usize = 64;

/// The binding of the operator's rights in the whole cluster.
const BINDING: &str = "patch clusterrolebinding trivet-operator --type=json --patch";

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear() -> Result<()> {
    let installation = Installation::standing_by().await?.told().await?;
    let hosts = Hosts::of(&installation).await?;
    only_readers_get_metrics(&installation, &hosts.reached).await?;
    let prometheus = Prometheus::start(&installation, "cp1").await?;
    prometheus.tells_nothing(TOLD).await?;
    say("no alert in a healthy cluster");

    let outcome = nodes_and_members(&installation, &hosts, &prometheus).await;
    heal(&installation, &hosts).await?;
    outcome?;
    all_clear(&prometheus, "nodes and members").await?;

    let outcome = pool_and_passes(&installation, &prometheus).await;
    let subject = format!(
        "[{{\"op\":\"add\",\"path\":\"/subjects\",\"value\":[{{\"kind\":\"ServiceAccount\",\"name\":\"trivet-operator\",\"namespace\":\"{NAMESPACE}\"}}]}}]"
    );
    installation
        .tools()
        .kubectl(&format!("{BINDING} {subject}"))
        .await?;
    installation.edit_pool(json!({ "members": null })).await?;
    outcome?;
    all_clear(&prometheus, "a rejected spec, and an operator without rights").await?;

    let replicas = operators(&installation, 0).await?;
    let outcome = prometheus.tells("TrivetOperatorDown", &[], TOLD).await;
    operators(&installation, replicas).await?;
    outcome?;
    all_clear(&prometheus, "no operator").await?;
    installation.nodes_ready().await
}

/// Which host gets which fault.
struct Hosts {
    /// A worker that reaches no master. The operator that leads does not run there.
    severed: Host,
    /// A worker that does not reach cp2.
    reached: Host,
    /// Whose proxy hangs, and another whose standby does.
    hung: Host,
    without_standby: Host,
}

impl Hosts {
    async fn of(installation: &Installation) -> Result<Self> {
        let leader = installation.leader().await?.node;
        let mut workers = installation.workers();
        workers.sort_by_key(|worker| worker.name().to_string() == leader);
        let mut workers = workers.into_iter();
        let cluster = installation.cluster();
        Ok(Self {
            severed: workers.next().context("there is no worker")?,
            reached: workers.next().context("there is one worker only")?,
            hung: cluster.host("cp2")?,
            without_standby: cluster.host("cp1")?,
        })
    }
}

/// At the node's address the API server decides who gets them.
async fn only_readers_get_metrics(installation: &Installation, host: &Host) -> Result<()> {
    let at = format!("https://{}:7444/metrics", host.ipv4());
    let master = installation.cluster().host("cp1")?;
    for (user, wanted) in [
        (None, "401"),
        (Some("trivet-operator"), "403"),
        (Some("trivet-metrics-reader"), "200"),
    ] {
        let mut words: Vec<String> = [
            "curl",
            "--silent",
            "--insecure",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]
        .map(str::to_owned)
        .into();
        if let Some(user) = user {
            let token = format!("create token {user} --namespace {NAMESPACE} --duration 10m");
            let token = installation.tools().kubectl(&token).await?;
            words.extend(["--oauth2-bearer".to_owned(), token.trim().to_owned()]);
        }
        words.push(at.clone());
        let output = master.exec(&words)?;
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(status == wanted, "{at} as {user:?}: {status}, not {wanted}");
        say(format!("{at} as {}: {status}", user.unwrap_or("nobody")));
    }
    Ok(())
}

async fn nodes_and_members(
    installation: &Installation,
    hosts: &Hosts,
    prometheus: &Prometheus,
) -> Result<()> {
    let [severed, reached, hung] =
        [&hosts.severed, &hosts.reached, &hosts.hung].map(|host| host.name().to_string());
    let (node, other) = (severed.clone(), reached.clone());
    installation
        .disturb(move |cluster| {
            for master in cluster.masters() {
                cluster.inject(&node, Fault::Sever(master.name()))?;
            }
            cluster.inject(&other, Fault::Sever(cluster.host("cp2")?.name()))?;
            cluster.kill("cp3", Component::KubeApiserver.program())
        })
        .await?;
    hosts
        .hung
        .signal(daemon_set_serves(&hosts.hung).await?, Signal::SIGSTOP)?;
    for pid in standbys(&hosts.without_standby)? {
        hosts.without_standby.signal(pid, Signal::SIGSTOP)?;
    }
    let limited = json!({ "connection": { "maxConnections": CONNECTIONS } });
    installation.edit_pool(limited).await?;
    let _held = fill(installation, &hosts.reached, prometheus).await?;
    let begun = Instant::now();
    let wanted = [
        ("TrivetNoUpstream", vec![("node", severed.as_str())]),
        (
            "TrivetMemberUnreachableFromNode",
            vec![("node", reached.as_str()), ("member", "cp2")],
        ),
        ("TrivetMemberDownOnManyNodes", vec![("member", "cp3")]),
        ("TrivetDocumentStale", vec![("node", severed.as_str())]),
        ("TrivetConnectionsNearLimit", vec![("node", reached.as_str())]),
        ("TrivetProxyNotScraped", vec![("node", hung.as_str())]),
        ("TrivetStandbyMissing", vec![("pool", POOL)]),
    ];
    let told = wanted.iter().map(|(alert, labels)| async move {
        prometheus.tells(alert, labels, TOLD).await?;
        say(format!(
            "{alert} {labels:?} after {:.0} s",
            begun.elapsed().as_secs_f32()
        ));
        anyhow::Ok(())
    });
    try_join_all(told).await.map(drop)
}

/// Holds so many connections of a node that nearly none is left.
async fn fill(installation: &Installation, host: &Host, prometheus: &Prometheus) -> Result<Held> {
    let of_node = |metric: &str| format!("{metric}{{node=\"{}\"}}", host.name());
    eventually(TOLD, "the proxy knows its limit", async || {
        let limit = prometheus
            .value(&of_node("trivet_proxy_client_connections_limit"))
            .await?;
        ensure!(limit <= 64.0, "it is {limit}");
        Ok(())
    })
    .await?;
    let open = prometheus
        .value(&of_node("trivet_proxy_client_connections"))
        .await?;
    // A small whole number.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 64"
    )]
    let left = CONNECTIONS.saturating_sub(open as usize + 3);
    Held::open(host, &installation.client()?, LOOPBACKS[0], left).await
}

async fn heal(installation: &Installation, hosts: &Hosts) -> Result<()> {
    let names = [&hosts.severed, &hosts.reached].map(|host| host.name().to_string());
    installation
        .disturb(move |cluster| {
            for name in &names {
                cluster.heal(name)?;
            }
            for name in ["cp1", "cp2"] {
                cluster.cont(name, "trivet-proxy")?;
            }
            cluster.start_component("cp3", Component::KubeApiserver)
        })
        .await?;
    installation.edit_pool(json!({ "connection": null })).await
}

/// A spec that would leave no member, for an operator that may not say so.
async fn pool_and_passes(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    let nobody = "[{\"op\":\"remove\",\"path\":\"/subjects\"}]";
    installation
        .tools()
        .kubectl(&format!("{BINDING} {nobody}"))
        .await?;
    let disabled = ["cp1", "cp2", "cp3"].map(|name| json!({ "name": name, "state": "Disabled" }));
    installation.edit_pool(json!({ "members": disabled })).await?;
    let pool = [("pool", POOL)];
    tokio::try_join!(
        prometheus.tells("TrivetPoolRejected", &pool, TOLD),
        prometheus.tells("TrivetOperatorPassesFail", &pool, TOLD),
    )
    .map(drop)
}

/// Runs so many operators from now on; returns how many there were.
async fn operators(installation: &Installation, replicas: u32) -> Result<u32> {
    let of_operator = format!("deployment trivet-operator --namespace {NAMESPACE}");
    let tools = installation.tools();
    let before = tools
        .kubectl(&format!("get {of_operator} --output jsonpath={{.spec.replicas}}"))
        .await?;
    tools
        .kubectl(&format!("scale {of_operator} --replicas {replicas}"))
        .await?;
    Ok(before.parse()?)
}

async fn all_clear(prometheus: &Prometheus, after: &str) -> Result<()> {
    let begun = Instant::now();
    prometheus.tells_nothing(TOLD).await?;
    say(format!(
        "no alert {:.0} s after the heal of: {after}",
        begun.elapsed().as_secs_f32()
    ));
    Ok(())
}
