//! Gradual closing: one connection at a time, evenly spread, so that their clients do not reconnect all at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Upstreams;
use crate::{
    balance::{PathId, drain},
    ending::Ending,
};

/// Closes the connections of one upstream, or of all, one after the other until none is left or `within` has passed; then
/// closes the rest at once. Each step counts the connections anew, because some end by themselves, and new ones may come.
pub(super) async fn gradually(upstreams: &Upstreams, of: Option<PathId>, ending: Ending, within: Duration) {
    let deadline = Instant::now() + within;
    while let Some((_, left)) = upstreams.next_to_close(of) {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            for close_signal in upstreams.close_signals(of) {
                close_signal.end(ending);
            }
            return;
        }
        sleep(drain::drain_step(remaining, left)).await;
        if let Some((next, _)) = upstreams.next_to_close(of) {
            next.end(ending);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::time::{ClockId, clock_gettime};
    use tokio::task::JoinSet;

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

    const TICK: Duration = Duration::from_millis(1);

    /// The CPU time of this thread, which other processes of the machine do not lengthen.
    fn worked() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_of_16000_connections_holds_up_nothing_else() {
        let (upstreams, [id]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
        let mut connections = JoinSet::new();
        for _ in 0..16_000 {
            let guard = upstreams.guard_connection(id).unwrap();
            connections.spawn(async move { guard.close_signal.ended().await });
        }
        // Paused time advances once all tasks wait, so their start does not count as part of the drain.
        sleep(TICK).await;
        let before = worked();
        // What is due each millisecond waits for all that this thread has worked since the last one.
        let longest = tokio::spawn(async move {
            let (mut longest, mut last) = (Duration::ZERO, before);
            for _ in 0..59_000 {
                sleep(TICK).await;
                let now = worked();
                longest = longest.max(now.saturating_sub(last));
                last = now;
            }
            longest
        });
        gradually(
            &upstreams,
            Some(id),
            Ending::MemberDrained,
            Duration::from_secs(60),
        )
        .await;
        let took = worked().saturating_sub(before);
        while let Some(ending) = connections.join_next().await {
            assert_eq!(ending.unwrap(), Ending::MemberDrained);
        }
        let longest = longest.await.unwrap();
        assert!(longest < Duration::from_millis(50), "one turn took {longest:?}");
        assert!(
            took < Duration::from_secs(5),
            "the drain took {took:?} of the CPU"
        );
    }
}
