//! When the next report is written: pure, with time, a chance and the size of the fleet as arguments.
//!
//! Every proxy of a cluster sees the loss of an apiserver at once. So in a fleet of more than 50 nodes proxies take turns: time
//! is divided into cycles, each proxy has one moment in every cycle, drawn by chance at its start, and writes then or not at
//! all. So a fleet of any size writes at most 50 times a second, whatever changes and however often, and what changes is
//! written within one cycle.

use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::report::{cycle, interval_seconds};

/// The shortest time between two writes of one proxy, also in a small fleet: a member whose health or connections come and
/// go should not cost etcd a write each second. Shorter than the time in which a member that falls silent is found Down, so
/// that an earlier change does not delay that one.
const SHORTEST_GAP: Duration = Duration::from_secs(2);

/// The highest power of two by which failures in a row multiply the pause. The interval limits it sooner.
const MAX_DOUBLINGS: u32 = 10;

/// Decides when to write.
#[derive(Clone, Debug)]
pub struct Pacing {
    /// When the first cycle began.
    began: Instant,
    /// The moment of this proxy in each cycle, as a part of it.
    phase: f64,
    /// Before this time nothing is written.
    earliest: Instant,
    /// Before this time nothing is written, though the last write has not failed.
    gap_end: Instant,
    /// When the report is written again though nothing has changed.
    regular: Instant,
    /// Since when there is a change that is not written yet.
    changed: Option<Instant>,
    failures: u32,
}

impl Pacing {
    /// Nothing is written yet. The proxies of a fleet may start at the same time; `chance`, between 0 and 1, keeps their turns apart.
    pub fn new(now: Instant, chance: f64) -> Self {
        Self {
            began: now,
            phase: chance.clamp(0.0, 1.0),
            earliest: now,
            gap_end: now,
            regular: now,
            changed: None,
            failures: 0,
        }
    }

    /// Takes in whether what would be written differs from what was written last.
    pub fn look(&mut self, differs: bool, now: Instant) {
        self.changed = differs.then(|| self.changed.unwrap_or(now));
    }

    /// Takes in that the cause of earlier failures is over: the next change does not wait for what they have put off.
    pub fn recover(&mut self) {
        self.failures = 0;
        self.earliest = self.gap_end;
        self.changed = None;
    }

    /// Whether to write now, in a fleet of this many nodes.
    pub fn is_due(&self, now: Instant, nodes: u32) -> bool {
        let wanted = self
            .changed
            .map_or(self.regular, |changed| changed.min(self.regular));
        let wanted = wanted.max(self.earliest);
        wanted <= now && self.turn(wanted, nodes) <= now
    }

