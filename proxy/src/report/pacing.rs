//! When the next report is written: pure, with time, randomness and the size of the fleet as arguments.
//!
//! Every proxy of a cluster sees the loss of an apiserver at once. So a change is written after a random part of the time
//! in which the whole fleet may write, and two writes of one proxy are at least that time apart: a fleet of any size writes
//! at most 50 times a second on average, whatever changes.

use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::report::interval_seconds;

/// The shortest time between two writes of one proxy, also in a small fleet: a member whose health or connections come and
/// go should not cost etcd a write each second. Shorter than the time in which a member that falls silent is found Down, so
/// that an earlier change does not delay that one.
const SHORTEST_GAP: Duration = Duration::from_secs(2);

/// The writes of a whole fleet in a second.
const WRITES_A_SECOND: f64 = 50.0;

/// The size of the fleet, and a chance between 0 and 1.
pub(super) type Draw = (u32, f64);

/// Decides when to write.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    /// Before this time nothing is written.
    earliest: Instant,
    /// Before this time nothing is written, though the last write has not failed.
    gap_end: Instant,
    /// When the report is written again though nothing has changed.
    regular: Instant,
    /// When the change since the last write is written.
    change: Option<Instant>,
    failures: u32,
}

impl Pacing {
    /// Nothing is written yet. The proxies of a fleet may start at the same time.
    pub(super) fn new(now: Instant, nodes: u32, chance: f64) -> Self {
        Self {
            earliest: now,
            gap_end: now,
            regular: now + part(spread(nodes), chance),
            change: None,
            failures: 0,
        }
    }

    /// Takes in whether what would be written differs from what was written last.
    pub(super) fn look(&mut self, differs: bool, now: Instant, (nodes, chance): Draw) {
        if !differs {
            self.change = None;
        } else if self.change.is_none() {
            self.change = Some(now.max(self.earliest) + part(spread(nodes), chance));
        }
    }

    /// Takes in that the cause of earlier failures is over: the next change does not wait for what they have put off.
    pub(super) fn recover(&mut self) {
        self.failures = 0;
        self.earliest = self.gap_end;
        self.change = None;
    }

    /// Whether to write now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let next = self
            .change
            .map_or(self.regular, |change| change.min(self.regular));
        next.max(self.earliest) <= now
    }

    /// Takes in that a write has ended. A failed one is tried again, later each time, up to the regular interval.
    pub(super) fn attempted(&mut self, succeeded: bool, now: Instant, (nodes, chance): Draw) {
        let (gap, interval) = (gap(nodes), Duration::from_secs(interval_seconds(nodes)));
        self.failures = if succeeded {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let pause = match self.failures {
            0 => gap,
            failures => gap.saturating_mul(1 << failures.min(10)).min(interval.max(gap)),
        };
        // A failed write is also no longer a pending change: it is tried again at the end of the pause.
        self.change = None;
        self.gap_end = now + gap;
        self.earliest = self.gap_end + part(pause.saturating_sub(gap), chance);
        self.regular = if succeeded {
            now + (interval / 2 + part(interval / 2, chance)).max(gap)
        } else {
            self.earliest
        };
    }
}

/// The time in which the whole fleet may write once.
fn spread(nodes: u32) -> Duration {
    Duration::from_secs_f64(f64::from(nodes) / WRITES_A_SECOND)
}

/// The shortest time between two writes of one proxy of this fleet.
fn gap(nodes: u32) -> Duration {
    spread(nodes).max(SHORTEST_GAP)
}

