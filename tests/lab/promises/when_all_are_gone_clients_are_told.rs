//! No member is left (F14): clients are reset within two seconds, memory stays flat, and the first member back is used.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use trivet_lab::{Fault, Lab, Place};

use crate::support::{SECOND, WARM_UP, assert_all_reset, assert_none_slower, serving};

/// How much memory waiting connections and metrics with new labels may add.
const FLAT: u64 = 4 << 20;

async fn outage(
    lab: &mut Lab,
    settle: Duration,
    strike: impl AsyncFnOnce(&mut Lab) -> Result<()>,
    end: impl AsyncFnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let attempts = lab.attempts();
    sleep(WARM_UP).await;
    let before = lab.proxy().usage()?.memory;
    strike(lab).await?;
    let gone = Instant::now();
    sleep(8 * SECOND).await;
    let after = lab.proxy().usage()?.memory;
    let over = Instant::now();
    end(lab).await?;
    let back = Instant::now();
    sleep(4 * SECOND).await;
    let record = attempts.finish().await?;
    let dark = record.since(gone + settle).until(over - 3 * SECOND);
    println!("without a member: {dark}");
    assert_all_reset(&dark, 2 * SECOND);
    let usable = record.first_success(back).context("never usable again")? - back;
    println!("usable after {usable:?}; memory from {before} to {after}");
    assert!(usable <= 3 * SECOND + record.machine(), "usable after {usable:?}");
    assert!(after <= before + FLAT, "memory grew from {before} to {after}");
    assert_none_slower(&record.since(back + 3 * SECOND), SECOND);
    Ok(())
}

#[test]
fn killed() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| {
            for apiserver in &mut lab.apiservers {
                apiserver.kill().await?;
            }
            Ok(())
        };
        let end = async |lab: &mut Lab| lab.apiservers[1].restart().await;
        outage(lab, Duration::ZERO, strike, end).await
    })
}

#[test]
fn blackholed() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| {
            for index in 1..=3 {
                lab.strike(Place::Member(index), Fault::Blackhole).await?;
            }
            Ok(())
        };
        let end = async |lab: &mut Lab| lab.heal(Place::Member(2)).await;
        outage(lab, Duration::ZERO, strike, end).await
    })
}

/// A member that accepts may still answer, so clients are reset once no member answers its probes either.
#[test]
fn hung() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| {
            for apiserver in &mut lab.apiservers {
                apiserver.stop().await?;
            }
            Ok(())
        };
        let end = async |lab: &mut Lab| lab.apiservers[1].cont();
        outage(lab, 3 * SECOND, strike, end).await
    })
}
