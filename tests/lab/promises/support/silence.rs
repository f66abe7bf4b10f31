//! One member of three becomes silent. The bounds are the same for every cause.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};
use trivet_instruments::Record;
use trivet_lab::{Lab, Watches};

use super::{SECOND, WARM_UP, assert_none_failed, assert_none_slower, assert_within};

/// How long the test goes on after the fault: by then every client must have recovered.
const LOOK_ON: Duration = Duration::from_secs(6);

/// The measurements after `cp1` became silent.
pub(crate) struct Silence {
    struck: Instant,
    down: Instant,
    record: Record,
    watches: Watches,
}

/// Silences `cp1` under load, and measures.
pub(crate) async fn of_one(
    lab: &mut Lab,
    strike: impl AsyncFnOnce(&mut Lab) -> Result<()>,
) -> Result<Silence> {
    let watches = lab.watches(6).await;
    let attempts = lab.attempts();
    tokio::time::sleep(WARM_UP).await;
    assert!(watches.on("cp1") > 0, "cp1 has no watch to lose");
    strike(lab).await?;
    let struck = Instant::now();
    let down = lab.proxy().comes_to_see("cp1", "Down").await?;
    sleep_until(struck + LOOK_ON).await;
    let record = attempts.finish().await?.since(struck);
    println!("{record}");
    Ok(Silence {
        struck,
        down,
        record,
        watches,
    })
}

impl Silence {
    /// No new connection failed, and none took longer than this.
    pub(crate) fn costs_new_connections_at_most(&self, slow: Duration) {
        assert_none_failed(&self.record);
        assert_none_slower(&self.record, slow);
    }

    /// The proxy noticed it within this time.
    pub(crate) fn is_seen_within(&self, limit: Duration) {
        assert_within("cp1 is Down", self.struck, self.down, limit, &self.record);
    }

    /// Only its connections were reset, within this time, and each watch ticks again within four seconds.
    pub(crate) fn is_cut_within(&self, limit: Duration) {
        let ended = self.watches.ended_since(self.struck);
        assert!(
            !ended.is_empty() && self.watches.on("cp1") == 0,
            "cp1 was not cut"
        );
        for stay in &ended {
            let (at, how) = stay.end.unwrap();
            assert_eq!(stay.member, "cp1", "{stay:?}");
            assert_eq!(how, Err(std::io::ErrorKind::ConnectionReset), "{stay:?}");
            assert_within("a watch was cut", self.struck, at, limit, &self.record);
        }
        let gap = self.watches.longest_gap(self.struck);
        println!("longest time without a tick {gap:?}");
        assert!(gap <= 4 * SECOND + self.record.machine(), "no tick for {gap:?}");
    }
}
