//! Nodes whose kubelets have no way to the API but their node's proxy come back from reboots without a hand: some that
//! reach no apiserver for a minute while another node joins, and then all of them at once.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::Instant;
use trivet_instruments::eventually;
use trivet_testbed::{Fault, Host, fault};
use trivet_tests::attempts::once;
use trivet_tests::installation::{Installation, Server};
use trivet_tests::node_fault::NodeFault;
use trivet_tests::power_cut::{WATCHED_THROUGH, power_cut, ready_since};
use trivet_tests::printed_manifest::PrintedManifest;
use trivet_tests::say::say;

/// The master whose control plane its kubelet alone starts.
const STATIC: &str = "cp3";

/// The node whose disk has lost every document when the power is cut.
const DAMAGED: &str = "w2";

/// How long the rebooted hosts reach no other host's apiserver.
const WITHOUT_API: Duration = Duration::from_secs(60);

/// After kubelet starts, which a reboot's end is.
const LISTENS: Duration = Duration::from_secs(10);

/// After the API is back.
const READY: Duration = Duration::from_secs(30);

/// After the start of its kubelet.
const JOINED: Duration = Duration::from_secs(60);

/// After the power cut.
const WHOLE: Duration = Duration::from_secs(120);

/// A listening socket of 127.0.0.1:7443 in /proc/net/tcp: its address, that of no peer, and its state.
const LISTENING: &str = " 0100007F:1D13 00000000:0000 0A ";

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_from_reboots_and_a_power_cut_by_their_proxy_alone() -> Result<()> {
    let mut installation = Installation::standing_by().await?;
    let manifest = PrintedManifest::print(&installation).await?;
    installation.point_all(&Server::Loopback).await?;
    installation.nodes_ready().await?;
    installation
        .disturb(|cluster| cluster.run_as_static_pods(STATIC))
        .await?;

    reboots_without_api(&mut installation, &manifest).await?;
    // Its standby has the document of its manifest.
    NodeFault::CacheCorrupt.inject(&installation.cluster().host(DAMAGED)?)?;
    let took = power_cut(&installation, WHOLE).await?;
    say(format!(
        "all {} nodes are whole {:.1} s after the power cut",
        installation.hosts().len(),
        took.as_secs_f32()
    ));

    installation.point_masters_home().await?;
    installation.remove_worker("w3").await?;
    installation
        .disturb(|cluster| cluster.run_as_processes(STATIC))
        .await
}

/// A worker and a master boot without the API, and another worker joins with a manifest and a kubelet.conf alone.
async fn reboots_without_api(installation: &mut Installation, manifest: &PrintedManifest) -> Result<()> {
    let nodes = Api::<Node>::all(installation.kubernetes(WATCHED_THROUGH).await?);
    let client = installation.client()?;
    let (worker, master) = (
        installation.cluster().host("w1")?,
        installation.cluster().host("cp2")?,
    );
    let rebooted = Timestamp::now();
    installation
        .disturb(|cluster| cluster.reboot_without_api(&["w1", "cp2"], WITHOUT_API))
        .await?;
    let booted = Instant::now();
    for host in [&worker, &master] {
        listens(host).await?;
    }
    say(format!(
        "w1 and cp2 listen {:.1} s after their boot",
        booted.elapsed().as_secs_f32()
    ));
    let apiserver = installation.cluster().host(WATCHED_THROUGH)?.ipv4();
    let direct = once(&worker, &client, (apiserver, 6443).into()).await?;
    ensure!(!direct.succeeded(), "w1 reaches an apiserver: {direct}");

    let joining = Timestamp::now();
    let manifest = manifest.write(&worker)?;
    installation.add_worker("w3", manifest).await?;
    let joined = Instant::now();
    ready_since(&nodes, &["w3"], joining, JOINED).await?;
    say(format!(
        "w3 is Ready {:.1} s after its kubelet started",
        joined.elapsed().as_secs_f32()
    ));

    let until = back(&worker)?.unwrap_or_else(Timestamp::now);
    let left = until.duration_since(Timestamp::now()).unsigned_abs();
    ready_since(&nodes, &["w1", "cp2"], rebooted, left + READY).await?;
    let after = Timestamp::now().duration_since(until);
    say(format!(
        "w1 and cp2 are Ready {:.1} s after the API is back",
        after.as_secs_f32()
    ));
    Ok(())
}

/// Waits until a host's proxy listens.
async fn listens(host: &Host) -> Result<()> {
    eventually(LISTENS, &format!("{}'s proxy listens", host.name()), async || {
        let init = host.init()?.context("the host is off")?;
        let sockets = fs::read_to_string(format!("/proc/{init}/net/tcp"))?;
        ensure!(sockets.contains(LISTENING), "it does not");
        Ok(())
    })
    .await
}

/// When a host reaches the apiservers again, unless it does.
fn back(host: &Host) -> Result<Option<Timestamp>> {
    let until = fault::of(host)?.into_iter().find_map(|fault| match fault {
        Fault::WithoutApi(until) => Some(until),
        _ => None,
    });
    until
        .map(|until| Ok(Timestamp::from_second(i64::try_from(until)?)?))
        .transpose()
}
