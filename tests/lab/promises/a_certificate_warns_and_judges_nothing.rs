//! Certificates out of their dates (F17): the client decides end to end, the proxy only warns.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_instruments::promptly;
use trivet_lab::{Dates, Place};

use crate::support::{SECOND, assert_none_cut, empty, serving};

fn refused(member: &str) -> String {
    format!("trivet_proxy_certificate_refused{{member=\"{member}\"}}")
}

#[test]
fn one_that_expires_in_service_is_told_within_60_s_and_keeps_its_connections() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SECOND).await?;
        let soon = Dates::ExpiresIn(Duration::from_secs(15));
        let identity = lab.authority.sign(lab.disk(), "soon", soon)?;
        lab.apiservers[0].show(identity).await?;
        lab.serve().await?;
        assert_eq!(lab.proxy().metric(&refused("cp1")).await, Some(0), "not yet");
        let watches = lab.watches(4).await;
        let began = Instant::now();
        assert!(watches.on("cp1") > 0, "cp1 has no watch to keep");
        let told = async || lab.proxy().metric(&refused("cp1")).await == Some(1);
        promptly(
            75 * SECOND,
            "the metric says that cp1's certificate is out of date",
            told,
        )
        .await?;
        sleep(2 * SECOND).await;
        assert_none_cut(&watches, began);
        assert!(lab.proxy().sees("cp1", "Up").await, "judged by its dates");
        Ok(())
    })
}

#[test]
fn one_that_never_proved_itself_is_used_only_when_nobody_else_is_left() -> Result<()> {
    serving(2, async |lab| {
        // The pool knew cp2 only; cp1 comes with an expired certificate.
        lab.take_proxy()?.kill().await?;
        std::fs::remove_dir_all(lab.disk().join("cache"))?;
        let expired = lab.authority.sign(lab.disk(), "expired", Dates::Expired)?;
        lab.apiservers[0].show(expired).await?;
        lab.write(
            &lab.pool()
                .revision(2)
                .member(Place::Member(1))
                .member(Place::Member(2)),
        )?;
        lab.start_proxy()?;
        let told = async || lab.proxy().metric(&refused("cp1")).await == Some(1);
        promptly(10 * SECOND, "cp1's certificate is noticed", told).await?;
        lab.proxy().comes_to_see("cp2", "Up").await?;
        let client = lab.client();
        let before = lab.apiservers[0].counts().await?.requests;
        for _ in 0..20 {
            assert_eq!(client.who().await?, "cp2");
        }
        assert_eq!(lab.apiservers[0].counts().await?.requests, before);
        Ok(())
    })
}
