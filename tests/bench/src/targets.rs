//! What the data path must reach: one row of the page each.

use crate::metric::Metric;
use crate::peers::Peer;
use crate::samples::Samples;
use crate::statistics::Spread;

/// What our number is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The same number of one peer.
    Peer(Peer),
    /// The same number of whichever proxy was best.
    Best,
    /// Nothing: the number itself counts.
    Itself,
}

/// A measure and what it must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) metric: Metric,
    pub(crate) against: Against,
    /// What the first release must reach, if anything.
    pub(crate) release: Option<f64>,
    /// Where we want to be, if it was said.
    pub(crate) goal: Option<f64>,
}

/// The proxies that a cluster would otherwise run, each in its usual mode: the targets were set against the best of these.
/// go-loadbalancer is none of them, because it comes with Talos only and splices all that it moves, as haproxy-splice,
/// which is none either; it has a row of its own.
const PROXIES: [Peer; 3] = [Peer::Haproxy, Peer::Nginx, Peer::Envoy];

/// In the order of the page.
pub(crate) const TARGETS: [Target; 39] = [
    versus(Metric::BulkCpu, Peer::Haproxy, (Some(0.40), Some(0.20))),
    versus(Metric::BulkCpu, Peer::Nginx, (Some(0.45), Some(0.20))),
    versus(Metric::BulkCpu, Peer::Envoy, (Some(0.75), Some(0.50))),
    versus(Metric::BulkCpu, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::BulkCpu, Peer::Bare, (None, None)),
    Target {
        metric: Metric::BulkRate,
        against: Against::Best,
        release: Some(1.0),
        goal: Some(1.2),
    },
    versus(Metric::BulkRate, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::BulkRate, Peer::Direct, (Some(0.45), Some(0.70))),
    versus(Metric::ListCpu, Peer::Envoy, (Some(0.95), Some(0.80))),
    versus(Metric::ListCpu, Peer::Haproxy, (Some(0.90), Some(0.75))),
    versus(Metric::ListCpu, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::ListCpu, Peer::Bare, (None, None)),
    versus(Metric::EchoAdded, Peer::Haproxy, (Some(1.0), Some(0.70))),
    versus(Metric::EchoAdded, Peer::Nginx, (Some(1.0), Some(0.78))),
    versus(Metric::EchoAdded, Peer::Envoy, (Some(0.9), Some(0.65))),
    versus(Metric::EchoAdded, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::EchoAdded, Peer::Bare, (None, None)),
    versus(Metric::RequestCpu, Peer::Haproxy, (Some(0.9), Some(0.75))),
    versus(Metric::RequestCpu, Peer::Nginx, (Some(0.9), Some(0.75))),
    versus(Metric::RequestCpu, Peer::Envoy, (Some(1.0), Some(0.75))),
    versus(Metric::RequestCpu, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::RequestCpu, Peer::Bare, (None, None)),
    versus(Metric::NoisyTail, Peer::Haproxy, (Some(1.0), Some(0.5))),
    versus(Metric::NoisyTail, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::ChurnCpu, Peer::Haproxy, (Some(1.1), Some(0.9))),
    versus(Metric::ChurnCpu, Peer::Envoy, (Some(0.8), Some(0.65))),
    versus(Metric::ChurnCpu, Peer::GoLoadbalancer, (None, None)),
    versus(Metric::ChurnCpu, Peer::Bare, (None, None)),
    itself(Metric::IdleMemory, (Some(2.5), Some(0.5))),
    versus(Metric::IdleMemory, Peer::Haproxy, (None, None)),
    versus(Metric::IdleMemory, Peer::Nginx, (None, None)),
    versus(Metric::IdleMemory, Peer::Envoy, (None, None)),
    versus(Metric::IdleMemory, Peer::GoLoadbalancer, (None, None)),
    itself(Metric::BaseMemory, (Some(8.0), Some(5.0))),
    versus(Metric::BaseMemory, Peer::Haproxy, (None, Some(0.5))),
    itself(Metric::LeftMemory, (Some(20.0), None)),
    itself(Metric::KeptMemory, (None, Some(2.0))),
    itself(Metric::IdleFiles, (Some(2.0), Some(2.0))),
    versus(Metric::IdleFiles, Peer::GoLoadbalancer, (None, None)),
];

