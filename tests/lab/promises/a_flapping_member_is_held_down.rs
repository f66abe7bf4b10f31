//! A member that repeatedly hangs for three seconds and is healthy for two (F11).

use anyhow::Result;
use tokio::time::sleep;

use crate::support::{SECOND, WARM_UP, serving};

/// Enough flaps to last beyond the second hold-down. Without hold-downs every client would be cut several times by then.
const FLAPS: usize = 6;

#[test]
fn no_client_is_cut_more_than_twice() -> Result<()> {
    serving(3, async |lab| {
        let watches = lab.watches(6).await;
        sleep(WARM_UP).await;
        for _ in 0..FLAPS {
            lab.apiservers[0].stop().await?;
            sleep(3 * SECOND).await;
            lab.apiservers[0].cont()?;
            sleep(2 * SECOND).await;
        }
        println!("most cuts: {}", watches.most_cuts());
        assert!(watches.most_cuts() >= 1, "the flap did not cut anybody");
        assert!(watches.most_cuts() <= 2, "{:?}", watches.stays());
        Ok(())
    })
}
