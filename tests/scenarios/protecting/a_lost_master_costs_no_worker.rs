//! A master is killed, hangs, or vanishes from the network. A worker behind its proxy goes on; one that is given that
//! master alone is NotReady within a minute. One outage shows both, so the fault was there and it was the proxy that
//! mattered; and one of the outages finds no operator, which proxies do without.

use std::time::Duration;

use anyhow::{Context, Result};
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, NAMESPACE, Server};
use trivet_tests::outage::{Clients, Until, busiest_master, outage};
use trivet_tests::say::say;

/// After the worker without Trivet is NotReady: another renewal of the other worker's Lease.
const THEN: Duration = Duration::from_secs(10);

/// A node is NotReady 50 s after its last renewal. The controller that declares it may run on the lost master; then its
/// successor waits as long once more.
const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_apiserver_costs_no_worker_without_an_operator_either() -> Result<()> {
    let installation = Installation::serving().await?;
    scale_operator(&installation, 0).await?;
    let outcome = costs_only_the_worker_without_trivet(&installation, Fault::Kill).await;
    installation.masters_ready().await?;
    scale_operator(&installation, 2).await?;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_apiserver_costs_no_worker() -> Result<()> {
    costs_only_the_worker_without_trivet(&Installation::serving().await?, Fault::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_holed_master_costs_no_worker() -> Result<()> {
    costs_only_the_worker_without_trivet(&Installation::serving().await?, Fault::Blackhole).await
}

/// Returns when so many operators run.
async fn scale_operator(installation: &Installation, replicas: u8) -> Result<()> {
    let tools = installation.tools();
    for command in [
        format!("scale deployment trivet-operator --namespace {NAMESPACE} --replicas={replicas}"),
        format!("rollout status deployment trivet-operator --namespace {NAMESPACE} --timeout=60s"),
    ] {
        tools.kubectl(&command).await?;
    }
    Ok(())
}

async fn costs_only_the_worker_without_trivet(installation: &Installation, fault: Fault) -> Result<()> {
    let mut workers = installation.workers().into_iter();
    let with = Clients {
        worker: workers.next().context("there is no worker")?,
        server: Server::Loopback,
    };
    installation.point(&with.worker, &with.server).await?;
    let master = busiest_master(installation, std::slice::from_ref(&with.worker)).await?;
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
    let outage = outage(installation, fault, &master, vec![with, without], until).await?;

    let (with, without) = (outage.with_trivet()?, outage.without_trivet()?);
    say(format!("{fault}, with Trivet: {with}"));
    say(format!("{fault}, without Trivet: {without}"));
    with.cost_nothing()?;
    without.cost_every_worker()
}
