//! A stopped process (F3): its kernel still accepts and acknowledges, so only the first flight and the probe detect it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{Lab, behaviour::Door};

use crate::support::{
    SECOND, WARM_UP, assert_none_cut, assert_none_failed, assert_none_slower, serving, silence,
};

#[test]
fn one_that_is_stopped_is_cut() -> Result<()> {
    serving(3, async |lab| {
        let silence = silence::of_one(lab, async |lab: &mut Lab| lab.apiservers[0].stop().await).await?;
        silence.costs_new_connections_at_most(SECOND);
        silence.is_seen_within(Duration::from_millis(2900));
        silence.is_cut_within(Duration::from_millis(2900));
        Ok(())
    })
}

/// If it still answers on established connections, nothing is cut.
fn sick_for_new_connections(door: Door) -> Result<()> {
    serving(3, async move |lab| {
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        lab.apiservers[0]
            .behave(|behaviour| behaviour.door = door)
            .await?;
        let struck = Instant::now();
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?.since(struck);
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, SECOND);
        assert_none_cut(&watches, struck);
        Ok(())
    })
}

#[test]
fn one_that_accepts_and_says_nothing() -> Result<()> {
    sick_for_new_connections(Door::SilentBeforeHandshake)
}

#[test]
fn one_that_accepts_and_resets() -> Result<()> {
    sick_for_new_connections(Door::Resets)
}

#[test]
fn one_that_refuses_and_finishes_what_it_has() -> Result<()> {
    sick_for_new_connections(Door::Closed)
}
