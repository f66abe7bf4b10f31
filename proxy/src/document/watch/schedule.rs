//! When a watch ends and when the next attempt starts: pure, with randomness and the size of the fleet as arguments.
//!
//! The limits are for fleets: 5,000 proxies at rest start about 11 watches a second, and 5,000 proxies whose token is
//! rejected make about 13 handshakes a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::Failure;

/// The shortest and the longest watch. A watch need not be short to notice a dead apiserver, because its connection is cut
/// or moved with the others of its upstream.
const SHORTEST_WATCH: Duration = Duration::from_secs(300);
const LONGEST_WATCH: Duration = Duration::from_secs(600);

/// The longest time without an event in a watch with bookmarks. An apiserver sends a bookmark every minute, so after this
/// time the watch is stuck in an apiserver that is otherwise healthy.
const BOOKMARK_LIMIT: Duration = Duration::from_secs(75);

/// After a connection that lasted this long the back-off starts anew.
const STEADY: Duration = Duration::from_secs(10);

/// The wait after failures: doubled with each one in a row, up to a limit that grows with the fleet.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<(Failure, Duration)>,
}

impl Failure {
    fn first_wait(self) -> Duration {
        match self {
            Self::Local => Duration::from_secs(10),
            Self::Denied => Duration::from_secs(1),
            Self::Other => Duration::from_millis(200),
        }
    }

    /// In a cluster of this many nodes.
    fn longest_wait(self, nodes: u32) -> Duration {
        let nodes = u64::from(nodes);
        let seconds = match self {
            Self::Local => 10,
            Self::Denied => (nodes / 10).clamp(120, 600),
            // After an outage a proxy must learn of new members within a minute.
            Self::Other => (nodes / 100).clamp(10, 50),
        };
        Duration::from_secs(seconds)
    }
}

impl Backoff {
    /// The wait after an attempt that lasted for so long; `chance` is between 0 and 1.
    pub(super) fn next(&mut self, failure: Failure, lasted: Duration, nodes: u32, chance: f64) -> Duration {
        let wait = match self.last {
            Some((last, wait)) if last == failure && lasted < STEADY => {
                (wait * 2).min(failure.longest_wait(nodes))
            }
            Some(_) | None => failure.first_wait(),
        };
        self.last = Some((failure, wait));
        between(wait / 2, wait, chance)
    }
}

/// How long the next watch lasts; `chance` is between 0 and 1.
pub(super) fn watch_time(chance: f64) -> Duration {
    between(SHORTEST_WATCH, LONGEST_WATCH, chance)
}

/// Until when a watch that ends at `end` must bring its next event.
pub(super) fn next_event_until(now: Instant, end: Instant, has_bookmarks: bool) -> Instant {
    if has_bookmarks {
        end.min(now + BOOKMARK_LIMIT)
    } else {
        end
    }
}

fn between(shortest: Duration, longest: Duration, chance: f64) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the fleet that the promises are about.
    const NODES: u32 = 5000;

    /// Evenly spread chances, and the mean of a time over them.
    fn mean(time: impl Fn(f64) -> Duration) -> f64 {
        const SAMPLES: u32 = 100;
        let sum: f64 = (0..=SAMPLES)
            .map(|sample| time(f64::from(sample) / f64::from(SAMPLES)).as_secs_f64())
            .sum();
        sum / f64::from(SAMPLES + 1)
    }

    #[test]
    fn a_fleet_of_5000_at_rest_starts_at_most_20_watches_a_second() {
        let starts = f64::from(NODES) / mean(watch_time);
        assert!(starts <= 20.0, "{starts}");
        // Even if all of them draw the shortest time.
        assert!(f64::from(NODES) / watch_time(0.0).as_secs_f64() <= 20.0);
        assert_eq!(watch_time(1.0), LONGEST_WATCH);
    }

    #[test]
    fn a_fleet_of_5000_whose_token_is_rejected_makes_at_most_20_handshakes_a_second() {
        let settled = |chance| {
            let mut backoff = Backoff::default();
            (0..20).fold(Duration::ZERO, |_, _| {
                backoff.next(Failure::Denied, Duration::ZERO, NODES, chance)
            })
        };
        let handshakes = f64::from(NODES) / mean(settled);
        assert!(handshakes <= 20.0, "{handshakes}");
    }

    #[test]
    fn a_wait_doubles_up_to_its_limit_and_starts_anew_with_another_failure() {
        let mut backoff = Backoff::default();
        let mut after = |failure, lasted, nodes| backoff.next(failure, lasted, nodes, 1.0).as_millis();
        let waits: Vec<_> = (0..8).map(|_| after(Failure::Other, Duration::ZERO, 5)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(after(Failure::Denied, Duration::ZERO, 5), 1000);
        let denied: Vec<_> = (0..9)
            .map(|_| after(Failure::Denied, Duration::ZERO, 5))
            .collect();
        assert_eq!(denied.last(), Some(&120_000));
        assert_eq!(after(Failure::Other, Duration::ZERO, 5), 200);
        assert_eq!(after(Failure::Local, Duration::ZERO, 5), 10_000);
        assert_eq!(after(Failure::Local, Duration::ZERO, 5), 10_000);
        assert_eq!(after(Failure::Local, STEADY, 5), 10_000);
        assert_eq!(after(Failure::Other, Duration::ZERO, 5), 200);
        assert_eq!(after(Failure::Other, Duration::ZERO, 5), 400);
        assert_eq!(after(Failure::Other, STEADY, 5), 200);
    }

    #[test]
    fn a_watch_with_bookmarks_is_stalled_after_75_seconds_without_any_event() {
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(10), now + LONGEST_WATCH);
        assert_eq!(next_event_until(now, late, true), now + Duration::from_secs(75));
        assert_eq!(next_event_until(now, soon, true), soon);
        assert_eq!(next_event_until(now, late, false), late);
    }

    #[test]
    fn no_failure_of_apiservers_keeps_a_proxy_blind_for_more_than_a_minute() {
        for nodes in [1, 500, NODES, u32::MAX] {
            assert!(
                Failure::Other.longest_wait(nodes) < Duration::from_secs(60),
                "{nodes}"
            );
        }
    }
}
