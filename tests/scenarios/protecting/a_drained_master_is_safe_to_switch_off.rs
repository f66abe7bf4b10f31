//! `kubectl trivet drain` sets a master to Draining, and it and a `kubectl wait` for MembersDrained that begins while clients are
//! there return only when none is left that reaches the master by Trivet, which its apiserver says too. `kubectl trivet retire`
//! disables it. Then its apiserver is stopped: no request fails, and no watch begins anew.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep, sleep_until};
use trivet_crds::pool::PoolMemberState;
use trivet_testbed::Host;
use trivet_testbed::audit::Event;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::audit;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, POOL, condition};
use trivet_tests::plugin::Plugin;
use trivet_tests::proxies::metrics;
use trivet_tests::real_client::RealClient;
use trivet_tests::say::say;

const NAMESPACE: &str = "drained-master";

/// The plugin as cargo has built it for this test.
const PLUGIN: &str = env!("CARGO_BIN_EXE_trivet-plugin");

/// What the new connections ask for: nobody else does without a name.
const ASKED: &str = "/version";

/// New connections a second from each of two workers: 50 requests a second in all.
const RATE: u32 = 25;

/// Informers and requests spread over all masters.
const WARM_UP: Duration = Duration::from_secs(3);

/// Longer than client-go takes to open a watch again, and than a proxy to find a member Down.
const LASTS: Duration = Duration::from_secs(6);

/// The connections are closed within `connection.drainTimeoutSeconds`, which is a minute; then the nodes report.
const DRAINED: &str = "100s";

/// A busy apiserver notices the end of a connection when it runs next. The condition that tells of it takes longer.
const NOTICED: SignedDuration = SignedDuration::from_secs(1);

/// The nodes report that they follow the document in which the master is Disabled.
const RETIRED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_clients_is_stopped_and_nobody_notices() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    installation.fresh_namespace(NAMESPACE).await?;
    let masters = installation.other_masters();
    let master = masters.last().context("there is one master only")?;
    let workers = installation.workers();
    let client = installation.client()?.asking(ASKED);
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, loopback)| attempts::start(worker, &client, loopback, RATE))
        .collect();
    let worker = workers.first().context("there is no worker")?;
    let begun = Timestamp::now();
    let real = RealClient::start(&installation, worker, NAMESPACE).await?;
    let warm = Instant::now() + WARM_UP;
    let plugin = Plugin::with_rights(&installation, PLUGIN).await?;
    sleep_until(warm).await;

    let switched_off = drain_and_switch_off(&installation, &plugin, master, &workers).await;
    let removed = plugin.remove().await;
    // Whatever was seen: the next scenario needs the pool.
    installation.reset_pool().await?;
    let told = real.finish().await?;
    for (worker, attempts) in workers.iter().zip(attempts) {
        let record = attempts.finish().await?;
        let name = worker.name().to_string();
        say(format!(
            "{name}: {} of {} requests failed",
            record.failed().len(),
            record.attempts().len()
        ));
        record.all_succeeded(&name)?;
    }
    let (drained, off) = switched_off?;
    removed?;
    let apiserver = installation.cluster().host(master)?;
    let served = served_clients(&apiserver, begun, &(begun..drained))?;
    ensure!(!served.is_empty(), "{master} had no client before it drained");
    let late = served_clients(&apiserver, begun, &((drained + NOTICED)..off.start))?;
    ensure!(
        late.is_empty(),
        "kubectl wait has returned, and {master} serves {late:?}"
    );

    let failed: Vec<_> = told
        .failures
        .iter()
        .filter(|failure| failure.at >= off.start)
        .collect();
    ensure!(failed.is_empty(), "requests of client-go failed: {failed:?}");
    for (index, informer) in told.summary()?.informers.iter().enumerate() {
        say(format!("informer {index}: {informer:?}"));
        ensure!(
            informer.missed == 0 && informer.relists == 0,
            "informer {index} lost something: {informer:?}"
        );
    }
    let watches = audit::watches_begun(NAMESPACE, off, &installation.cluster().masters())?;
    ensure!(
        watches.is_empty(),
        "{} watches began anew after {master} was stopped: {watches:?}",
        watches.len()
    );
    installation
        .tools()
        .kubectl(&format!("delete namespace {NAMESPACE} --wait=false"))
        .await?;
    installation.masters_ready().await?;
    installation.nodes_ready().await
}

