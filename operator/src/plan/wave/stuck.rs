//! Nodes that are Ready and cannot start the new proxy, and what they cost the others: nothing.
//!
//! A pod that has never run says nothing of its template. What keeps one node from starting it, such as a full disk or an
//! image that this node cannot pull, is that node's own trouble: it is named with kubelet's words, keeps its old proxy, is
//! not waited for, and gets the new one by itself once it is repaired. So it neither holds a rollout up nor makes it fail.
//! That holds while such nodes are at most half of all, and before the soak while they are at most [`TRIES`]: what most
//! nodes cannot start is bad. A pod that has run and failed is always a sign against the template.
//!
//! The DaemonSet controller (`rollingUpdate` in its `update.go`, Kubernetes 1.34) counts each node with a ready old pod
//! and a new one that is not available against `maxSurge`, for ever. So `maxSurge` is `maxParallel` and, besides, the number
//! of stuck nodes: as many healthy ones as the owner has asked for change at once. A node that is not Ready has an old pod
//! that is not ready either. The controller replaces that without counting it.

use trivet_crds::pool::PoolRollout;

use super::facts::{Aside, Newcomer, NodeFacts, WaveFacts};

/// How old a pod is that kubelet says it cannot start, and is then waited for no longer. Kubelet retries within this time.
const STUCK_SECONDS: i64 = 15;

/// How many nodes that cannot start the template make room for another before it has soaked.
const TRIES: usize = 3;

/// The nodes that cannot start the template in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Stuck<'a>(Vec<&'a NodeFacts>);

impl<'a> Stuck<'a> {
    /// The nodes of `facts`; none if they are too many for the trouble to be their own.
    pub(super) fn of(facts: &'a WaveFacts, rollout: &PoolRollout, has_soaked: bool) -> Self {
        let runs_pods = |node: &&NodeFacts| node.aside != Some(Aside::RunsNoPods);
        let is_stuck = |node: &&NodeFacts| {
            let newcomer = node.newcomer.as_ref();
            newcomer.is_some_and(|newcomer| newcomer.is_stuck(facts.now, rollout))
        };
        let nodes: Vec<_> = facts.nodes.iter().filter(runs_pods).collect();
        let half = nodes.len() / 2;
        let limit = if has_soaked { half } else { half.min(TRIES) };
        let stuck: Vec<_> = nodes.into_iter().filter(is_stuck).collect();
        if stuck.len() > limit {
            return Self::default();
        }
        Self(stuck)
    }

    /// Whether this node is one of them.
    pub(super) fn has(&self, node: &NodeFacts) -> bool {
        self.0.iter().any(|stuck| stuck.name == node.name)
    }

    /// The names of those that are Ready.
    pub(super) fn names(&self) -> Vec<String> {
        let ready = self.0.iter().filter(|node| node.aside.is_none());
        ready.map(|node| node.name.clone()).collect()
    }

    /// How many nodes may have a pod of each template at once, as `maxParallel` is written.
    pub(super) fn max_surge(&self, rollout: &PoolRollout, desired: u32) -> String {
        let in_the_way = self.0.iter().filter(|node| node.has_earlier).count();
        let in_the_way = u32::try_from(in_the_way).unwrap_or(u32::MAX);
        match parallel(&rollout.max_parallel, desired) {
            Some(parallel) if in_the_way > 0 => parallel.saturating_add(in_the_way).to_string(),
            Some(_) | None => rollout.max_parallel.clone(),
        }
    }
}

/// Whether a node that has not started its pod yet may be stuck soon.
pub(super) fn is_soon(facts: &WaveFacts) -> bool {
    let youngest = facts.now.saturating_sub(2 * STUCK_SECONDS);
    let mut waiting = facts.nodes.iter().filter_map(NodeFacts::counted);
    waiting.any(|newcomer| !newcomer.has_started && newcomer.created_at.is_some_and(|at| at > youngest))
}

