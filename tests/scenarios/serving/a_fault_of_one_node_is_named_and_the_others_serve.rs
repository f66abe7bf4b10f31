//! What is wrong with one node costs the other nodes nothing, and is named with the node and a reason: in the proxy's log,
//! in its report and in the pool's status. Once it is repaired the node is whole, and nothing warns any more.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{try_join, try_join_all};
use serde_json::Value;
use trivet_crds::POOL_LABEL;
use trivet_crds::report::{ListenerState, ReportContent};
use trivet_instruments::{Attempts, eventually};
use trivet_tests::attempts::{self, LOOPBACKS, once};
use trivet_tests::installation::{Installation, NAMESPACE, POOL, Server, condition};
use trivet_tests::node_fault::{NodeFault, Stranger, lift_all, make_room, turn_ipv6_on};
use trivet_tests::say::say;

/// The faults of the nodes' proxies, no two of which hide each other. The port of w1's is taken besides.
const FAULTS: [(&str, NodeFault); 5] = [
    ("w2", NodeFault::DiskFull),
    ("w2", NodeFault::Ipv6Off),
    ("cp2", NodeFault::CacheCorrupt),
    ("cp3", NodeFault::CacheOfAnotherCluster),
    ("cp3", NodeFault::HandOverReadOnly),
];

/// The nodes whose proxies are restarted with a fault.
const FAULTY: [&str; 4] = ["w1", "w2", "cp2", "cp3"];

/// The nodes that a container must be started on again, because it has a mount of the fault's.
const KEPT_MOUNTS: [&str; 2] = ["w2", "cp3"];

/// A container is started again, and its proxy reports a change within seconds.
const TOLD: Duration = Duration::from_secs(60);

/// New connections a second of each client.
const RATE: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_proxys_node_is_named() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    // A kubelet must not lose the API with its node's proxy, which is killed.
    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    let clients = LOOPBACKS.map(|to| Client::start(&installation, "cp1", to));
    let outcome = proxies_tell(&installation).await;
    lift(&installation).await?;
    let replaced = replace_proxies(&installation).await;
    outcome?;
    replaced?;
    installation.proxies_settled().await?;
    nothing_warns(&installation).await?;
    for client in clients {
        client?.lost_nothing().await?;
    }
    installation.pool_ready().await
}

/// Starts four proxies on nodes with a fault, and repairs what can be repaired while a proxy runs.
async fn proxies_tell(installation: &Installation) -> Result<()> {
    inject(installation, &FAULTS).await?;
    let mut stranger = Stranger::lurk(&installation.cluster().host("w1")?, LOOPBACKS[0]);
    try_join_all(
        FAULTY.map(|node| installation.disturb(move |cluster| cluster.kill_container(node, "trivet-proxy"))),
    )
    .await?;
    stranger.listens().await?;

    let ((), of_w2, (), (), ()) = futures::try_join!(
        a_taken_port_is_named(installation),
        a_full_disk_is_named(installation),
        a_damaged_cache_is_named(installation),
        another_clusters_cache_is_named(installation),
        a_missing_hand_over_is_named(installation),
    )?;
    a_listener_without_address_is_told(installation, &of_w2).await?;

    // Each serves where it can.
    let served = [
        ("w1", LOOPBACKS[1]),
        ("w2", LOOPBACKS[0]),
        ("cp2", LOOPBACKS[1]),
        ("cp3", LOOPBACKS[0]),
    ];
    let served = served.map(|(node, to)| Client::start(installation, node, to));
    stranger.leave().await?;
    installation
        .disturb(|cluster| {
            let host = cluster.host("w2")?;
            make_room(&host)?;
            turn_ipv6_on(&host)
        })
        .await?;
    try_join(is_whole(installation, "w1"), is_whole(installation, "w2")).await?;
    for client in served {
        client?.lost_nothing().await?;
    }
    Ok(())
}