/// What a release must reach, and the goal.
type Bounds = (Option<f64>, Option<f64>);

const fn versus(metric: Metric, peer: Peer, (release, goal): Bounds) -> Target {
    Target {
        metric,
        against: Against::Peer(peer),
        release,
        goal,
    }
}

const fn itself(metric: Metric, (release, goal): Bounds) -> Target {
    Target {
        metric,
        against: Against::Itself,
        release,
        goal,
    }
}

/// How a target was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Verdict {
    /// The goal.
    Goal,
    /// What the first release must reach.
    Met,
    /// Neither.
    Missed,
    /// There is none.
    NoTarget,
}

impl Target {
    /// What was measured; none where one of the two was not.
    pub(crate) fn measured(&self, samples: &Samples) -> Option<Spread> {
        match self.against {
            Against::Peer(peer) => samples.ratio(self.metric, Peer::Trivet, peer),
            Against::Best => samples.ratio_to_best(self.metric, &PROXIES),
            Against::Itself => samples.spread(self.metric, Peer::Trivet),
        }
    }

    /// Judged as it is printed: with two decimals.
    pub(crate) fn judge(&self, value: f64) -> Verdict {
        let value = (value * 100.0).round() / 100.0;
        let reaches = |bound: f64| {
            if self.metric.rises() {
                value >= bound
            } else {
                value <= bound
            }
        };
        if self.goal.is_some_and(reaches) {
            return Verdict::Goal;
        }
        match self.release.map(reaches) {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::NoTarget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_better_but_for_throughput() {
        let cpu = versus(Metric::BulkCpu, Peer::Haproxy, (Some(0.40), Some(0.20)));
        assert_eq!(cpu.judge(0.19), Verdict::Goal);
        assert_eq!(cpu.judge(0.40), Verdict::Met);
        assert_eq!(cpu.judge(0.41), Verdict::Missed);
        let rate = versus(Metric::BulkRate, Peer::Direct, (Some(0.45), Some(0.70)));
        assert_eq!(rate.judge(0.71), Verdict::Goal);
        assert_eq!(rate.judge(0.44), Verdict::Missed);
    }

    #[test]
    fn a_value_is_judged_as_it_is_printed() {
        let files = itself(Metric::IdleFiles, (Some(2.0), Some(2.0)));
        assert_eq!(files.judge(2.0011), Verdict::Goal);
    }

    #[test]
    fn a_row_without_a_target_is_never_missed() {
        let open = versus(Metric::NoisyTail, Peer::Envoy, (None, None));
        assert_eq!(open.judge(9.0), Verdict::NoTarget);
    }

    #[test]
    fn a_goal_without_a_release_target_can_be_reached_but_not_missed() {
        let base = versus(Metric::BaseMemory, Peer::Haproxy, (None, Some(0.5)));
        assert_eq!(base.judge(0.4), Verdict::Goal);
        assert_eq!(base.judge(0.6), Verdict::NoTarget);
    }

    #[test]
    fn what_comes_with_talos_only_is_compared_and_sets_no_target() {
        assert!(!PROXIES.contains(&Peer::GoLoadbalancer));
        let against = |target: &&Target| target.against == Against::Peer(Peer::GoLoadbalancer);
        let rows: Vec<_> = TARGETS.iter().filter(against).collect();
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|row| row.release.is_none() && row.goal.is_none()));
    }

    #[test]
    fn the_goal_is_never_easier_than_the_release() {
        for target in TARGETS {
            if let (Some(release), Some(goal)) = (target.release, target.goal) {
                let harder = if target.metric.rises() {
                    goal >= release
                } else {
                    goal <= release
                };
                assert!(harder, "{target:?}");
            }
        }
    }
}
