//! All members fail in the same instant (F20): the fault is on the node, and no member gets Down for it.

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use trivet_lab::{Fault, Place};

use crate::support::{SECOND, WARM_UP, assert_none_cut, serving};

fn strikes_the_node(fault: Fault) -> Result<()> {
    serving(3, async move |lab| {
        // The watches first, so that each member holds two of them. Opened beside short connections they might be spread
        // three, two and one, and then the member with three would rightly get no new connection.
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        lab.strike(Place::Node, fault).await?;
        let struck = Instant::now();
        sleep(4 * SECOND).await;
        lab.heal(Place::Node).await?;
        let healed = Instant::now();
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?;
        let dark = record.since(struck).until(healed);
        println!("in the dark: {dark}");
        // The reference shares the node's network, so it has the fault too and cannot serve as a measure here.
        assert!(
            dark.slowest() <= 2 * SECOND + SECOND / 5,
            "held for longer than 2 s: {dark}"
        );
        assert_none_cut(&watches, struck);
        let usable = record.first_success(healed).context("never usable again")? - healed;
        println!("usable after {usable:?}");
        let settled = record.since(healed + 2 * SECOND);
        assert!(settled.failed().is_empty(), "after two seconds: {settled}");
        for apiserver in &lab.apiservers {
            assert!(
                settled.answered_by(apiserver.name()) > 0,
                "{} is ejected",
                apiserver.name()
            );
        }
        Ok(())
    })
}

#[test]
fn when_the_table_of_connections_is_full() -> Result<()> {
    strikes_the_node(Fault::NoNewConnection)
}

#[test]
fn when_nothing_passes_at_all() -> Result<()> {
    strikes_the_node(Fault::Blackhole)
}
