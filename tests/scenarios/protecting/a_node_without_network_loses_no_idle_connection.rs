//! All masters vanish for the workers at once and come back within seconds, as when a switch reboots: the fault is the
//! nodes' own, and none of their connections is cut, idle or busy.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_testbed::{Cluster, Fault};
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::held::Held;
use trivet_tests::idle::{Idle, all_survived};
use trivet_tests::installation::Installation;
use trivet_tests::say::say;

/// Idle connections from each worker.
const IDLE: u32 = 40;

/// The time after which the kernel asks whether the peer of an idle connection lives. Connections that are opened over
/// this time meet the fault in every phase of it.
const PHASES: Duration = Duration::from_secs(5);

/// Busy connections from each worker.
const BUSY: usize = 12;

/// New connections a second from each worker.
const RATE: u32 = 10;

/// docs/testbed.md, F20: a fault of up to 7 s cuts nothing.
const FAULT: Duration = Duration::from_secs(7);

/// docs/testbed.md, F20: new connections succeed by then.
const USABLE: Duration = Duration::from_secs(2);

/// What was sent in the fault is sent again by the kernel within seven seconds after it, and answered.
const AFTERWARDS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn seven_seconds_without_any_master_cut_no_connection() -> Result<()> {
    let installation = Installation::protecting().await?;
    let client = installation.client()?;
    let workers = installation.workers();
    let clients = workers.iter().zip(LOOPBACKS).map(async |(worker, to)| {
        let held = Held::open(worker, &client, to, BUSY).await?;
        let idle = Idle::open(worker, &client, to, IDLE, PHASES).await?;
        let attempts = attempts::start(worker, &client, to, RATE);
        anyhow::Ok((worker.name().to_string(), idle, held, attempts))
    });
    let clients = try_join_all(clients).await?;

    let names: Vec<_> = workers.iter().map(|worker| worker.name().to_string()).collect();
    let healed_hosts = names.clone();
    let begun = Timestamp::now();
    // On the workers' own wires: every master vanishes for them in the same instant, and for no other host.
    let inject = move |cluster: &Cluster| {
        names
            .iter()
            .try_for_each(|name| cluster.inject(name, Fault::Blackhole))
    };
    let injected = installation.disturb(inject).await;
    sleep(FAULT.saturating_sub(Timestamp::now().duration_since(begun).try_into()?)).await;
    let heal = move |cluster: &Cluster| healed_hosts.iter().try_for_each(|name| cluster.heal(name));
    let healed = installation.disturb(heal).await;
    let over = Timestamp::now();
    sleep(AFTERWARDS).await;

    let mut outcomes = Vec::new();
    for (worker, idle, held, attempts) in clients {
        let (idle, held) = (idle.finish().await?, held.finish().await?);
        let ended: Vec<_> = held.into_iter().filter(|held| held.ended.is_some()).collect();
        let record = attempts.finish().await?;
        say(format!(
            "{worker}: without any master for {:.1} s, {} of {IDLE} idle and {} of {BUSY} busy connections ended; {} new \
             ones failed meanwhile",
            over.duration_since(begun).as_secs_f32(),
            idle.iter().filter(|idle| idle.ended.is_some()).count(),
            ended.len(),
            record.failed().len(),
        ));
        outcomes.push((worker, idle, ended, record));
    }
    injected?;
    healed?;
    let usable = over.checked_add(USABLE)?;
    for (worker, idle, ended, record) in &outcomes {
        all_survived(worker, idle)?;
        ensure!(ended.is_empty(), "{worker}: busy connections ended: {ended:?}");
        ensure!(!record.failed().is_empty(), "{worker}: the fault was not there");
        let late = record.failed_since(usable);
        ensure!(
            late.is_empty(),
            "{worker}: {} new connections failed after the fault, the first: {:?}",
            late.len(),
            late.first()
        );
    }
    installation.nodes_ready().await
}
