//! A master is set to Draining, and `kubectl wait` for MembersDrained returns only when no client is left that reaches it by
//! Trivet. Then its apiserver is stopped: no request fails, and no watch begins anew.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::audit;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, POOL, condition};
use trivet_tests::proxies::metrics;
use trivet_tests::real_client::RealClient;
use trivet_tests::say::say;

const NAMESPACE: &str = "drained-master";

/// New connections a second from each of two workers: 50 requests a second in all.
const RATE: u32 = 25;

/// Informers and requests spread over all masters.
const WARM_UP: Duration = Duration::from_secs(3);

/// Longer than client-go takes to open a watch again, and than a proxy to find a member Down.
const LASTS: Duration = Duration::from_secs(6);

/// The connections are closed within `connection.drainTimeoutSeconds`, which is a minute; then the nodes report.
const DRAINED: &str = "100s";

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_clients_is_stopped_and_nobody_notices() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    installation.fresh_namespace(NAMESPACE).await?;
    let masters = installation.other_masters();
    let master = masters.last().context("there is one master only")?;
    let workers = installation.workers();
    let client = installation.client()?.asking("/version");
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, loopback)| attempts::start(worker, &client, loopback, RATE))
        .collect();
    let worker = workers.first().context("there is no worker")?;
    let real = RealClient::start(&installation, worker, NAMESPACE).await?;
    sleep(WARM_UP).await;

    let switched_off = drain_and_switch_off(&installation, master, &workers).await;
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
    let off = switched_off?;

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

/// Drains the master, stops its apiserver for some seconds, and returns when that was.
async fn drain_and_switch_off(
    installation: &Installation,
    master: &str,
    workers: &[Host],
) -> Result<std::ops::Range<Timestamp>> {
    let before = connections_to(master, workers).await?;
    ensure!(
        before > 0,
        "no worker has a connection to {master}: nothing would drain"
    );
    let start = Instant::now();
    installation
        .edit_pool(json!({ "members": [{ "name": master, "state": "Draining" }] }))
        .await?;
    let wait = format!("wait --for=condition=MembersDrained asp/{POOL} --timeout={DRAINED}");
    installation.tools().kubectl(&wait).await?;
    let took = start.elapsed();
    let left = connections_to(master, &installation.hosts()).await?;
    say(format!(
        "{master}: {before} connections of the workers, drained after {:.1} s",
        took.as_secs_f32()
    ));
    ensure!(
        left == 0,
        "MembersDrained is True, and {master} has {left} connections"
    );
    let status = installation.pool_status().await?;
    let message = &condition(&status, "MembersDrained")?.message;
    let words = format!("safe to switch off as far as Trivet's clients are concerned: {master} ");
    ensure!(message.starts_with(&words), "{message}");

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
    Ok(off..on)
}

/// The connections that the proxies of these hosts have to a master.
async fn connections_to(master: &str, hosts: &[Host]) -> Result<u64> {
    let all = try_join_all(hosts.iter().map(metrics)).await?;
    let of_each = all
        .iter()
        .filter_map(|metrics| metrics.connections().get(master).copied());
    Ok(of_each.sum())
}
