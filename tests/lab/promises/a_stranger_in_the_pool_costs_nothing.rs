//! Stale or mistyped members (F16): an address that fails its probe gets no connection.

use anyhow::Result;
use std::time::Duration;
use tokio::time::sleep;
use trivet_lab::{Authority, Dates, Place};

use crate::support::{SECOND, assert_none_failed, assert_none_slower, empty};

#[test]
fn neither_an_empty_address_nor_another_server_is_used() -> Result<()> {
    empty(4, async |lab| {
        lab.start_apiservers(3, SECOND).await?;
        let other = Authority::new()?.sign(lab.disk(), "other", Dates::Good)?;
        lab.apiservers[2].show(other).await?;
        let nobody = vec![[10, 77, 0, 99].into()];
        let pool = lab
            .pool()
            .member_at("nobody", nobody)
            .member(Place::Member(3))
            .member(Place::Member(4));
        lab.write(&pool.member(Place::Member(1)).member(Place::Member(2)))?;
        lab.start_proxy()?;
        for member in ["cp1", "cp2"] {
            lab.proxy().comes_to_see(member, "Up").await?;
        }
        let attempts = lab.attempts();
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, Duration::from_millis(100));
        assert_eq!(
            record.answered_by("cp1") + record.answered_by("cp2"),
            record.attempts().len()
        );
        assert_eq!(
            lab.apiservers[2].counts().await?.requests,
            0,
            "a stranger got a client"
        );
        Ok(())
    })
}
