//! Decides when a replacement has stalled. Pure: time is an argument, and no wall clock counts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The time that the DaemonSet controller has to delete the old pod once the new one is available. It adds a second to
/// `minReadySeconds` itself, and a busy one has a queue.
const GRACE: Duration = Duration::from_secs(10);

/// The pause after the first wake for a pod. Each further one is twice as long: a controller that does not run, or a node
/// whose clock is ahead, must not cost writes for ever.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The new pods whose predecessors are still there, by name, each with its next wake.
///
/// It is lost with the operator. The next one takes from the pods for how long they have been Ready, so that an operator that is
/// restarted again and again wakes the controller too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stalls(BTreeMap<String, Stall>);

/// One pod that is Ready while its predecessor is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stall {
    /// When the controller is to be woken for it.
    due: Instant,
    /// The time from that wake to the next.
    pause: Duration,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The pods for which the controller is to be woken; none if it is not.
    pub overdue: Vec<String>,
    /// When the next pod becomes overdue.
    pub next_look: Option<Duration>,
}

impl Stalls {
    /// Adds that these pods wait at `now`, and that no others do. Each has been Ready for so long, as far as that is known, and
    /// is available `min_ready` after it became Ready.
    pub fn observe(
        &mut self,
        ready: &BTreeMap<String, Duration>,
        min_ready: Duration,
        now: Instant,
    ) -> Decision {
        self.0.retain(|pod, _| ready.contains_key(pod));
        let mut overdue = Vec::new();
        for (pod, since) in ready {
            let stall = self.0.entry(pod.clone()).or_insert(Stall {
                due: now + (min_ready + GRACE).saturating_sub(*since),
                pause: FIRST_PAUSE,
            });
            if stall.due <= now {
                overdue.push(pod.clone());
                stall.due = now + stall.pause;
                stall.pause = stall.pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
        let next = self.0.values().map(|stall| stall.due).min();
        Decision {
            overdue,
            next_look: next.map(|due| due.saturating_duration_since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_READY: Duration = Duration::from_secs(5);

    /// Pods that became Ready just now.
    fn each(pods: &[&str]) -> BTreeMap<String, Duration> {
        pods.iter()
            .map(|pod| ((*pod).to_owned(), Duration::ZERO))
            .collect()
    }

    /// A day of looks, ten seconds apart. `ready` has the pods that wait at each second; returns the seconds with a wake.
    fn wakes(ready: impl Fn(u64) -> Vec<&'static str>) -> Vec<u64> {
        let start = Instant::now();
        let mut stalls = Stalls::default();
        let seconds = (0..24 * 60 * 60).step_by(10);
        seconds
            .filter(|second| {
                let ready = each(&ready(*second));
                let decision = stalls.observe(&ready, MIN_READY, start + Duration::from_secs(*second));
                !decision.overdue.is_empty()
            })
            .collect()
    }

    #[test]
    fn a_settled_pool_is_never_woken() {
        assert_eq!(wakes(|_| Vec::new()), [0; 0]);
        assert_eq!(
            Stalls::default().observe(&BTreeMap::new(), MIN_READY, Instant::now()),
            Decision::default()
        );
    }

    #[test]
    fn a_replacement_that_goes_on_is_never_woken() {
        let pods = ["a", "b", "c", "d", "e"];
        let each_for_ten_seconds =
            |second: u64| Vec::from_iter(pods.get(usize::try_from(second / 20).unwrap()).copied());
        assert_eq!(wakes(each_for_ten_seconds), [0; 0]);
    }

    #[test]
    fn a_stalled_replacement_is_woken_once_if_that_helps() {
        let until_it_is_woken = |second| if second <= 20 { vec!["a"] } else { Vec::new() };
        assert_eq!(wakes(until_it_is_woken), [20]);
    }

    #[test]
    fn where_waking_does_not_help_it_is_tried_ever_less_often() {
        let all = wakes(|_| vec!["a", "b"]);
        assert_eq!(all[..8], [20, 30, 50, 90, 170, 330, 650, 1250]);
        let is_slow = |pair: &[u64]| pair[1] - pair[0] >= 600;
        assert!(all[7..].windows(2).all(is_slow), "{all:?}");
    }

    #[test]
    fn a_pod_that_waits_for_ever_does_not_delay_the_wake_for_another() {
        let ready = |second| {
            if (5000..=5020).contains(&second) {
                vec!["a", "b"]
            } else {
                vec!["a"]
            }
        };
        assert!(wakes(ready).contains(&5020));
    }

    #[test]
    fn a_pod_that_becomes_unready_begins_anew() {
        let flapping = |second| if second % 20 == 0 { Vec::new() } else { vec!["a"] };
        assert_eq!(wakes(flapping), [0; 0]);
    }

    #[test]
    fn the_next_look_is_when_the_first_pod_becomes_overdue() {
        let start = Instant::now();
        let mut stalls = Stalls::default();
        let mut look = |pods: &[&str], second| {
            let decision = stalls.observe(&each(pods), MIN_READY, start + Duration::from_secs(second));
            (decision.overdue, decision.next_look.map(|wait| wait.as_secs()))
        };
        assert_eq!(look(&["a"], 0), (Vec::new(), Some(15)));
        assert_eq!(look(&["a", "b"], 4), (Vec::new(), Some(11)));
        assert_eq!(look(&["a", "b"], 15), (vec!["a".to_owned()], Some(4)));
    }

    #[test]
    fn a_pod_that_has_waited_for_an_operator_before_is_overdue_for_the_next_one() {
        let waits = |seconds| [("a".to_owned(), Duration::from_secs(seconds))].into();
        let look = |seconds| Stalls::default().observe(&waits(seconds), MIN_READY, Instant::now());
        assert_eq!(look(14).next_look, Some(Duration::from_secs(1)));
        assert_eq!(look(15).overdue, ["a"]);
        assert_eq!(look(100_000).overdue, ["a"]);
    }
}
