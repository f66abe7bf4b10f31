//! A host without power or network (F2): opens hedge after 250 ms, the probe detects it, its connections are cut.

use std::time::Duration;

use anyhow::Result;
use trivet_lab::{Fault, Lab, Place};

use crate::support::{serving, silence};

const SLOW: Duration = Duration::from_millis(300);
const CUT: Duration = Duration::from_millis(2800);

#[test]
fn behind_a_router_that_still_answers_for_it() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| lab.strike(Place::Member(1), Fault::Blackhole).await;
        let silence = silence::of_one(lab, strike).await?;
        silence.costs_new_connections_at_most(SLOW);
        silence.is_seen_within(CUT);
        silence.is_cut_within(CUT);
        Ok(())
    })
}

#[test]
fn on_the_same_wire_where_nobody_answers_for_it() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| lab.plug(Place::Member(1), false).await;
        let silence = silence::of_one(lab, strike).await?;
        silence.costs_new_connections_at_most(SLOW);
        silence.is_seen_within(CUT);
        silence.is_cut_within(CUT);
        Ok(())
    })
}
