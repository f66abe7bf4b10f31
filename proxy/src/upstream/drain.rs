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

#[cfg(test)]
mod tests {
    use tokio::join;

    use super::*;
    use crate::upstream::fixture::{self, in_time};

    #[tokio::test]
    async fn what_is_opened_while_the_proxy_drains_is_told_to_end_too() {
        let within = Duration::from_millis(300);
        for first in [true, false] {
            let (upstreams, [id]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
            let before = first.then(|| upstreams.claim(id).unwrap());
            let opened = async {
                sleep(within / 3).await;
                let claim = upstreams.claim(id).unwrap();
                in_time(claim.tether.ended()).await
            };
            let (ending, ()) = join!(opened, upstreams.drain_all(within));
            assert_eq!(ending, Ending::ProxyDrained);
            drop(before);
        }
    }
}
