//! Reports that arrive as those of a whole fleet do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::access::Access;
use super::fill::report_of;
use super::objects::{Fleet, News};

/// The pause between two reports: fifty a second, the most that a fleet of any size writes.
const PAUSE: Duration = Duration::from_millis(20);

/// The writes that may be under way. More would mean that the apiserver does not keep up, and that nothing is measured.
const UNDER_WAY: usize = 200;

/// Lets the proxies report, one after another, for a while.
pub(crate) async fn arrive(
    access: &Arc<Access>,
    fleet: &Fleet,
    nodes: usize,
    (lasts, news): (Duration, News),
) -> Result<()> {
    let end = Instant::now() + lasts;
    let mut turns = interval(PAUSE);
    let mut under_way = JoinSet::new();
    let mut index = 0;
    while turns.tick().await < end {
        let call = report_of(index % nodes, fleet, news, u32::try_from(index / nodes + 1)?);
        let access = Arc::clone(access);
        under_way.spawn(async move { access.write(call).await });
        index += 1;
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
        ensure!(
            under_way.len() <= UNDER_WAY,
            "the apiserver does not keep up with fifty reports a second"
        );
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}
