//! A killed process (F1): its kernel refuses, and the proxy dials the next member for the same client.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, WARM_UP, assert_none_failed, assert_none_slower, assert_within, serving};

#[test]
fn and_is_unready_within_100_ms() -> Result<()> {
    serving(3, async |lab| {
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        assert!(watches.on("cp1") > 0, "cp1 has no watch to lose");
        lab.apiservers[0].kill().await?;
        let killed = Instant::now();
        let seen = lab.proxy().comes_to_see("cp1", "Unready").await?;
        sleep(3 * SECOND).await;
        let record = attempts.finish().await?.since(killed);
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, Duration::from_millis(100));
        assert_within(
            "cp1 is Unready",
            killed,
            seen,
            Duration::from_millis(100),
            &record,
        );
        let gap = watches.longest_gap(killed);
        assert!(gap <= SECOND, "a watch had no tick for {gap:?}");
        assert!(
            watches
                .ended_since(killed)
                .iter()
                .all(|stay| stay.member == "cp1"),
            "others were cut"
        );
        Ok(())
    })
}
