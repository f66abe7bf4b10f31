//! A node's zone reaches its proxy through the proxy's pod, as Kubernetes tells pods of their node's; and where the pool
//! asks for it, each node's connections go to the masters of its own zone, or those of a master to its own apiserver.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::sleep;
use trivet_crds::POOL_LABEL;
use trivet_crds::pool::Locality;
use trivet_crds::wire::{self, Document};
use trivet_instruments::eventually;
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, Server};
use trivet_tests::proxies::all_follow;
use trivet_tests::say::say;

/// Each worker's zone, and the master that is in it too.
const ZONES: [(&str, &str, &str); 2] = [("w1", "a", "cp2"), ("w2", "b", "cp3")];

/// Where Kubernetes has a zone.
const LABEL: &str = "topology.kubernetes.io/zone";

/// A new pod, its first probes, and a document that names the zones.
const KNOWN: Duration = Duration::from_secs(60);

/// New connections a second from each worker.
const RATE: u32 = 20;

/// Long enough for what is spread to reach every master.
const LOOK_ON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_prefers_the_masters_of_its_zone() -> Result<()> {
    let installation = Installation::serving().await?;
    // Their proxies are replaced.
    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    let seen = in_zones(&installation).await;
    // Whatever was seen: other scenarios expect all masters to be used.
    label(&installation, |_| "-".to_owned()).await?;
    installation.reset_pool().await?;
    replace_proxies(&installation).await?;
    seen?;
    installation.proxies_settled().await
}

async fn in_zones(installation: &Installation) -> Result<()> {
    label(installation, |zone| format!("={zone}")).await?;
    installation.edit_pool(prefer(Locality::PreferSameZone)).await?;
    replace_proxies(installation).await?;
    let uses = ZONES.map(|(worker, zone, master)| uses_its_zone(installation, worker, zone, master));
    try_join_all(uses).await?;
    masters_use_themselves(installation).await
}

fn prefer(locality: Locality) -> Value {
    json!({ "balancing": { "locality": locality } })
}

/// An edit of the locality restarts no proxy.
async fn masters_use_themselves(installation: &Installation) -> Result<()> {
    let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
    installation.edit_pool(prefer(Locality::PreferLocal)).await?;
    let is_local = |document: &Document| document.balancing.locality == wire::Locality::PreferLocal;
    let published = documents.until(KNOWN, is_local).await?;
    all_follow(&installation.hosts(), published.document.revision, KNOWN).await?;
    let masters = ZONES.map(|(.., master)| async move {
        let host = installation.cluster().host(master)?;
        gives_all_to(installation, &host, master).await
    });
    try_join_all(masters).await.map(drop)
}

/// Puts this after the label's name on the hosts of each zone.
async fn label(installation: &Installation, value: impl Fn(&str) -> String) -> Result<()> {
    for (worker, zone, master) in ZONES {
        let value = value(zone);
        let label = format!("label nodes {worker} {master} {LABEL}{value} --overwrite");
        installation.tools().kubectl(&label).await?;
    }
    Ok(())
}

/// A pod is told its zone when it is scheduled, and never again.
async fn replace_proxies(installation: &Installation) -> Result<()> {
    for (worker, ..) in ZONES {
        let which = format!("--selector {POOL_LABEL}={POOL} --field-selector spec.nodeName={worker}");
        installation.allow_pods_to_go(&which).await?;
        let delete = format!("delete pods --namespace {NAMESPACE} {which} --wait");
        installation.tools().kubectl(&delete).await?;
    }
    Ok(())
}

async fn uses_its_zone(installation: &Installation, worker: &str, zone: &str, master: &str) -> Result<()> {
    let what = format!("{worker} knows its zone and {master} in it");
    let status = eventually(KNOWN, &what, async || {
        let status = installation.proxy_status(worker).await?;
        let found = status.pointer("/zone").and_then(Value::as_str);
        ensure!(found == Some(zone), "its zone is {found:?}");
        let near = near(&status);
        ensure!(near == [master], "near are {near:?}");
        Ok(status)
    })
    .await?;
    say(format!(
        "{worker}: its proxy is in zone {}; in it too are {:?}",
        status.pointer("/zone").unwrap_or(&Value::Null),
        near(&status)
    ));
    gives_all_to(installation, &installation.cluster().host(worker)?, master).await
}

/// The members that are Up and in the zone of the proxy's node.
fn near(status: &Value) -> Vec<&str> {
    let upstreams = status.pointer("/upstreams").and_then(Value::as_array);
    let is = |upstream: &Value, key: &str, value: &str| upstream.get(key).is_some_and(|found| found == value);
    upstreams
        .into_iter()
        .flatten()
        .filter(|upstream| is(upstream, "distance", "SameZone") && is(upstream, "state", "Up"))
        .filter_map(|upstream| upstream.get("member").and_then(Value::as_str))
        .collect()
}

async fn gives_all_to(installation: &Installation, worker: &Host, master: &str) -> Result<()> {
    let (name, client) = (worker.name(), installation.client()?);
    let started = LOOPBACKS.map(|to| (to, attempts::start(worker, &client, to, RATE)));
    sleep(LOOK_ON).await;
    for (to, attempts) in started {
        let record = attempts.finish().await?;
        say(format!(
            "{name}, {to}: {} connections, answered by {:?}",
            record.attempts().len(),
            record.servers()
        ));
        record.all_succeeded(&name.to_string())?;
        ensure!(
            record.servers() == [master].into(),
            "{name} gave connections to {:?}, not to {master} alone",
            record.servers()
        );
    }
    Ok(())
}
