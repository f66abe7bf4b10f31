//! A master is gone for three times as long as a node needs to be NotReady.

use std::time::Duration;

use anyhow::Result;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, Server};
use trivet_tests::outage::{Clients, Until, busiest_master, outage};
use trivet_tests::say::say;

const LONG: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes; `cargo xtask soak` runs it"]
async fn a_killed_apiserver_costs_no_worker_for_minutes() -> Result<()> {
    costs_no_worker(Fault::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes; `cargo xtask soak` runs it"]
async fn a_hung_apiserver_costs_no_worker_for_minutes() -> Result<()> {
    costs_no_worker(Fault::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes; `cargo xtask soak` runs it"]
async fn a_black_holed_master_costs_no_worker_for_minutes() -> Result<()> {
    costs_no_worker(Fault::Blackhole).await
}

async fn costs_no_worker(fault: Fault) -> Result<()> {
    let installation = Installation::protecting().await?;
    let master = busiest_master(&installation, &installation.workers()).await?;
    let clients = Clients::of_all(&installation, &Server::Loopback);
    let outage = outage(&installation, fault, &master, clients, Until::Passed(LONG)).await?;
    let measured = outage.with_trivet()?;
    say(format!("{fault}: {measured}"));
    measured.cost_nothing()
}
