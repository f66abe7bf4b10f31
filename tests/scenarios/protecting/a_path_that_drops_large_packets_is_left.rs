//! A master's path loses packets of more than 1,000 bytes, as a tunnel does whose MTU its users do not know: handshakes
//! of TCP and small requests pass, certificates and lists do not. Every node finds out and uses the other masters.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;
use trivet_testbed::Fault;
use trivet_tests::installation::Installation;
use trivet_tests::silence::{publish, silence};

/// docs/testbed.md, F9.
const DETECTED: Duration = Duration::from_secs(6);

/// Long enough to see that nothing is given to the master once it is Down.
const LASTS: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_drops_large_packets_is_left_within_six_seconds() -> Result<()> {
    let installation = Installation::protecting().await?;
    let masters = installation.other_masters();
    let master = masters.first().context("there is only one master")?;
    let faults = vec![(master.clone(), Fault::DropLarge)];
    let witnesses = silence(&installation, master, faults, async {
        sleep(LASTS).await;
        Ok(())
    })
    .await?;

    publish(&witnesses);
    for witness in &witnesses {
        witness.was_cut_within(DETECTED)?;
        witness.lost_no_new_connection()?;
        witness.spared_the_others()?;
        witness.took_it_back()?;
    }
    installation.nodes_ready().await
}
