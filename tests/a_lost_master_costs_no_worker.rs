//! A master is killed, hangs, or vanishes from the network: the workers go on. Without Trivet they do not.

use std::time::Duration;

use anyhow::Result;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, Server};
use trivet_tests::outage::{Measured, Until, busiest_master, outage};
use trivet_tests::say::say;

/// A kubelet renews every 10 s. Half of that on top, and its node would still be 35 s from NotReady.
const LEASE_LATE: Duration = Duration::from_secs(15);

/// Three times what it takes a node to be declared NotReady.
const LONG: Duration = Duration::from_secs(180);

/// A node is NotReady 50 s after its last renewal; whoever declares it may himself be on the lost master, and his
/// successor waits once more.
const CONTROL: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_apiserver_costs_no_worker() -> Result<()> {
    costs_no_worker(Fault::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_apiserver_costs_no_worker() -> Result<()> {
    costs_no_worker(Fault::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_holed_master_costs_no_worker() -> Result<()> {
    costs_no_worker(Fault::Blackhole).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trivet_a_killed_apiserver_costs_every_worker() -> Result<()> {
    costs_every_worker(Fault::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trivet_a_hung_apiserver_costs_every_worker() -> Result<()> {
    costs_every_worker(Fault::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trivet_a_black_holed_master_costs_every_worker() -> Result<()> {
    costs_every_worker(Fault::Blackhole).await
}

async fn costs_no_worker(fault: Fault) -> Result<()> {
    let installation = Installation::protecting().await?;
    let master = busiest_master(&installation).await?;

    let measured = outage(
        &installation,
        fault,
        &master,
        &Server::Loopback,
        Until::Passed(LONG),
    )
    .await?;

    publish(fault, "with Trivet", &measured);
    assert!(
        measured.left_ready.is_empty(),
        "workers left Ready: {:?}",
        measured.left_ready
    );
    for (worker, gap) in &measured.lease_gaps {
        assert!(*gap <= LEASE_LATE, "{worker} did not renew its Lease for {gap:?}");
    }
    let late = &measured.failed_after_detection;
    assert!(
        late.is_empty(),
        "{} connections failed after detection: {late:?}",
        late.len()
    );
    Ok(())
}

async fn costs_every_worker(fault: Fault) -> Result<()> {
    let installation = Installation::unprotected().await?;
    let master = "cp1";
    let alone = Server::Master(master.to_owned());

    let measured = outage(
        &installation,
        fault,
        master,
        &alone,
        Until::WorkersNotReady(CONTROL),
    )
    .await?;

    publish(fault, "without Trivet", &measured);
    assert_eq!(
        measured.left_ready.len(),
        installation.workers().len(),
        "only {:?} left Ready",
        measured.left_ready
    );
    assert!(
        measured.worst_lease_gap() > LEASE_LATE,
        "the Leases were renewed all the same"
    );
    assert!(
        !measured.failed_after_detection.is_empty(),
        "the master was gone, yet no connection failed"
    );
    Ok(())
}

fn publish(fault: Fault, system: &str, measured: &Measured) {
    say(format!("{fault}, {system}: {measured}"));
    let failed = measured
        .failed_before_detection
        .iter()
        .chain(&measured.failed_after_detection);
    for attempt in failed.take(5) {
        say(format!("  {attempt}"));
    }
}
