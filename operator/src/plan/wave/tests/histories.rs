//! Random histories of a cluster: whatever happens, at most one node runs what has not soaked, and what is good arrives.

use proptest::prelude::*;

use super::*;

/// Something that happens between two passes.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The DaemonSet controller starts the pod of a node.
    Start(usize),
    /// The pod of a node whose gate is open takes, if it is not broken.
    Take(usize),
    /// A node becomes not Ready, or Ready again.
    Toggle(usize),
    /// The operator restarts: what was in memory is lost.
    Restart,
    /// Only the document of the next pass is written.
    LoseWrite,
    /// Nothing for some seconds.
    Wait(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..4_usize).prop_map(Happening::Start),
        (0..4_usize).prop_map(Happening::Take),
        (0..4_usize).prop_map(Happening::Take),
        (0..4_usize).prop_map(Happening::Toggle),
        Just(Happening::Restart),
        Just(Happening::LoseWrite),
        (1..40_u8).prop_map(Happening::Wait),
    ]
}

/// A history with a template that is broken or good.
struct History {
    cluster: Cluster,
    is_broken: bool,
    loses_write: bool,
    watched: Duration,
    rollbacks: usize,
}

impl History {
    fn new(is_broken: bool) -> Self {
        Self {
            cluster: Cluster::begun(4),
            is_broken,
            loses_write: false,
            watched: Duration::ZERO,
            rollbacks: 0,
        }
    }

    fn name(number: usize) -> String {
        format!("w{}", number + 1)
    }

    fn happen(&mut self, happening: Happening) {
        let cluster = &mut self.cluster;
        match happening {
            Happening::Start(number) => {
                if cluster.node(&Self::name(number)).newcomer.is_none() {
                    cluster.start_on(&Self::name(number));
                }
            }
            Happening::Take(number) => {
                let name = Self::name(number);
                let is_open = !cluster.facts.target.is_closed_at(&name);
                let is_broken = self.is_broken && cluster.in_place() == "b";
                let node = cluster.node(&name);
                if let Some(newcomer) = node.newcomer.as_mut().filter(|_| is_open) {
                    newcomer.is_ready = !is_broken;
                }
            }
            Happening::Toggle(number) => {
                let node = cluster.node(&Self::name(number));
                node.aside = match node.aside {
                    None => Some(Aside::NotReady),
                    Some(_) => None,
                };
            }
            Happening::Restart => self.watched = Duration::ZERO,
            Happening::LoseWrite => self.loses_write = true,
            Happening::Wait(seconds) => {
                cluster.facts.now += i64::from(seconds);
                self.watched += Duration::from_secs(seconds.into());
            }
        }
    }

    fn pass(&mut self) {
        let cluster = &mut self.cluster;
        let nodes = &cluster.facts.nodes;
        cluster.facts.is_complete = nodes.iter().all(|node| node.aside.is_some() || node.is_done())
            && nodes.iter().any(|node| node.aside.is_none());
        let decision = cluster.decide(self.watched);
        let before = cluster.in_place().to_owned();
        if std::mem::take(&mut self.loses_write) {
            cluster.facts.target = decision.target.clone();
        } else {
            cluster.write(&decision);
        }
        if before == "b" && cluster.in_place() == "a" {
            self.rollbacks += 1;
        }
    }

    /// The nodes on which pods of `b` may take.
    fn open_nodes(&self) -> usize {
        let target = &self.cluster.facts.target;
        let names = self.cluster.facts.nodes.iter().map(|node| &node.name);
        let open = names.filter(|name| target.template == "b" && !target.is_closed_at(name));
        open.count()
    }
}

proptest! {
    #[test]
    fn a_broken_template_reaches_one_node_and_is_rolled_back_once(
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        let mut history = History::new(true);
        for happening in happenings {
            history.happen(happening);
            history.pass();
            prop_assert!(history.open_nodes() <= 1, "{:?}", history.cluster.facts);
            prop_assert!(history.rollbacks <= 1);
        }
        // In the end it is rolled back, whatever has happened: some node is Ready and some pod has started.
        for number in 0..4 {
            history.cluster.node(&History::name(number)).aside = None;
            history.happen(Happening::Start(number));
        }
        for _ in 0..100 {
            history.happen(Happening::Wait(10));
            history.pass();
        }
        prop_assert_eq!(history.cluster.in_place(), "a");
        prop_assert_eq!(history.rollbacks, 1);
    }

    #[test]
    fn at_most_one_node_runs_what_has_not_soaked_and_a_gate_closes_for_ever_only_by_a_halt(
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        let mut history = History::new(false);
        for happening in happenings {
            history.happen(happening);
            history.pass();
            let facts = &history.cluster.facts;
            let has_soaked = facts.target.gate.is_open();
            prop_assert!(has_soaked || history.open_nodes() <= 1, "{facts:?}");
        }
        for number in 0..4 {
            history.cluster.node(&History::name(number)).aside = None;
        }
        for _ in 0..100 {
            for number in 0..4 {
                history.happen(Happening::Start(number));
                history.happen(Happening::Take(number));
            }
            history.happen(Happening::Wait(5));
            history.pass();
        }
        let phase = history.cluster.decide(WATCHED_LONG).phase;
        let is_over = phase.is_settled() || matches!(phase, Phase::Halted { is_rolled_back: true, .. });
        prop_assert!(is_over, "{phase:?}");
    }

    #[test]
    fn an_operator_that_has_just_started_decides_the_same_or_halts_later(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut history = History::new(false);
        for happening in happenings {
            history.happen(happening);
            history.pass();
            // All other facts come from the API, and are the same for another operator.
            let first = history.cluster.decide(WATCHED_LONG);
            let fresh = history.cluster.decide(Duration::ZERO);
            prop_assert!(fresh == first || first.phase.halt().is_some());
        }
    }
}
