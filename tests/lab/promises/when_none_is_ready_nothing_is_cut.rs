//! Every `/readyz` fails, as when etcd has lost its quorum (F7): no member is better than another, so nothing changes.

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::behaviour::Readiness;

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving};

#[test]
fn and_all_are_used_as_before() -> Result<()> {
    serving(3, async |lab| {
        // The watches first, so that each member holds two of them. Opened beside short connections one member might hold
        // three, and then it would rightly get no new connection.
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        let began = Instant::now();
        for apiserver in &mut lab.apiservers {
            apiserver
                .behave(|behaviour| behaviour.readiness = Readiness::failing("etcd"))
                .await?;
        }
        for apiserver in &lab.apiservers {
            lab.proxy().comes_to_see(apiserver.name(), "Unready").await?;
        }
        let red = Instant::now();
        sleep(8 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_cut(&watches, began);
        for apiserver in &lab.apiservers {
            assert!(
                record.since(red).answered_by(apiserver.name()) > 0,
                "{} gets none",
                apiserver.name()
            );
        }
        Ok(())
    })
}
