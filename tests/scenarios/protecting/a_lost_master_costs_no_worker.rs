//! A master is killed, hangs, or vanishes from the network. A worker behind its proxy goes on; one that is given that
//! master alone is NotReady within a minute. One outage shows both, so the fault was there and it was the proxy that
//! mattered.

use std::time::Duration;

use anyhow::{Context, Result};
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, Server};
use trivet_tests::outage::{Clients, Until, busiest_master, outage};
use trivet_tests::say::say;

/// After the worker without Trivet is NotReady: another renewal of the other worker's Lease.
const THEN: Duration = Duration::from_secs(10);

/// A node is NotReady 50 s after its last renewal. The controller that declares it may run on the lost master; then its
/// successor waits as long once more.
const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_apiserver_costs_no_worker() -> Result<()> {
    costs_only_the_worker_without_trivet(Fault::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_apiserver_costs_no_worker() -> Result<()> {
    costs_only_the_worker_without_trivet(Fault::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_holed_master_costs_no_worker() -> Result<()> {
    costs_only_the_worker_without_trivet(Fault::Blackhole).await
}

async fn costs_only_the_worker_without_trivet(fault: Fault) -> Result<()> {
    let installation = Installation::serving().await?;
    let mut workers = installation.workers().into_iter();
    let with = Clients {
        worker: workers.next().context("there is no worker")?,
        server: Server::Loopback,
    };
    installation.point(&with.worker, &with.server).await?;
    let master = busiest_master(&installation, std::slice::from_ref(&with.worker)).await?;
    let without = Clients {
        worker: workers.next().context("there is only one worker")?,
        server: Server::Master(master.clone()),
    };
    installation.point(&without.worker, &without.server).await?;
    installation.nodes_ready().await?;

    let until = Until::NotReady {
        then: THEN,
        limit: LIMIT,
    };
    let outage = outage(&installation, fault, &master, vec![with, without], until).await?;

    let (with, without) = (outage.with_trivet()?, outage.without_trivet()?);
    say(format!("{fault}, with Trivet: {with}"));
    say(format!("{fault}, without Trivet: {without}"));
    with.cost_nothing()?;
    without.cost_every_worker()
}
