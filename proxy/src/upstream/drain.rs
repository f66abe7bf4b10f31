//! Gradual closing: one connection at a time, evenly spread, so that their clients do not reconnect all at once.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::CloseSignal;
use crate::{balance::drain, ending::Ending};

/// Closes the connections that `close_signals` names, afresh at each step, until none is left or `within` has passed; then
/// closes what is left at once.
pub(super) async fn gradually(
    close_signals: impl Fn() -> Vec<Arc<CloseSignal>>,
    ending: Ending,
    within: Duration,
) {
    let deadline = Instant::now() + within;
    loop {
        let left = close_signals();
        let remaining = deadline.saturating_duration_since(Instant::now());
        if left.is_empty() {
            return;
        }
        if remaining.is_zero() {
            for close_signal in left {
                close_signal.end(ending);
            }
            return;
        }
        sleep(drain::drain_step(remaining, left.len())).await;
        if let Some(next) = left.first() {
            next.end(ending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::fixture::{self, in_time};

    #[tokio::test]
    async fn what_is_opened_while_the_proxy_drains_or_later_is_told_to_end_too() {
        let within = Duration::from_millis(200);
        for (first, late) in [(true, within / 2), (false, within / 2), (false, within * 2)] {
            let (upstreams, [id]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
            let before = first.then(|| upstreams.guard_connection(id).unwrap());
            let opened = async {
                sleep(late).await;
                let guard = upstreams.guard_connection(id).unwrap();
                in_time(guard.close_signal.ended()).await
            };
            let ending = tokio::select! {
                ending = opened => Some(ending),
                () = upstreams.drain_all(within) => None,
            };
            assert_eq!(ending, Some(Ending::ProxyDrained), "opened after {late:?}");
            drop(before);
        }
    }
}