/// By the operator too: the node is counted out.
async fn a_taken_port_is_named(installation: &Installation) -> Result<()> {
    let fault = eventually(TOLD, "w1's taken port", async || {
        let report = installation.report("w1").await?;
        ensure!(state(&report, LOOPBACKS[1])?.0 == ListenerState::Listening);
        let (state, message) = state(&report, LOOPBACKS[0])?;
        ensure!(state == ListenerState::Failed, "{report:?}");
        Ok(message.to_owned())
    })
    .await?;
    ensure!(fault.contains("taken by"), "{fault}");
    in_log(
        installation,
        "w1",
        &["listener has a fault", "127.0.0.1:7443", &fault],
    )
    .await?;
    let told = in_status(installation, &["w1", "127.0.0.1:7443"]).await?;
    say(format!("w1's port is taken: {fault}; {told}"));
    let status = installation.pool_status().await?;
    let proxies = status.proxies.clone().unwrap_or_default();
    ensure!(proxies.unavailable > 0, "w1 is counted as available: {proxies:?}");
    let available = condition(&status, "ProxiesAvailable")?;
    ensure!(available.status == "False", "{available:?}");
    Ok(())
}

async fn a_full_disk_is_named(installation: &Installation) -> Result<ReportContent> {
    let report = warns(installation, "w2", "CacheUnwritable", "No space left").await?;
    in_log(installation, "w2", &["CacheUnwritable", "No space left"]).await?;
    Ok(report)
}

/// No fault of the proxy: the node has no such address, and no client can use it.
async fn a_listener_without_address_is_told(
    installation: &Installation,
    report: &ReportContent,
) -> Result<()> {
    let v6 = LOOPBACKS[1].to_string();
    in_log(installation, "w2", &["whose address this node lacks", &v6]).await?;
    let status = installation.proxy_status("w2").await?;
    let listeners = status.pointer("/listeners").and_then(Value::as_array);
    let mut listeners = listeners.into_iter().flatten();
    let listener = listeners
        .find(|listener| listener.get("address").and_then(Value::as_str) == Some(&v6))
        .context("the status lacks the listener")?;
    say(format!("w2 without IPv6: {listener}; {:?}", report.listeners));
    ensure!(listener.get("bound") == Some(&Value::Bool(false)), "{listener}");
    Ok(())
}

/// Only the log can tell: what is damaged is replaced as soon as there is a document.
async fn a_damaged_cache_is_named(installation: &Installation) -> Result<()> {
    in_log(installation, "cp2", &["refused document", "Cache"]).await?;
    in_log(installation, "cp2", &["proven.json"]).await?;
    is_whole(installation, "cp2").await
}

/// The API cannot tell until the document of this cluster is followed: no member is trusted before.
async fn another_clusters_cache_is_named(installation: &Installation) -> Result<()> {
    in_log(installation, "cp3", &["OtherAuthority"]).await?;
    in_log(installation, "cp3", &["following a document in place of one"]).await
}

async fn a_missing_hand_over_is_named(installation: &Installation) -> Result<()> {
    warns(installation, "cp3", "HandoverUnavailable", "Read-only").await?;
    in_log(installation, "cp3", &["HandoverUnavailable", "Read-only"]).await
}

async fn inject(installation: &Installation, faults: &'static [(&'static str, NodeFault)]) -> Result<()> {
    installation
        .disturb(move |cluster| {
            faults
                .iter()
                .try_for_each(|(node, fault)| fault.inject(&cluster.host(node)?))
        })
        .await
}

async fn lift(installation: &Installation) -> Result<()> {
    installation
        .disturb(|cluster| cluster.hosts().iter().try_for_each(lift_all))
        .await
}

/// Starts new proxies where those that run have mounts of the faults.
async fn replace_proxies(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let delete = |node: &'static str| {
        let tools = &tools;
        async move {
            let which = format!("--selector {POOL_LABEL}={POOL} --field-selector spec.nodeName={node}");
            installation.allow_pods_to_go(&which).await?;
            let delete = format!("delete pods --namespace {NAMESPACE} {which} --grace-period=1 --wait");
            tools.kubectl(&delete).await
        }
    };
    try_join_all(KEPT_MOUNTS.map(delete)).await.map(drop)
}

