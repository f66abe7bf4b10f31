//! A member that is cut off from etcd (F6): `/readyz` takes four seconds and then fails; the member is alive all the time.
//! Also if it reports its readiness only to callers with a token (F24).

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{Lab, behaviour::Readiness};

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving, serving_with_a_token};

/// Twice as many as the 12 of a worker, so that one step is not all of them.
const WATCHES: usize = 24;

#[test]
fn new_ones_within_10_s_old_ones_between_30_and_45_s() -> Result<()> {
    serving(3, is_left)
}

#[test]
fn where_it_tells_only_callers_with_a_token() -> Result<()> {
    serving_with_a_token(3, is_left)
}

async fn is_left(lab: &mut Lab) -> Result<()> {
    let attempts = lab.attempts_at("/whoami", 10);
    let watches = lab.watches(WATCHES).await;
    sleep(WARM_UP).await;
    let held = watches.on("cp1");
    assert!(held >= 4, "cp1 has too few watches to move: {held}");
    lab.apiservers[0]
        .behave(|behaviour| behaviour.readiness = Readiness::without_etcd())
        .await?;
    let struck = Instant::now();
    look_on(lab, struck, 28 * SECOND).await?;
    assert_none_cut(&watches, struck);
    look_on(lab, struck, 45 * SECOND).await?;
    let record = attempts.finish().await?.since(struck);
    println!("{record}");
    assert_none_failed(&record);
    assert_eq!(
        record.since(struck + 10 * SECOND).answered_by("cp1"),
        0,
        "new ones after 10 s"
    );
    assert_eq!(watches.on("cp1"), 0, "old ones are left after 45 s");
    let mut moved: Vec<_> = watches
        .ended_since(struck)
        .iter()
        .filter_map(|stay| stay.end)
        .map(|(at, _)| at - struck)
        .collect();
    moved.sort_unstable();
    println!("moved at {moved:?}");
    assert_eq!(
        moved.len(),
        held,
        "each of cp1's is moved once, and nobody else's"
    );
    let (first, last) = (moved[0], moved[held - 1]);
    assert!(
        last > first + 2 * SECOND,
        "moved at once and not gradually: {moved:?}"
    );
    Ok(())
}

/// Watches the member until this long after the fault: it is Unready after the first outcome and never Down.
async fn look_on(lab: &Lab, struck: Instant, until: Duration) -> Result<()> {
    while struck.elapsed() < until {
        assert!(
            !lab.proxy().sees("cp1", "Down").await,
            "Down after {:?}",
            struck.elapsed()
        );
        sleep(SECOND / 5).await;
    }
    Ok(())
}
