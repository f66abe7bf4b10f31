//! Gradual closing: one connection at a time, evenly spread, so that their clients do not reconnect all at once.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::Tether;
use crate::{balance::pace, ending::Ending};

/// Closes the connections that `tethers` names, afresh at each step, until none is left or `within` has passed; then
/// closes what is left at once.
pub(super) async fn gradually(tethers: impl Fn() -> Vec<Arc<Tether>>, ending: Ending, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let left = tethers();
        let remaining = deadline.saturating_duration_since(Instant::now());
        if left.is_empty() {
            return;
        }
        if remaining.is_zero() {
            for tether in left {
                tether.end(ending);
            }
            return;
        }
        sleep(pace::drain_step(remaining, left.len())).await;
        if let Some(next) = left.first() {
            next.end(ending);
        }
    }
}
