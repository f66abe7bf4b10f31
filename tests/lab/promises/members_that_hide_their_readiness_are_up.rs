//! `anonymous-auth=false` (F19): 401 and 403 are answers of a live apiserver.

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving};

fn hides_with(status: u16) -> Result<()> {
    serving(3, async move |lab| {
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        let began = Instant::now();
        for apiserver in &mut lab.apiservers {
            apiserver
                .behave(|behaviour| behaviour.readiness.status = status)
                .await?;
        }
        while began.elapsed() < 4 * SECOND {
            for apiserver in &lab.apiservers {
                assert!(
                    lab.proxy().sees(apiserver.name(), "Up").await,
                    "{}",
                    apiserver.name()
                );
            }
            sleep(SECOND / 10).await;
        }
        assert_none_failed(&attempts.finish().await?);
        assert_none_cut(&watches, began);
        Ok(())
    })
}

#[test]
fn with_401() -> Result<()> {
    hides_with(401)
}

#[test]
fn with_403() -> Result<()> {
    hides_with(403)
}