/// The requests that a master's apiserver had to answer in this time, of those that come by Trivet and by no other way.
fn served_clients(master: &Host, since: Timestamp, span: &Range<Timestamp>) -> Result<Vec<String>> {
    let informers = format!("/namespaces/{NAMESPACE}/");
    let is_client = |event: &Event| match event.user.username.as_str() {
        "system:node:w1" | "system:node:w2" => true,
        "system:anonymous" => event.request_uri == ASKED,
        "kubernetes-admin" => event.request_uri.contains(&informers),
        _ => false,
    };
    audit::under_way(master, is_client, since, span)
}

/// Drains the master, stops its apiserver for some seconds, and returns when `kubectl wait` said that it is drained, and
/// when the apiserver was off.
async fn drain_and_switch_off(
    installation: &Installation,
    plugin: &Plugin,
    master: &str,
    workers: &[Host],
) -> Result<(Timestamp, Range<Timestamp>)> {
    let before = connections_to(master, workers).await?;
    ensure!(
        before > 0,
        "no worker has a connection to {master}: nothing would drain"
    );
    let start = Instant::now();
    plugin
        .run(&format!("drain {master} --timeout 0s"))
        .await?
        .with(0)?;
    let wait = format!("wait --for=condition=MembersDrained asp/{POOL} --timeout={DRAINED}");
    let drain = format!("drain {master} --timeout {DRAINED}");
    let tools = installation.tools();
    let waited = async {
        tools.kubectl(&wait).await?;
        let returned = (Timestamp::now(), start.elapsed());
        // Looked at before the plugin returns, which may be later.
        let left = connections_to(master, &installation.hosts()).await?;
        anyhow::Ok((returned, left))
    };
    let (at_first, ((returned, took), left), drained) =
        tokio::try_join!(connections_to(master, workers), waited, plugin.json(&drain))?;
    say(format!(
        "{master}: {before} connections of the workers, {at_first} as `kubectl wait` began, drained after {:.1} s",
        took.as_secs_f32()
    ));
    ensure!(at_first > 0, "{master} was drained before `kubectl wait` began");
    ensure!(
        left == 0,
        "MembersDrained is True, and {master} has {left} connections"
    );
    let status = installation.pool_status().await?;
    let message = &condition(&status, "MembersDrained")?.message;
    let words = format!("safe to switch off as far as Trivet's clients are concerned: {master} ");
    ensure!(message.starts_with(&words), "{message}");
    let says = |key: &str| drained.1.get(key).and_then(serde_json::Value::as_bool);
    ensure!(
        drained.0 == 0 && says("drained") == Some(true),
        "kubectl trivet {drain}: {drained:?}"
    );
    retire(installation, plugin, master).await?;

    let off = Timestamp::now();
    let name = master.to_owned();
    installation
        .disturb(move |cluster| Fault::Kill.inject(cluster, &name))
        .await?;
    sleep(LASTS).await;
    let on = Timestamp::now();
    let name = master.to_owned();
    installation
        .disturb(move |cluster| Fault::Kill.undo(cluster, &name))
        .await?;
    Ok((returned, off..on))
}

/// Lets the plugin disable a master that is drained.
async fn retire(installation: &Installation, plugin: &Plugin, master: &str) -> Result<()> {
    let start = Instant::now();
    let timeout = RETIRED.as_secs();
    let retired = plugin
        .run(&format!("retire {master} --timeout {timeout}s"))
        .await?;
    say(format!(
        "after {:.1} s: {}",
        start.elapsed().as_secs_f32(),
        retired.stdout.trim()
    ));
    retired.with(0)?;
    let status = installation.pool_status().await?;
    let state = status.members.iter().find(|member| member.name == master);
    ensure!(
        state.is_some_and(|member| member.state == PoolMemberState::Disabled),
        "{state:?}"
    );
    Ok(())
}

/// The connections that the proxies of these hosts have to a master.
async fn connections_to(master: &str, hosts: &[Host]) -> Result<u64> {
    let all = try_join_all(hosts.iter().map(metrics)).await?;
    let of_each = all
        .iter()
        .filter_map(|metrics| metrics.connections().get(master).copied());
    Ok(of_each.sum())
}
