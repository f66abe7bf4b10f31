//! An apiserver that answers within 1.5 s is slow and not silent (F3, F8).

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, WARM_UP, assert_none_cut, assert_none_failed, serving};

/// The promised 1.5 s, less a margin for a busy machine.
const ALMOST: Duration = Duration::from_millis(1400);

#[test]
fn nor_are_its_new_connections_lost() -> Result<()> {
    serving(3, async |lab| {
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        lab.apiservers[0]
            .behave(|behaviour| behaviour.delay = ALMOST)
            .await?;
        let struck = Instant::now();
        while struck.elapsed() < 10 * SECOND {
            assert!(!lab.proxy().sees("cp1", "Down").await, "{:?}", struck.elapsed());
            sleep(SECOND / 20).await;
        }
        assert_none_failed(&attempts.finish().await?);
        assert_none_cut(&watches, struck);
        Ok(())
    })
}
