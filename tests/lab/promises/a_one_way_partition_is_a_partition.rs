//! Packets are lost in one direction only (F10): either direction has the same effect as a host without network.

use std::time::Duration;

use anyhow::Result;
use trivet_lab::{Fault, Lab, Place};

use crate::support::{serving, silence};

fn costs_no_more_than_a_blackhole(fault: Fault) -> Result<()> {
    serving(3, async move |lab| {
        let strike = async |lab: &mut Lab| lab.strike(Place::Member(1), fault).await;
        let silence = silence::of_one(lab, strike).await?;
        silence.costs_new_connections_at_most(Duration::from_millis(300));
        silence.is_cut_within(Duration::from_millis(2800));
        Ok(())
    })
}

#[test]
fn when_nothing_arrives() -> Result<()> {
    costs_no_more_than_a_blackhole(Fault::DeafTo)
}

#[test]
fn when_nothing_comes_back() -> Result<()> {
    costs_no_more_than_a_blackhole(Fault::DumbTo)
}
