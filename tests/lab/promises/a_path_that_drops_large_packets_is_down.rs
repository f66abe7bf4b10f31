//! Packets of more than 1000 bytes are lost (F9), as in a tunnel with a smaller MTU: small probes would pass.

use anyhow::Result;
use trivet_lab::{Fault, Lab, Place};

use crate::support::{SECOND, serving, silence};

#[test]
fn within_6_s() -> Result<()> {
    serving(3, async |lab| {
        let strike = async |lab: &mut Lab| lab.strike(Place::Member(1), Fault::Longer(1000)).await;
        let silence = silence::of_one(lab, strike).await?;
        silence.is_seen_within(6 * SECOND);
        silence.costs_new_connections_at_most(SECOND);
        Ok(())
    })
}
