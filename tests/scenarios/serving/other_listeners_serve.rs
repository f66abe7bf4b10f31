//! Extra listeners on a real cluster: agents of two other servers of the masters, like konnectivity's and RKE2's supervisor,
//! reach them through the nodes' proxies, one that hangs costs them nothing, and a listener that is removed ends gently.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};
use trivet_instruments::{Record, eventually};
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::fault::Fault;
use trivet_tests::held::Held;
use trivet_tests::installation::Installation;
use trivet_tests::other_servers::OtherServers;
use trivet_tests::proxies;
use trivet_tests::say::say;

/// Where konnectivity's server and RKE2's supervisor listen on masters, and where their clients find them on each node: the
/// masters have proxies too, which cannot have the servers' own ports.
const KONNECTIVITY: (u16, u16) = (8132, 18132);
const SUPERVISOR: (u16, u16) = (9345, 19345);

/// New connections a second.
const RATE: u32 = 20;

/// How long clients connect in each state.
const LOOK_ON: Duration = Duration::from_secs(4);

/// An edit reaches the proxies within a second or two.
const FOLLOWED: Duration = Duration::from_secs(15);

/// The first handshakes with the servers, a second apart.
const PROVEN: Duration = Duration::from_secs(10);

/// How long the connections of a removed listener are given.
const DRAIN_SECONDS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn other_listeners_serve() -> Result<()> {
    let installation = Installation::serving().await?;
    let masters: Vec<_> = installation
        .masters()
        .iter()
        .map(|name| installation.cluster().host(name))
        .collect::<Result<_>>()?;
    let konnectivity = OtherServers::start(&masters, KONNECTIVITY.0).await?;
    let supervisor = OtherServers::start(&masters, SUPERVISOR.0).await?;
    let seen = are_served(&installation, &konnectivity).await;
    // Whatever was seen: other scenarios expect the one listener.
    installation.reset_pool().await?;
    konnectivity.finish().await?;
    supervisor.finish().await?;
    seen?;
    installation.proxies_settled().await
}

async fn are_served(installation: &Installation, konnectivity: &OtherServers) -> Result<()> {
    let workers = installation.workers();
    let worker = workers.first().context("there is no worker")?;
    let apiserver = json!({ "name": "apiserver" });
    let supervisor = json!({
        "name": "supervisor", "kind": "HTTPS", "port": SUPERVISOR.1, "memberPort": SUPERVISOR.0,
        "healthCheck": { "path": "/ping" },
    });
    let spread = json!({
        "name": "konnectivity", "kind": "TLS", "port": KONNECTIVITY.1, "memberPort": KONNECTIVITY.0, "balancing": "Spread",
    });
    let drain = json!({ "drainTimeoutSeconds": DRAIN_SECONDS });
    edit(
        installation,
        json!({ "listeners": [apiserver, spread, supervisor], "connection": drain }),
    )
    .await?;
    for port in [KONNECTIVITY.1, SUPERVISOR.1] {
        answers(installation, worker, port).await?;
    }
    let of_apiservers = attempts::start(worker, &installation.client()?, LOOPBACKS[0], RATE);
    all_are_reached(installation, worker).await?;
    a_hung_server_costs_nothing(installation, worker, konnectivity).await?;
    let client = installation.client()?.asking("/");
    let held = Held::open(worker, &client, local(KONNECTIVITY.1), 4).await?;
    edit(installation, json!({ "listeners": [apiserver, supervisor] })).await?;
    ends_gently(installation, worker, held).await?;
    of_apiservers
        .finish()
        .await?
        .all_succeeded("a client of the apiservers")
}

async fn edit(installation: &Installation, spec: serde_json::Value) -> Result<()> {
    let before = installation.config_revision().await?;
    installation.edit_pool(spec).await?;
    let revision = eventually(FOLLOWED, "the edit in a document", async || {
        let revision = installation.config_revision().await?;
        ensure!(revision > before, "it is still {before}");
        Ok(revision)
    })
    .await?;
    proxies::all_follow(&installation.workers(), revision, FOLLOWED)
        .await
        .map(drop)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn answers(installation: &Installation, worker: &Host, port: u16) -> Result<()> {
    let client = installation.client()?.asking("/");
    eventually(PROVEN, &format!("an answer at port {port}"), async || {
        let attempt = attempts::once(worker, &client, local(port)).await?;
        ensure!(attempt.succeeded(), "{attempt}");
        Ok(())
    })
    .await
}

async fn record(installation: &Installation, worker: &Host, port: u16) -> Result<Record> {
    let client = installation.client()?.asking("/");
    let attempts = attempts::start(worker, &client, local(port), RATE);
    sleep(LOOK_ON).await;
    attempts.finish().await
}

/// How many connections each master's server answered.
fn counts(record: &Record, masters: &[String]) -> BTreeMap<String, usize> {
    let counted = masters
        .iter()
        .map(|master| (master.clone(), record.answered_by(master)));
    counted.collect()
}

async fn all_are_reached(installation: &Installation, worker: &Host) -> Result<()> {
    let masters = installation.masters();
    for (name, port) in [("konnectivity", KONNECTIVITY.1), ("supervisor", SUPERVISOR.1)] {
        let record = record(installation, worker, port).await?;
        let counts = counts(&record, &masters);
        say(format!(
            "{name}: {} connections from {}, answered by {counts:?}",
            record.attempts().len(),
            worker.name()
        ));
        record.all_succeeded(name)?;
        let least = counts.values().copied().min().unwrap_or_default();
        ensure!(least > 0, "{name}: a server was not reached: {counts:?}");
        if port == KONNECTIVITY.1 {
            let most = counts.values().copied().max().unwrap_or_default();
            // A hedge takes a turn.
            ensure!(most - least <= 4, "{name}: not in turns: {counts:?}");
        }
    }
    Ok(())
}

async fn a_hung_server_costs_nothing(
    installation: &Installation,
    worker: &Host,
    konnectivity: &OtherServers,
) -> Result<()> {
    let masters = installation.other_masters();
    let hung = masters.first().context("there is one master")?;
    konnectivity.hang(&[hung.as_str()]);
    let detected = Instant::now() + Fault::Stop.detection();
    let record = record(installation, worker, KONNECTIVITY.1).await?;
    konnectivity.hang(&[]);
    say(format!(
        "{hung}'s server hangs: {} of {} new connections failed, slowest {:.2} s",
        record.failed().len(),
        record.attempts().len(),
        record.slowest().as_secs_f32()
    ));
    record.all_succeeded("konnectivity")?;
    let afterwards = record.since(detected);
    ensure!(
        afterwards.answered_by(hung) == 0,
        "{hung} was used later than {:?} after it began to hang",
        Fault::Stop.detection()
    );
    Ok(())
}

async fn ends_gently(installation: &Installation, worker: &Host, held: Held) -> Result<()> {
    let client = installation.client()?.asking("/");
    let port = KONNECTIVITY.1;
    eventually(FOLLOWED, &format!("port {port} closed"), async || {
        let attempt = attempts::once(worker, &client, local(port)).await?;
        ensure!(!attempt.was_answered(), "{attempt}");
        Ok(())
    })
    .await?;
    // The last one is closed when the time is up.
    sleep(Duration::from_secs(DRAIN_SECONDS + 1)).await;
    let connections = held.finish().await?;
    let open = connections
        .iter()
        .filter(|connection| connection.ended.is_none())
        .count();
    say(format!(
        "the listener was removed: {} of {} connections are left after {} s",
        open,
        connections.len(),
        DRAIN_SECONDS + 1
    ));
    ensure!(open == 0, "{open} connections outlived their listener");
    Ok(())
}
