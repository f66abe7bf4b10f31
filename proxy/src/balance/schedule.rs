//! The probe schedule: how often a path is probed, and after which time a probe is overdue.

use std::time::Duration;

use super::health::{Reason, State};

/// No upstream is probed less often: at this pace a silent member still falls within 15 s.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(15);

/// Past this a question for readiness is put anew.
pub const READINESS_LIMIT: Duration = Duration::from_secs(6);

/// From here on a sign of life is asked for. A busy apiserver answers `/readyz` within a few tens of milliseconds.
const LATE_AFTER: Duration = Duration::from_millis(500);

/// An apiserver that is cut off from its etcd answers `/readyz` after 4 s (measured).
const LATE_WITHOUT_ETCD: Duration = Duration::from_millis(4500);

/// The time between two probes of one upstream: no member gets more than about 500 a second from the whole fleet.
pub fn probe_interval(nodes: u32, period: Duration) -> Duration {
    (Duration::from_secs(u64::from(nodes)) / 500).clamp(period.min(LONGEST_INTERVAL), LONGEST_INTERVAL)
}

/// How many intervals lie between two probes of a path that is not in use: its member is probed by another one.
const STANDBY_INTERVALS: u32 = 5;

/// The time between two probes of a path that is not in use, so that each further address adds a fifth to the probes of its
/// member, however large the fleet. A path that comes into use is probed at the next [`probe_interval`].
pub fn standby_interval(interval: Duration) -> Duration {
    interval * STANDBY_INTERVALS
}

/// How long to wait for a member's readiness before it is asked for a sign of life as well. One that is known to be silent
/// or late is given more time, so that during an outage too it gets no more than one question an interval.
pub fn overdue_after(health: (State, Reason), interval: Duration, timeout: Duration) -> Duration {
    let usual = LATE_AFTER.min(timeout / 2);
    known_lateness(health).map_or(usual, |longest| interval.min(longest).max(usual))
}

/// Whether it is no news that a member lets a question wait.
pub fn is_known_overdue(health: (State, Reason)) -> bool {
    known_lateness(health).is_some()
}

/// How long to wait at most for the readiness of a member that is known to be silent or late.
fn known_lateness(health: (State, Reason)) -> Option<Duration> {
    match health {
        (State::Down, _) => Some(READINESS_LIMIT),
        (State::Unready, Reason::Late | Reason::EtcdFailed) => Some(LATE_WITHOUT_ETCD),
        (State::Up | State::Unready, _) => None,
    }
}

/// `interval` changed by up to a twentieth by `chance` in 0..1, to either side: the fleet's rate is what the interval
/// says, and the bound on detection has room for the twentieth.
pub fn jittered(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(0.95 + 0.1 * chance.clamp(0.0, 1.0))
}

/// How long after its first question a proxy asks again, by `chance` in 0..1: proxies that were started together must not
/// go on in step.
pub fn first_pause(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn probes_get_rarer_with_the_fleet() {
        assert_eq!(probe_interval(5, SECOND), SECOND);
        assert_eq!(probe_interval(500, SECOND), SECOND);
        assert_eq!(probe_interval(5000, SECOND), 10 * SECOND);
        assert_eq!(probe_interval(1_000_000, SECOND), 15 * SECOND);
        assert_eq!(probe_interval(1, 60 * SECOND), 15 * SECOND);
    }

    #[test]
    fn a_path_that_is_not_in_use_is_probed_a_fifth_as_often() {
        for (nodes, standby) in [(5, 5), (1000, 10), (5000, 50), (1_000_000, 75)] {
            let interval = probe_interval(nodes, SECOND);
            assert_eq!(standby_interval(interval), standby * SECOND, "{nodes}");
        }
    }

    #[test]
    fn jitter_changes_the_moment_and_not_the_rate() {
        let chances = (0..=100_u8).map(|chance| f64::from(chance) / 100.0);
        let sum: Duration = chances.clone().map(|chance| jittered(SECOND, chance)).sum();
        assert!((sum / 101).abs_diff(SECOND) < Duration::from_millis(1), "{sum:?}");
        assert!(
            chances
                .map(|chance| jittered(SECOND, chance))
                .all(|one| one <= SECOND * 21 / 20)
        );
    }
}
