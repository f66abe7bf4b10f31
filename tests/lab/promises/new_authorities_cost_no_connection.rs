//! The cluster's authority is replaced without downtime (F18): both are trusted, certificates change, the old authority is
//! removed.

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{Authority, Dates};

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving};

#[test]
fn nothing_is_lost_on_the_way() -> Result<()> {
    serving(3, async |lab| {
        let new = Authority::new()?;
        lab.trust_too(&new)?;
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        let began = Instant::now();
        lab.write(&lab.whole_pool().revision(2).trusting(&[&lab.authority, &new]))?;
        lab.proxy().follows(2).await?;
        for index in 0..3 {
            let name = format!("{}-new", lab.apiservers[index].name());
            let identity = new.sign(lab.disk(), &name, Dates::Good)?;
            lab.apiservers[index].show(identity).await?;
            sleep(SECOND).await;
        }
        lab.write(&lab.whole_pool().revision(3).trusting(&[&new]))?;
        lab.proxy().follows(3).await?;
        sleep(3 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_cut(&watches, began);
        for apiserver in &lab.apiservers {
            assert!(
                lab.proxy().sees(apiserver.name(), "Up").await,
                "{} is not Up",
                apiserver.name()
            );
        }
        Ok(())
    })
}

#[test]
fn a_bundle_that_fits_nobody_cuts_nobody_off() -> Result<()> {
    serving(3, async |lab| {
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        let began = Instant::now();
        lab.write(&lab.whole_pool().revision(2).trusting(&[&Authority::new()?]))?;
        lab.proxy().follows(2).await?;
        sleep(5 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_cut(&watches, began);
        Ok(())
    })
}
