//! Paces: how often, how far apart and how spread things happen. All of them follow the size of the cluster or pool.

use std::time::Duration;

use super::health::{Reason, State};

/// No upstream is probed less often: at this pace a silent member still falls within 15 s.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(15);

/// A client is told after this time that nothing is usable: a kubelet that is held starts no static pods. Below the two
/// seconds that are promised, so that it has heard by then.
pub const OPEN_DEADLINE: Duration = Duration::from_millis(1900);

/// How long an upstream may be cut off from its etcd before its connections are moved: a change of etcd's leader or a
/// short loss of its network passes by itself, and moving costs every client its watches.
pub const MOVE_AFTER: Duration = Duration::from_secs(30);

/// The time over which they are moved, so that the last has moved within 45 s whatever the pace of the probes adds.
pub const MOVE_WITHIN: Duration = Duration::from_secs(10);

/// The least time between the moves of two upstreams: if several are cut off one after the other, their clients must not
/// be chased from one to the next.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long nobody of the current document must have answered before members of earlier ones are tried: a rolling
/// restart or a change of leader is over by then.
pub const LAST_RESORT_AFTER: Duration = Duration::from_secs(5);

/// The time between two probes of one upstream: no member gets more than about 500 a second from the whole fleet.
pub fn probe_interval(nodes: u32, period: Duration) -> Duration {
    (Duration::from_secs(u64::from(nodes)) / 500).clamp(period.min(LONGEST_INTERVAL), LONGEST_INTERVAL)
}

/// From here on a sign of life is asked for. A busy apiserver answers `/readyz` within a few tens of milliseconds.
const LATE_AFTER: Duration = Duration::from_millis(500);

/// An apiserver that is cut off from its etcd answers `/readyz` after 4 s (measured).
const LATE_WITHOUT_ETCD: Duration = Duration::from_millis(4500);

/// Past this a question for readiness is put anew.
pub const READINESS_LIMIT: Duration = Duration::from_secs(6);

/// How long to wait for a member's readiness before it is asked for a sign of life as well. One that is known to be silent
/// or late is given more time, so that during an outage too it gets no more than one question an interval.
pub fn late_after(health: (State, Reason), interval: Duration, timeout: Duration) -> Duration {
    let usual = LATE_AFTER.min(timeout / 2);
    known_lateness(health).map_or(usual, |longest| interval.min(longest).max(usual))
}

/// Whether it is no news that a member lets a question wait.
pub fn is_known_late(health: (State, Reason)) -> bool {
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

/// How long to wait for one dial before the next is started beside it, so that `count` dials fit in the deadline and
/// the last of them still has its own time.
pub fn stagger(hedge_delay: Duration, connect_timeout: Duration, count: usize) -> Duration {
    let room = OPEN_DEADLINE
        .saturating_sub(connect_timeout)
        .max(OPEN_DEADLINE / 4);
    let steps = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    hedge_delay.min(room / steps)
}

/// When this node cuts the connections of a silent member, spread by `chance` in 0..1: the survivors see no more
/// than about 2500 nodes reconnect in a second.
pub fn cut_delay(nodes: u32, chance: f64) -> Duration {
    let spread = (Duration::from_secs(u64::from(nodes)) / 2500).min(Duration::from_secs(2));
    spread.mul_f64(chance.clamp(0.0, 1.0))
}

/// How long to wait before closing the next of `left` draining connections, so that the last is closed within
/// `remaining`.
pub fn drain_step(remaining: Duration, left: usize) -> Duration {
    remaining / u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1)
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

    #[test]
    fn every_member_is_dialled_within_the_deadline() {
        let hedge = Duration::from_millis(250);
        for count in 1..=64_u32 {
            let step = stagger(hedge, SECOND, usize::try_from(count).unwrap());
            assert!(step * (count - 1) + SECOND <= OPEN_DEADLINE, "{count}: {step:?}");
        }
        assert_eq!(stagger(hedge, SECOND, 3), hedge);
    }

    #[test]
    fn cuts_are_at_once_in_a_small_cluster_and_spread_in_a_large_one() {
        assert!(cut_delay(5, 1.0) <= Duration::from_millis(2));
        assert_eq!(cut_delay(5000, 1.0), 2 * SECOND);
        assert_eq!(cut_delay(50_000, 0.5), SECOND);
    }
}
