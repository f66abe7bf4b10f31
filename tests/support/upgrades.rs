//! Upgrades of all proxies, one right after the other, while connections of every kind go on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::flows::{Flow, Flows, Pace, noticed};
use crate::installation::Installation;
use crate::local_ports::KubeletPorts;
use crate::rollout::{ProxyPod, is_of};
use crate::say::say;
use crate::steady_clients::SteadyClients;

/// Each differs from the one before it: an edit of it is a new template, and changes nothing else. The third is the default
/// again, so that the next scenario finds the template that it needs.
const LOG_LEVELS: [&str; 3] = ["debug", "warn", "info"];

/// How long a new connection may take is shown by `an_upgrade_refuses_no_client`: here bytes at full speed take all of the
/// machine. The client itself gives up after ten seconds.
const CONNECTS: Duration = Duration::from_secs(15);

/// From SIGTERM to the end of a proxy that has given all that it had.
const ENDS: Duration = Duration::from_secs(2);

/// What goes on after the last upgrade is judged for this long: a stream that stalls does not end.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Upgrades all proxies so many times. Fails if anybody noticed: a connection that ended, one that could not be opened, a
/// byte that is wrong, a pause; or if an old proxy ended late.
pub async fn end_no_connection(upgrades: usize) -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    // All nodes at once.
    installation
        .edit_pool(json!({ "rollout": { "maxParallel": "100%" } }))
        .await?;
    installation.pool_ready().await?;

    let workers = installation.workers();
    let before = KubeletPorts::read(&workers)?;
    let flows = Flows::start(&installation).await?;
    let clients = SteadyClients::start(&installation)?;
    let slowest_end = upgrade_all(&installation, &flows, upgrades).await;
    sleep(AFTERWARDS).await;
    let refused = clients.none_was_refused("upgrades", CONNECTS).await;
    let now = KubeletPorts::read(&workers);
    let flows = flows.finish().await;

    let mut wrong = told(&flows);
    wrong.extend(refused.err().map(|error| format!("{error:#}")));
    wrong.extend(same(&before, now).err().map(|error| format!("{error:#}")));
    wrong.extend(on_time(slowest_end).err().map(|error| format!("{error:#}")));
    for host in &workers {
        let namespace = Flows::namespace(host);
        let delete = format!("delete namespace {namespace} --wait=false");
        installation.tools().kubectl(&delete).await?;
    }
    ensure!(
        wrong.is_empty(),
        "an upgrade was noticed:\n  {}",
        wrong.join("\n  ")
    );
    Ok(())
}

/// The upgrades, until one ends a connection. Returns how long the slowest of the old proxies took to end.
async fn upgrade_all(installation: &Installation, flows: &Flows, upgrades: usize) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for (number, log_level) in (1..=upgrades).zip(LOG_LEVELS.into_iter().cycle()) {
        let begun = Instant::now();
        let end = upgrade(installation, flows, log_level).await;
        let end = end.with_context(|| format!("upgrade {number} of {upgrades}"))?;
        slowest = slowest.max(end);
        say(format!(
            "upgrade {number} of {upgrades}: {:.0} s, the slowest of the old proxies ended {:.2} s after SIGTERM",
            begun.elapsed().as_secs_f32(),
            end.as_secs_f32()
        ));
        if let Err(error) = flows.are_whole() {
            say(format!("no further upgrade: {error:#}"));
            break;
        }
    }
    Ok(slowest)
}

/// One upgrade, with bytes at full speed from the edit until the last of the old proxies is gone.
async fn upgrade(installation: &Installation, flows: &Flows, log_level: &str) -> Result<Duration> {
    let nodes: Vec<_> = installation
        .hosts()
        .iter()
        .map(|host| host.name().to_string())
        .collect();
    let old = installation.proxy_pods().await?;
    let template = installation.template().await?;
    flows.set_pace(Pace::Full);
    installation
        .edit_pool(json!({ "proxy": { "logLevel": log_level } }))
        .await?;
    let template = installation.other_template(&template).await?;
    installation.rolled_out(&nodes, is_of(&template)).await?;
    flows.set_pace(Pace::Slow);
    let ends = old.iter().map(|pod| time_to_end(installation, pod));
    let ends = ends.collect::<Result<Vec<_>>>()?;
    ends.into_iter().max().context("there was no proxy")
}

fn time_to_end(installation: &Installation, pod: &ProxyPod) -> Result<Duration> {
    let container = pod.container.as_deref();
    let container = container.with_context(|| format!("{} never had a container", pod.name))?;
    installation.time_to_end(&pod.node, container)
}

/// Prints what became of the flows; returns what was noticed.
fn told(flows: &[Flow]) -> Vec<String> {
    flows.iter().for_each(say);
    noticed(flows)
}

fn same(before: &KubeletPorts, now: Result<KubeletPorts>) -> Result<()> {
    say(format!(
        "local ports of the kubelets' connections: {before} before"
    ));
    let now = now?;
    say(format!(
        "local ports of the kubelets' connections: {now} afterwards"
    ));
    before.are_still_in(&now)
}

fn on_time(slowest_end: Result<Duration>) -> Result<()> {
    let end = slowest_end?;
    ensure!(
        end <= ENDS,
        "a proxy ended {end:.1?} after SIGTERM, and {ENDS:?} are promised"
    );
    Ok(())
}
