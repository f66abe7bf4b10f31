//! A member that serves but reports that it is not ready (F4): its connections stay, and it gets no new ones; also if it
//! reports its readiness only to callers with a token (F24).

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{Lab, behaviour::Readiness};

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving, serving_with_a_token};

#[test]
fn and_keeps_those_it_has() -> Result<()> {
    serving(3, is_left_alone)
}

#[test]
fn and_keeps_those_it_has_where_it_tells_only_callers_with_a_token() -> Result<()> {
    serving_with_a_token(3, is_left_alone)
}

async fn is_left_alone(lab: &mut Lab) -> Result<()> {
    let watches = lab.watches(6).await;
    let attempts = lab.attempts();
    sleep(WARM_UP).await;
    let not_ready = Readiness::failing("informer-sync");
    lab.apiservers[0]
        .behave(|behaviour| behaviour.readiness = not_ready)
        .await?;
    let struck = Instant::now();
    let seen = lab.proxy().comes_to_see("cp1", "Unready").await?;
    sleep(5 * SECOND).await;
    assert!(watches.on("cp1") > 0, "cp1 has no watch to keep");
    let over = Instant::now();
    lab.apiservers[0]
        .behave(|behaviour| behaviour.readiness = Readiness::default())
        .await?;
    lab.proxy().comes_to_see("cp1", "Up").await?;
    let back = Instant::now();
    sleep(SECOND).await;
    let record = attempts.finish().await?;
    println!("{record}");
    assert_none_failed(&record);
    assert_none_cut(&watches, struck);
    assert_eq!(record.since(seen).until(over).answered_by("cp1"), 0);
    assert!(
        record.since(back).answered_by("cp1") > 0,
        "cp1 is well and gets nothing"
    );
    Ok(())
}