/// Waits until a node reports this warning with these words, and the pool names both; returns the report.
async fn warns(installation: &Installation, node: &str, reason: &str, words: &str) -> Result<ReportContent> {
    let what = format!("{reason} of {node}");
    let report = eventually(TOLD, &what, async || {
        let report = installation.report(node).await?;
        let mut warnings = report.warnings.iter();
        let warning = warnings.find(|warning| warning.reason == reason);
        let warning = warning.with_context(|| format!("it warns of {:?}", report.warnings))?;
        ensure!(warning.message.contains(words), "{warning:?}");
        Ok(report)
    })
    .await?;
    let told = in_status(installation, &[reason, node]).await?;
    say(format!("{node}: {:?}; {told}", report.warnings));
    Ok(report)
}

/// Waits until one line of the log of a node's proxy has all of these words.
async fn in_log(installation: &Installation, node: &str, words: &[&str]) -> Result<()> {
    eventually(TOLD, "the log", async || {
        let log = installation.proxy_log(node).await?;
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        ensure!(log.lines().any(has_all), "no line of {node} has {words:?}: {log}");
        Ok(())
    })
    .await
}

/// Waits until the pool says all of these words about its proxies; returns the message.
async fn in_status(installation: &Installation, words: &[&str]) -> Result<String> {
    eventually(TOLD, "the pool's status", async || {
        let status = installation.pool_status().await?;
        let available = condition(&status, "ProxiesAvailable")?;
        for word in words {
            ensure!(available.message.contains(word), "{word} is not in {available:?}");
        }
        Ok(available.message.clone())
    })
    .await
}

/// Waits until the proxy of a node serves on both addresses, and reports both and no warning.
async fn is_whole(installation: &Installation, node: &str) -> Result<()> {
    let (host, client) = (installation.cluster().host(node)?, installation.client()?);
    eventually(TOLD, &format!("{node} whole"), async || {
        for to in LOOPBACKS {
            let attempt = once(&host, &client, to).await?;
            ensure!(attempt.succeeded(), "{to}: {attempt}");
        }
        let report = installation.report(node).await?;
        ensure!(report.warnings.is_empty(), "{:?}", report.warnings);
        for to in LOOPBACKS {
            ensure!(state(&report, to)?.0 == ListenerState::Listening, "{report:?}");
        }
        Ok(())
    })
    .await
}

/// Waits until every node is whole, and the pool says nothing of any.
async fn nothing_warns(installation: &Installation) -> Result<()> {
    let hosts = installation.hosts();
    let names: Vec<_> = hosts.iter().map(|host| host.name().to_string()).collect();
    try_join_all(names.iter().map(|node| is_whole(installation, node))).await?;
    eventually(TOLD, "a pool without a word about a node", async || {
        let status = installation.pool_status().await?;
        let available = condition(&status, "ProxiesAvailable")?;
        let is_named = |name: &String| available.message.contains(name.as_str());
        ensure!(available.status == "True", "{available:?}");
        ensure!(!names.iter().any(is_named), "{available:?}");
        Ok(())
    })
    .await
}

/// What a report says of a listener.
fn state(report: &ReportContent, address: SocketAddr) -> Result<(ListenerState, &str)> {
    let address = address.to_string();
    let mut listeners = report.listeners.iter();
    let listener = listeners.find(|listener| listener.address == address);
    let listener = listener.with_context(|| format!("{address} is not in {report:?}"))?;
    Ok((listener.state, &listener.message))
}

/// A client of one node's proxy.
struct Client {
    name: String,
    attempts: Attempts,
}

impl Client {
    fn start(installation: &Installation, node: &str, to: SocketAddr) -> Result<Self> {
        let host = installation.cluster().host(node)?;
        Ok(Self {
            name: format!("{node}, {to}"),
            attempts: attempts::start(&host, &installation.client()?, to, RATE),
        })
    }

    async fn lost_nothing(self) -> Result<()> {
        let record = self.attempts.finish().await?;
        record.all_succeeded(&self.name)?;
        say(format!(
            "{}: 0 of {} new connections failed",
            self.name,
            record.attempts().len()
        ));
        Ok(())
    }
}
