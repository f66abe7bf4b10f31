//! Nodes whose kubelets have no way to the API but their node's proxy come back from reboots without a hand: some that
//! reach no apiserver for a minute while another node joins, and then all of them at once.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::Instant;
use trivet_instruments::eventually;
use trivet_testbed::{Fault, Host, fault};
use trivet_tests::attempts::{LOOPBACKS, once};
use trivet_tests::installation::{Installation, Server};
use trivet_tests::printed_manifest::PrintedManifest;
use trivet_tests::say::say;

/// The master that other nodes are watched through.
const WATCHED_THROUGH: &str = "cp1";

/// The master whose control plane its kubelet alone starts.
const STATIC: &str = "cp3";

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
    let mut installation = Installation::protecting().await?;
    let manifest = PrintedManifest::print(&installation).await?;
    installation.give_standbys().await?;
    installation.point_all(&Server::Loopback).await?;
    installation.nodes_ready().await?;
    installation
        .disturb(|cluster| cluster.run_as_static_pods(STATIC))
        .await?;

    reboots_without_api(&mut installation, &manifest).await?;
    power_cut(&installation).await?;

    installation.point_masters_home().await?;
    installation
        .point_workers(&Server::Master(WATCHED_THROUGH.to_owned()))
        .await?;
    installation.remove_worker("w3").await?;
    installation
        .disturb(|cluster| cluster.run_as_processes(STATIC))
        .await?;
    installation.take_standbys().await
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

/// All hosts lose their power at once.
async fn power_cut(installation: &Installation) -> Result<()> {
    let nodes = Api::<Node>::all(installation.kubernetes(WATCHED_THROUGH).await?);
    let client = installation.client()?;
    let names: Vec<_> = installation
        .hosts()
        .iter()
        .map(|host| host.name().to_string())
        .collect();
    let all = names.clone();
    let cut = Timestamp::now();
    installation
        .disturb(move |cluster| cluster.reboot(&all.iter().map(String::as_str).collect::<Vec<_>>()))
        .await?;
    let begun = Instant::now();
    let left = || WHOLE.saturating_sub(begun.elapsed());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    ready_since(&nodes, &names, cut, left()).await?;
    installation.masters_ready().await?;
    let answers = installation.hosts().into_iter().map(|host| {
        let client = &client;
        async move {
            eventually(left(), &format!("{}'s proxy answers", host.name()), async || {
                let attempt = once(&host, client, LOOPBACKS[0]).await?;
                ensure!(attempt.succeeded(), "{attempt}");
                Ok(())
            })
            .await
        }
    });
    try_join_all(answers).await?;
    ensure!(
        begun.elapsed() < WHOLE,
        "whole again only after {:?}",
        begun.elapsed()
    );
    say(format!(
        "all {} nodes are whole {:.1} s after the power cut",
        names.len(),
        begun.elapsed().as_secs_f32()
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

/// Waits until these nodes are Ready by what their kubelets have reported since this moment.
async fn ready_since(nodes: &Api<Node>, names: &[&str], since: Timestamp, within: Duration) -> Result<()> {
    eventually(within, &format!("{names:?} Ready"), async || {
        for name in names {
            let node = nodes.get(name).await?;
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            let ready = ready.with_context(|| format!("{name} has no condition Ready"))?;
            let reported = ready.last_heartbeat_time.as_ref().map(|time| time.0);
            // The API's times have whole seconds.
            ensure!(
                ready.status == "True"
                    && reported.is_some_and(|reported| reported.as_second() > since.as_second()),
                "{name} is {} by its report of {reported:?}",
                ready.status
            );
        }
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