    /// Takes in that a write has ended. A failed one is tried again, later each time, up to the regular interval.
    pub fn attempted(&mut self, succeeded: bool, now: Instant, nodes: u32) {
        let interval = Duration::from_secs(interval_seconds(nodes));
        self.failures = if succeeded {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let pause = match self.failures {
            0 => SHORTEST_GAP,
            failures => SHORTEST_GAP
                .saturating_mul(1 << failures.min(MAX_DOUBLINGS))
                .min(interval),
        };
        // A failed write is also no longer a pending change: it is tried again at the end of the pause.
        self.changed = None;
        self.gap_end = now + SHORTEST_GAP;
        self.earliest = now + pause;
        self.regular = if succeeded {
            // The turn that it waits for is at most a cycle later.
            now + interval.saturating_sub(cycle(nodes))
        } else {
            self.earliest
        };
    }

    /// The first turn of this proxy at or after a time: that time itself, where proxies need none.
    fn turn(&self, after: Instant, nodes: u32) -> Instant {
        let cycle = cycle(nodes);
        if cycle.is_zero() {
            return after;
        }
        let first = self.began + cycle.mul_f64(self.phase);
        let late = after.saturating_duration_since(first);
        let turns = late.as_nanos().div_ceil(cycle.as_nanos());
        first + cycle.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOOK: Duration = Duration::from_secs(1);

    /// The times at which a proxy writes within an hour, after its start. `script` says for each look whether something
    /// changes, whether a write would succeed, and whether the cause of failures is over.
    fn writes(nodes: u32, chance: f64, script: &[(bool, bool, bool)]) -> Vec<Duration> {
        let start = Instant::now();
        let mut pacing = Pacing::new(start, chance);
        let (mut made, mut is_pending) = (Vec::new(), true);
        for (look, (changes, succeeds, recovers)) in (0_u32..3600).zip(script.iter().cycle()) {
            let now = start + LOOK * look;
            is_pending |= *changes;
            if *recovers {
                pacing.recover();
            }
            pacing.look(is_pending, now);
            if pacing.is_due(now, nodes) {
                made.push(now - start);
                is_pending &= !*succeeds;
                pacing.attempted(*succeeds, now, nodes);
            }
        }
        made
    }

    proptest! {
        #[test]
        fn no_change_and_no_failure_makes_a_proxy_write_twice_in_a_turn_or_between_turns(
            nodes in 51_u32..100_000,
            chance in 0.0..=1.0_f64,
            script in prop::collection::vec(any::<(bool, bool, bool)>(), 1..200),
        ) {
            let cycle = cycle(nodes);
            let turn = |at: Duration| {
                // A microsecond more, for what the division loses.
                let since = (at.as_secs_f64() + 1e-6) / cycle.as_secs_f64() - chance;
                // In cycles: how many have begun, and what has gone by of the last one.
                (since.floor(), since.fract() * cycle.as_secs_f64())
            };
            let written = writes(nodes, chance, &script);
            for at in &written {
                prop_assert!(turn(*at).1 < LOOK.as_secs_f64() + 1e-3, "{at:?} is no turn");
            }
            for pair in written.windows(2) {
                prop_assert!(turn(pair[0]).0 < turn(pair[1]).0, "{pair:?} are of one turn");
            }
        }

        #[test]
        fn a_proxy_of_a_small_fleet_writes_at_most_every_two_seconds(
            nodes in 0_u32..=50,
            chance in 0.0..=1.0_f64,
            script in prop::collection::vec(any::<(bool, bool, bool)>(), 1..200),
        ) {
            for pair in writes(nodes, chance, &script).windows(2) {
                prop_assert!(pair[1].saturating_sub(pair[0]) >= SHORTEST_GAP);
            }
        }

        #[test]
        fn a_report_never_gets_older_than_its_interval(nodes in 1_u32..20_000, chance in 0.0..=1.0_f64) {
            let longest = Duration::from_secs(interval_seconds(nodes)) + LOOK;
            for pair in writes(nodes, chance, &[(false, true, false)]).windows(2) {
                prop_assert!(pair[1].saturating_sub(pair[0]) <= longest, "{pair:?}");
            }
        }

        #[test]
        fn a_change_is_written_within_the_time_that_the_fleet_needs(
            nodes in 1_u32..20_000,
            chance in 0.0..=1.0_f64,
            quiet in 0_u32..600,
        ) {
            let start = Instant::now();
            let mut pacing = Pacing::new(start, chance);
            pacing.attempted(true, start, nodes);
            let changed = start + Duration::from_secs(quiet.into());
            pacing.look(true, changed);
            prop_assert!(pacing.is_due(changed + SHORTEST_GAP + cycle(nodes), nodes));
        }
    }

    #[test]
    fn a_change_after_an_outage_does_not_wait_for_what_the_failures_have_put_off() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now, 0.5);
        for _ in 0..6 {
            now += Duration::from_secs(300);
            pacing.look(true, now);
            assert!(pacing.is_due(now, 3));
            pacing.attempted(false, now, 3);
        }
        pacing.look(true, now);
        let soon = now + SHORTEST_GAP;
        assert!(!pacing.is_due(soon, 3));
        pacing.recover();
        pacing.look(true, now);
        assert!(pacing.is_due(soon, 3));
        assert!(!pacing.is_due(now, 3), "the gap still holds");
    }

    #[test]
    fn what_changes_back_before_it_is_written_is_not_written() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start, 0.5);
        pacing.attempted(true, start, 3);
        let later = start + Duration::from_secs(10);
        pacing.look(true, later);
        assert!(pacing.is_due(later, 3));
        pacing.look(false, later);
        assert!(!pacing.is_due(later, 3));
        assert!(pacing.is_due(start + Duration::from_secs(300), 3));
    }

    #[test]
    fn a_change_in_a_small_fleet_is_written_at_once() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start, 0.9);
        assert!(pacing.is_due(start, 50), "the first report");
        pacing.attempted(true, start, 50);
        let changed = start + Duration::from_secs(60);
        pacing.look(true, changed);
        assert!(pacing.is_due(changed, 50));
    }

    #[test]
    fn a_fleet_of_5000_that_starts_at_once_writes_within_250_seconds() {
        let start = Instant::now();
        let last = Pacing::new(start, 1.0);
        assert!(!last.is_due(start + Duration::from_secs(249), 5000));
        assert!(last.is_due(start + Duration::from_secs(250), 5000));
    }
}