/// On how many of `desired` nodes the owner lets proxies change at once. A percentage is rounded up, as the DaemonSet
/// controller does.
fn parallel(max_parallel: &str, desired: u32) -> Option<u32> {
    match max_parallel.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.parse().ok()?;
            let nodes = percent.checked_mul(desired.into())?.div_ceil(100);
            u32::try_from(nodes).ok()
        }
        None => max_parallel.parse().ok(),
    }
}

impl Newcomer {
    /// Whether its node cannot start it: it has never run, and kubelet says why, or has not started it in all the time in
    /// which a rollout must make progress.
    fn is_stuck(&self, now: i64, rollout: &PoolRollout) -> bool {
        let Some(age) = self.created_at.map(|at| now.saturating_sub(at)) else {
            return false;
        };
        let limit = match &self.words {
            Some(_) => STUCK_SECONDS,
            None => i64::from(rollout.progress_deadline_seconds),
        };
        !self.has_started && !self.is_ready && age >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, newcomer: Newcomer) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            newcomer: Some(newcomer),
            has_earlier: true,
            ..NodeFacts::default()
        }
    }

    /// A pod that kubelet cannot start.
    fn waits(created_at: i64) -> Newcomer {
        Newcomer {
            created_at: Some(created_at),
            words: Some("no space left on device".to_owned()),
            ..Newcomer::default()
        }
    }

    fn facts(stuck: usize, all: usize) -> WaveFacts {
        let newcomer = |number| {
            if number < stuck {
                waits(0)
            } else {
                Newcomer::default()
            }
        };
        WaveFacts {
            now: STUCK_SECONDS,
            desired: u32::try_from(all).unwrap(),
            nodes: (0..all)
                .map(|number| node(&format!("w{number}"), newcomer(number)))
                .collect(),
            ..WaveFacts::default()
        }
    }

    #[test]
    fn only_a_pod_that_never_ran_is_stuck_and_soon_where_kubelet_says_why() {
        let rollout = PoolRollout::default();
        let is_stuck = |newcomer: Newcomer, now| newcomer.is_stuck(now, &rollout);
        assert!(is_stuck(waits(1000), 1015));
        assert!(!is_stuck(waits(1000), 1014), "kubelet retries");
        let silent = Newcomer {
            words: None,
            ..waits(1000)
        };
        assert!(!is_stuck(silent.clone(), 1599), "it may pull a large image");
        assert!(is_stuck(silent, 1600));
        let ran = Newcomer {
            has_started: true,
            ..waits(1000)
        };
        assert!(!is_stuck(ran, 9000), "that is a sign");
    }

    #[test]
    fn at_most_half_of_the_nodes_are_excused_and_before_the_soak_three() {
        let count = |stuck, all, has_soaked| {
            let facts = facts(stuck, all);
            Stuck::of(&facts, &PoolRollout::default(), has_soaked).0.len()
        };
        assert_eq!(count(1, 2, true), 1);
        assert_eq!(count(2, 3, true), 0, "most nodes cannot start it");
        assert_eq!(count(50, 100, true), 50);
        assert_eq!(count(3, 100, false), 3);
        assert_eq!(count(4, 100, false), 0);
    }

    #[test]
    fn the_surge_grows_by_the_nodes_that_are_in_the_way() {
        let surge = |stuck, all, max_parallel: &str| {
            let facts = facts(stuck, all);
            let rollout = PoolRollout {
                max_parallel: max_parallel.to_owned(),
                ..PoolRollout::default()
            };
            Stuck::of(&facts, &rollout, true).max_surge(&rollout, facts.desired)
        };
        assert_eq!(surge(0, 5, "10%"), "10%");
        assert_eq!(surge(1, 5, "10%"), "2");
        assert_eq!(surge(2, 25, "10%"), "5");
        assert_eq!(surge(1, 5, "2"), "3");
        // Its old pod is not ready: the controller has not counted it.
        let mut facts = facts(1, 5);
        facts.nodes[0].has_earlier = false;
        let rollout = PoolRollout::default();
        assert_eq!(Stuck::of(&facts, &rollout, true).max_surge(&rollout, 5), "10%");
    }
}
