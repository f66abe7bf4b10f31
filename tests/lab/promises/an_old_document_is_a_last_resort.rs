//! A node was off while all members were replaced twice (F15): an earlier document on its disk may name one that runs.

use anyhow::Result;
use tokio::time::Instant;
use trivet_instruments::promptly;
use trivet_lab::Place;

use crate::support::{SECOND, empty};

#[test]
fn usable_within_15_s() -> Result<()> {
    empty(4, async |lab| {
        lab.start_apiservers(4, SECOND).await?;
        lab.write(
            &lab.pool()
                .revision(1)
                .member(Place::Member(1))
                .member(Place::Member(2)),
        )?;
        lab.start_proxy()?;
        lab.proxy().comes_to_see("cp2", "Up").await?;
        // Two later documents, neither of which names the member that will run.
        lab.write(
            &lab.pool()
                .revision(2)
                .member(Place::Member(1))
                .member(Place::Member(3)),
        )?;
        lab.proxy().comes_to_see("cp3", "Up").await?;
        lab.write(
            &lab.pool()
                .revision(3)
                .member(Place::Member(3))
                .member(Place::Member(4)),
        )?;
        lab.proxy().comes_to_see("cp4", "Up").await?;
        lab.take_proxy()?.kill().await?;
        lab.take_document_away()?;
        for index in [0, 2, 3] {
            lab.apiservers[index].kill().await?;
        }
        lab.start_proxy()?;
        let started = Instant::now();
        let client = lab.client();
        let usable = async || client.who().await.is_ok_and(|name| name == "cp2");
        let at = promptly(15 * SECOND, "cp2, of an earlier document, is used", usable).await?;
        println!("usable after {:?}", at - started);
        Ok(())
    })
}