fn part(whole: Duration, chance: f64) -> Duration {
    whole.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOOK: Duration = Duration::from_secs(1);

    /// The times between the writes of a proxy within an hour. `script` says for each look in turn whether there is a change that is not
    /// written yet, whether a write would succeed, and the chance.
    fn gaps(nodes: u32, script: &[(bool, bool, f64)]) -> Vec<Duration> {
        let start = Instant::now();
        let mut pacing = Pacing::new(start, nodes, script[0].2);
        let (mut made, mut last, mut is_pending) = (Vec::new(), None, false);
        for (look, (changes, succeeds, chance)) in (0_u32..3600).zip(script.iter().cycle()) {
            let now = start + LOOK * look;
            is_pending |= *changes;
            if *chance > 0.8 {
                pacing.recover();
            }
            pacing.look(is_pending, now, (nodes, *chance));
            if pacing.is_due(now) {
                made.extend(last.replace(now).map(|last| now - last));
                is_pending &= !*succeeds;
                pacing.attempted(*succeeds, now, (nodes, *chance));
            }
        }
        made
    }

    proptest! {
        #[test]
        fn no_change_and_no_failure_makes_a_fleet_write_more_than_50_times_a_second(
            nodes in 1_u32..100_000,
            script in prop::collection::vec((any::<bool>(), any::<bool>(), 0.0..=1.0_f64), 1..200),
        ) {
            for gap in gaps(nodes, &script) {
                let apart = gap.as_secs_f64();
                prop_assert!(apart >= SHORTEST_GAP.as_secs_f64());
                prop_assert!(f64::from(nodes) / apart <= WRITES_A_SECOND + 1e-6);
            }
        }

        #[test]
        fn a_report_never_gets_older_than_its_interval(
            nodes in 1_u32..20_000,
            chances in prop::collection::vec(0.0..=1.0_f64, 1..200),
        ) {
            let script: Vec<_> = chances.iter().map(|chance| (false, true, *chance)).collect();
            let longest = Duration::from_secs(interval_seconds(nodes)) + LOOK;
            for gap in gaps(nodes, &script) {
                prop_assert!(gap <= longest, "{gap:?}");
            }
        }

        #[test]
        fn a_change_is_written_within_the_time_that_the_fleet_needs(
            nodes in 1_u32..20_000,
            chance in 0.0..=1.0_f64,
            quiet in 0_u32..600,
        ) {
            let start = Instant::now();
            let mut pacing = Pacing::new(start, nodes, chance);
            pacing.attempted(true, start, (nodes, chance));
            let changed = start + Duration::from_secs(quiet.into());
            pacing.look(true, changed, (nodes, chance));
            prop_assert!(pacing.is_due(changed + gap(nodes) + spread(nodes)));
        }
    }

    #[test]
    fn a_change_after_an_outage_does_not_wait_for_what_the_failures_have_put_off() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now, 3, 0.5);
        for _ in 0..6 {
            now += Duration::from_secs(300);
            pacing.look(true, now, (3, 1.0));
            assert!(pacing.is_due(now));
            pacing.attempted(false, now, (3, 1.0));
        }
        pacing.look(true, now, (3, 1.0));
        let soon = now + SHORTEST_GAP + spread(3);
        assert!(!pacing.is_due(soon));
        pacing.recover();
        pacing.look(true, now, (3, 1.0));
        assert!(pacing.is_due(soon));
        assert!(!pacing.is_due(now), "the gap still holds");
    }

    #[test]
    fn what_changes_back_before_it_is_written_is_not_written() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start, 3, 0.5);
        pacing.attempted(true, start, (3, 0.5));
        pacing.look(true, start, (3, 0.5));
        let later = start + Duration::from_secs(10);
        assert!(pacing.is_due(later));
        pacing.look(false, later, (3, 0.5));
        assert!(!pacing.is_due(later));
        assert!(pacing.is_due(start + Duration::from_secs(300)));
    }

    #[test]
    fn a_fleet_of_5000_that_starts_at_once_writes_within_100_seconds() {
        let start = Instant::now();
        let last = Pacing::new(start, 5000, 1.0);
        assert!(!last.is_due(start + Duration::from_secs(99)));
        assert!(last.is_due(start + Duration::from_secs(100)));
    }
}
