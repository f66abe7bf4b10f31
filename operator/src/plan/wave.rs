//! Decides how far a new template of the proxies goes. Pure: the DaemonSet, its pods and what they report are arguments.
//!
//! The DaemonSet controller starts a pod of a new template beside the old one, on as many nodes at once as `maxParallel`
//! allows, and goes on as soon as the new ones are available. What keeps a bad template from all nodes is the gate in the
//! wire document: a pod whose gate is closed holds the listeners, unready, and so the controller waits too.
//!
//! - The gate is closed until a Ready node has a running pod of the template. Then it opens on that one node.
//! - There the template soaks. Then the gate opens everywhere, and `maxParallel` sets the pace.
//! - A bad sign halts the rollout: the DaemonSet gets the last good template back, whose pods still hold the listeners where
//!   they have given, and take back. The failed template is not tried again until another one was rolled out, or until the
//!   owner asks for it.
//! - Nodes that are not Ready, and some that cannot start the new pod (`stuck`), are named and hold nothing up. A rollout that
//!   waits for such nodes alone is over after `progressDeadlineSeconds`: its template is good.
//!
//! Nobody is protected where nobody serves: then the gate is open. All that must outlive this operator is in the document
//! and in the [`Record`] on the DaemonSet; the last good template itself is in the DaemonSet controller's own
//! ControllerRevisions, which it keeps while a pod runs with it, and which no annotation can forge.

mod facts;
mod first;
mod phase;
mod record;
mod signs;
mod stuck;
mod usage;
mod vigil;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use trivet_crds::pool::{PoolRollout, RolloutPolicy};
use trivet_crds::wire::{Gate, GatePolicy, MAX_GATE_NODES, RolloutTarget};

pub use self::facts::{Aside, Newcomer, NodeFacts, Reported, Template, WaveFacts};
use self::first::{Progress, Times};
pub use self::phase::Phase;
pub use self::record::{Halt, Record};
use self::signs::Sign;
use self::stuck::Stuck;
pub use self::vigil::Vigil;

/// How long an operator must have looked before it takes a lack of progress for a failure, or a lack of reports for none to be
/// had: after a start, or after an outage of the API, nodes get the time to go on.
const WATCHED: Duration = Duration::from_secs(30);

/// How much longer than a soak a new pod of the first node is ready before its predecessor is deleted. It is not more, because
/// the DaemonSet controller takes pods that are not ready for so long for unavailable, and replaces those at once.
const HOLD_MARGIN_SECONDS: u32 = 30;

/// By how much clocks of nodes may differ from the operator's.
const SKEW_SECONDS: i64 = 10;

/// The pause before the next look while something is expected soon.
const SOON: Duration = Duration::from_secs(5);

/// The reason where a rollout stands because its template has failed.
pub const ROLLOUT_HALTED: &str = "RolloutHalted";

/// What the owner wants of the proxies' template.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The hash of the template that the spec asks for.
    pub template: &'a str,
    /// How it is rolled out.
    pub rollout: &'a PoolRollout,
    /// The name of the owner's request to try a template once more that has failed; empty if there is none.
    pub retry: &'a str,
}

/// What the DaemonSet, the document and the record should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The template of the DaemonSet, if it is not the one that the spec asks for.
    pub template: Option<Arc<PodTemplateSpec>>,
    /// What the document says.
    pub target: RolloutTarget,
    /// What is noted.
    pub record: Record,
    /// How long a new pod must be ready before the DaemonSet controller deletes the old one of its node, where that is longer
    /// than the spec says: while the first node soaks, its old proxy stays ready to take back.
    pub min_ready_seconds: u32,
    /// On how many nodes at once the DaemonSet controller replaces pods: `maxParallel`, and nodes that are in its way.
    pub max_surge: String,
    /// How far the rollout is.
    pub phase: Phase,
    /// Whether a new template begins with this pass.
    pub begins: bool,
    /// Whether the DaemonSet stays as it is, because too little is known.
    pub is_blind: bool,
    /// When something becomes due by itself.
    pub next_look: Option<Duration>,
}

/// Decides for a pool whose owner has this `wish`.
///
/// `watched` is for how long this operator has looked without a gap.
pub fn decide(wish: &Wish<'_>, facts: &WaveFacts, watched: Duration) -> Decision {
    let waves = Waves {
        wanted: wish.template,
        retry: wish.retry,
        rollout: wish.rollout,
        facts,
        watched,
        record: facts.record.clone(),
    };
    waves.decide()
}

/// Decides for a template that is under way while nothing is known of what the owner wants: a spec that is rejected neither
/// begins a rollout nor keeps one from its end, good or bad. `None` if nothing is under way.
pub fn decide_in_place(rollout: &PoolRollout, facts: &WaveFacts, watched: Duration) -> Option<Decision> {
    let in_place = facts.in_place.as_ref()?;
    let good = &facts.record.good;
    if good.is_empty() || *good == in_place.hash || facts.is_blind {
        return None;
    }
    let wish = Wish {
        template: &in_place.hash,
        rollout,
        retry: &facts.record.retried,
    };
    let decision = decide(&wish, facts, watched);
    let template = decision.template.unwrap_or_else(|| Arc::clone(&in_place.content));
    Some(Decision {
        template: Some(template),
        ..decision
    })
}

/// A decision in the making.
struct Waves<'a> {
    wanted: &'a str,
    retry: &'a str,
    rollout: &'a PoolRollout,
    facts: &'a WaveFacts,
    watched: Duration,
    record: Record,
}

impl<'a> Waves<'a> {
    fn decide(mut self) -> Decision {
        let facts = self.facts;
        let Some(in_place) = &facts.in_place else {
            return self.put_wanted(Gate::default(), Phase::Ungated);
        };
        if facts.is_blind {
            return self.stay(in_place);
        }
        self.obey_retry();
        let is_failed = self.failed().is_some_and(|halt| halt.template == in_place.hash);
        if facts.is_complete && self.gate().is_open() && !is_failed && self.record.good != in_place.hash {
            self.record.complete(&in_place.hash);
        }
        if self.failed().is_some_and(|halt| halt.template == self.wanted) {
            return self.stand(in_place);
        }
        if self.wanted != in_place.hash {
            return self.begin(in_place);
        }
        if self.record.good == in_place.hash {
            return self.put_wanted(Gate::default(), Phase::Settled);
        }
        let is_first_install = self.record.good.is_empty() && self.gate().is_open();
        if is_first_install || !self.protects_somebody() {
            return self.put_wanted(Gate::default(), Phase::Ungated);
        }
        self.go_on(in_place)
    }

    /// Everything stays as it is: to an operator that has not read the pods it looks as if nobody served.
    fn stay(self, in_place: &Template) -> Decision {
        let (gate, target) = (self.gate(), self.facts.target.clone());
        let is_wanted = self.wanted == in_place.hash;
        let phase = match (gate.policy, gate.nodes.first()) {
            (GatePolicy::Nodes, Some(node)) => Phase::First {
                node: node.clone(),
                awaits: "the operator to read nodes and pods".to_owned(),
            },
            (GatePolicy::Closed, _) => Phase::Starts,
            (GatePolicy::Nodes | GatePolicy::Open, _) if is_wanted && self.record.good == in_place.hash => {
                Phase::Settled
            }
            (GatePolicy::Nodes | GatePolicy::Open, _) => Phase::Ungated,
        };
        let kept = self.keep_in_place(in_place, gate, phase);
        let is_known = !target.template.is_empty();
        Decision {
            target: if is_known { target } else { kept.target },
            is_blind: true,
            ..kept
        }
    }

    /// Lets a template that has failed begin once more, if the owner asks for it. A request that stands is obeyed once.
    fn obey_retry(&mut self) {
        if self.retry.is_empty() {
            self.record.retried.clear();
            return;
        }
        let is_wanted = self.failed().is_some_and(|halt| halt.template == self.wanted);
        if is_wanted && self.record.retried != self.retry {
            self.record.halted = None;
            self.retry.clone_into(&mut self.record.retried);
        }
    }

    fn failed(&self) -> Option<&Halt> {
        self.record.halted.as_ref()
    }

    fn hash(&self) -> &'a str {
        self.facts.in_place.as_ref().map_or("", |in_place| &in_place.hash)
    }

    fn is_paused(&self) -> bool {
        match self.rollout.policy {
            RolloutPolicy::Automatic => false,
            RolloutPolicy::Paused => true,
        }
    }

    /// The nodes that cannot start the template in place.
    fn stuck(&self) -> Stuck<'a> {
        let is_good = self.record.good == self.hash();
        Stuck::of(self.facts, self.rollout, is_good || self.has_soaked())
    }

    fn has_soaked(&self) -> bool {
        !self.record.soaked.is_empty() && self.record.soaked == self.hash()
    }

    /// The gate of the template in place. Where the document says nothing of it, it is open if it cannot be bad.
    fn gate(&self) -> Gate {
        let target = &self.facts.target;
        if target.template == self.hash() {
            target.gate.clone()
        } else if self.record.good.is_empty() || self.record.good == self.hash() {
            Gate::default()
        } else {
            Gate::closed()
        }
    }

    /// Whether a proxy serves that a new one could harm. One on a node that is not Ready may.
    fn protects_somebody(&self) -> bool {
        self.facts.nodes.iter().any(|node| {
            let serves = node.has_earlier || node.newcomer.as_ref().is_some_and(|newcomer| newcomer.is_ready);
            serves || node.aside == Some(Aside::NotReady)
        })
    }

    /// The template that the spec asks for.
    fn put_wanted(self, gate: Gate, phase: Phase) -> Decision {
        let hash = self.wanted.to_owned();
        self.with(None, hash, gate, phase)
    }

    /// The template in place, whatever the spec asks for.
    fn keep_in_place(self, in_place: &Template, gate: Gate, phase: Phase) -> Decision {
        let is_other = self.wanted != in_place.hash;
        let template = is_other.then(|| Arc::clone(&in_place.content));
        self.with(template, in_place.hash.clone(), gate, phase)
    }

    fn with(
        self,
        template: Option<Arc<PodTemplateSpec>>,
        hash: String,
        gate: Gate,
        phase: Phase,
    ) -> Decision {
        let is_tried =
            matches!(phase, Phase::Starts | Phase::First { .. }) && self.are_old_ones_settled(&hash);
        let (spec, hold) = (self.rollout.min_ready_seconds, self.hold_seconds());
        let max_surge = self.max_surge(&hash, &phase);
        let next_look = self.next_look(&phase);
        Decision {
            template,
            max_surge,
            target: RolloutTarget { template: hash, gate },
            record: self.record,
            min_ready_seconds: if is_tried { spec.max(hold) } else { spec },
            next_look,
            phase,
            begins: false,
            is_blind: false,
        }
    }

    fn max_surge(&self, template: &str, phase: &Phase) -> String {
        let makes_room = match phase {
            Phase::Ungated
            | Phase::Starts
            | Phase::First { .. }
            | Phase::Rest { .. }
            | Phase::RollsBack(_) => self.hash() == template,
            Phase::Settled | Phase::Paused | Phase::Halted { .. } => false,
        };
        let stuck = if makes_room {
            self.stuck()
        } else {
            Stuck::default()
        };
        stuck.max_surge(self.rollout, self.facts.desired)
    }

    /// When something becomes due by itself: among others, a node that does not start its pod is stuck soon.
    fn next_look(&self, phase: &Phase) -> Option<Duration> {
        match phase {
            Phase::Starts | Phase::First { .. } | Phase::RollsBack(_) => Some(SOON),
            Phase::Rest { .. } => stuck::is_soon(self.facts).then_some(SOON),
            Phase::Settled | Phase::Ungated | Phase::Paused | Phase::Halted { .. } => None,
        }
    }

    fn hold_seconds(&self) -> u32 {
        self.facts.soak.saturating_add(HOLD_MARGIN_SECONDS)
    }

    /// Whether the pods of other templates than this one have been ready for longer than a new one is held. The DaemonSet
    /// controller takes younger ones for unavailable, and replaces those on all nodes at once.
    fn are_old_ones_settled(&self, template: &str) -> bool {
        let limit = self
            .facts
            .now
            .saturating_sub(i64::from(self.hold_seconds()).saturating_add(SKEW_SECONDS));
        let is_in_place = self.hash() == template;
        self.facts.nodes.iter().all(|node| {
            let newcomer = node.newcomer.as_ref().and_then(|newcomer| newcomer.ready_at);
            let ready_at = if is_in_place {
                node.earlier_ready_at
            } else {
                newcomer.max(node.earlier_ready_at)
            };
            ready_at.is_none_or(|at| at <= limit)
        })
    }

    /// The spec asks for another template than the one in place.
    fn begin(mut self, in_place: &Template) -> Decision {
        let now = self.facts.now;
        if self.wanted == self.record.good {
            self.record.begin(now);
            return self.put_wanted(Gate::default(), Phase::Ungated);
        }
        if !self.protects_somebody() {
            self.record.begin(now);
            // What does not serve anywhere is not worth to come back.
            self.record.good.clear();
            return self.put_wanted(Gate::default(), Phase::Ungated);
        }
        if self.is_paused() {
            let gate = self.gate();
            return self.keep_in_place(in_place, gate, Phase::Paused);
        }
        if self.record.good.is_empty() {
            // The best that is known, such as after an upgrade of an operator that noted nothing.
            self.record.good.clone_from(&in_place.hash);
        }
        self.record.begin(now);
        Decision {
            begins: true,
            ..self.put_wanted(Gate::closed(), Phase::Starts)
        }
    }

    /// A template is under way.
    fn go_on(mut self, in_place: &Template) -> Decision {
        let facts = self.facts;
        // A clock that was set back must not hold anything up.
        if self.record.since == 0 || self.record.since > facts.now {
            self.record.advance(facts.now);
        }
        if self.record.paused && !self.is_paused() {
            self.record.advance(facts.now);
        }
        self.record.paused = self.is_paused();
        if let Some(sign) = signs::any(facts, &in_place.hash, self.has_soaked()) {
            return self.halt(in_place, sign);
        }
        let gate = self.gate();
        match (gate.policy, gate.nodes.first()) {
            (GatePolicy::Nodes, Some(node)) if !self.has_soaked() => self.first(in_place, node),
            (GatePolicy::Nodes | GatePolicy::Open, _) => self.rest(in_place),
            (GatePolicy::Closed, _) => self.start(in_place),
        }
    }

    /// The gate opens on the first Ready node with a running pod, best on one that has reported nothing bad before.
    fn start(mut self, in_place: &Template) -> Decision {
        if self.is_paused() {
            return self.put_wanted(Gate::closed(), Phase::Paused);
        }
        let facts = self.facts;
        let runs = |node: &&NodeFacts| node.counted().is_some_and(|newcomer| newcomer.is_running);
        let is_troubled = |node: &NodeFacts| {
            let report = node.report.as_ref();
            report.is_some_and(|report| !(report.not_up.is_empty() && report.not_listening.is_empty()))
        };
        let candidates = facts.nodes.iter().filter(runs);
        let first = candidates.min_by_key(|node| (!node.is_done(), is_troubled(node), &node.name));
        if let Some(node) = first {
            self.record.advance(facts.now);
            self.record.ready_since = 0;
            return self.first(in_place, &node.name);
        }
        let ready: Vec<_> = facts.nodes.iter().filter(|node| node.aside.is_none()).collect();
        if !ready.is_empty() && self.is_overdue() {
            let newcomers = ready.iter().filter_map(|node| Some((node, node.counted()?)));
            let with_words = newcomers.max_by_key(|(_, newcomer)| newcomer.words.is_some());
            let (node, words) = with_words.map_or_else(Default::default, |(node, newcomer)| {
                (node.name.clone(), newcomer.words.clone().unwrap_or_default())
            });
            let cause = format!("no pod of it has started in time {words}")
                .trim_end()
                .to_owned();
            return self.halt(in_place, Sign { node, cause });
        }
        self.put_wanted(Gate::closed(), Phase::Starts)
    }

    /// One node has the template.
    fn first(mut self, in_place: &Template, name: &str) -> Decision {
        let facts = self.facts;
        let node = facts.nodes.iter().find(|node| node.name == name);
        let is_of_use = |node: &&NodeFacts| {
            node.aside != Some(Aside::RunsNoPods) && (node.aside.is_some() || !self.stuck().has(node))
        };
        let Some(node) = node.filter(is_of_use) else {
            // It is gone, or cannot start the pod that it has now. Another one is the first.
            return self.start(in_place);
        };
        if node.aside == Some(Aside::NotReady) {
            let cause = "it is not Ready since it has the new proxy".to_owned();
            let node = name.to_owned();
            return self.halt(in_place, Sign { node, cause });
        }
        if !node.is_done() {
            self.record.ready_since = 0;
        } else if self.record.ready_since == 0 || self.record.ready_since > facts.now {
            self.record.ready_since = facts.now;
        }
        match first::progress(node, &in_place.hash, self.times(), facts) {
            Progress::Awaits(awaits) => self.only(name, awaits),
            Progress::Failed(cause) if self.watched >= WATCHED => {
                let node = name.to_owned();
                self.halt(in_place, Sign { node, cause })
            }
            Progress::Failed(cause) => self.only(name, cause),
            Progress::Soaked if facts.lacks_reports && self.watched < WATCHED => {
                self.only(name, "the operator to read the proxies' reports".to_owned())
            }
            Progress::Soaked => {
                self.record.ready_since = 0;
                self.record.advance(facts.now);
                self.rest(in_place)
            }
        }
    }

    fn only(self, node: &str, awaits: String) -> Decision {
        let phase = Phase::First {
            node: node.to_owned(),
            awaits,
        };
        self.put_wanted(Gate::of_node(node), phase)
    }

    fn times(&self) -> Times {
        let now = self.facts.now;
        let ready = now.saturating_sub(self.record.ready_since);
        Times {
            open: now.saturating_sub(self.record.since),
            ready: (self.record.ready_since != 0).then_some(ready),
            soak: self.facts.soak.max(self.rollout.min_ready_seconds).into(),
        }
    }

    /// The other nodes get it.
    fn rest(mut self, in_place: &Template) -> Decision {
        let facts = self.facts;
        let done: BTreeSet<_> = facts
            .nodes
            .iter()
            .filter(|node| node.is_done())
            .map(|node| &node.name)
            .collect();
        self.record.soaked.clone_from(&in_place.hash);
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        if count > self.record.done {
            self.record.done = count;
            self.record.advance(facts.now);
        }
        if self.is_paused() && !done.is_empty() && done.len() <= MAX_GATE_NODES {
            let nodes = done.into_iter().cloned().collect();
            let policy = GatePolicy::Nodes;
            return self.put_wanted(Gate { policy, nodes }, Phase::Paused);
        }
        let stuck = self.stuck();
        let awaited: Vec<_> = facts
            .nodes
            .iter()
            .filter(|node| node.aside.is_none() && !node.is_done() && !stuck.has(node))
            .collect();
        let names = stuck.names();
        if awaited.is_empty() && !names.is_empty() && !done.is_empty() && self.is_overdue() {
            self.record.complete(&in_place.hash);
            return self.put_wanted(Gate::default(), Phase::Settled);
        }
        if let Some(node) = awaited.first().filter(|_| self.is_overdue()) {
            let words = node
                .newcomer
                .as_ref()
                .map(Newcomer::in_its_words)
                .unwrap_or_default();
            let sign = Sign {
                node: node.name.clone(),
                cause: format!("it has no ready proxy of the new template in time{words}"),
            };
            return self.halt(in_place, sign);
        }
        let phase = Phase::Rest {
            done: done.len(),
            awaited: awaited.into_iter().map(|node| node.name.clone()).collect(),
            stuck: names,
        };
        self.put_wanted(Gate::default(), phase)
    }

    /// Whether there was no progress for too long, as far as this operator has seen.
    fn is_overdue(&self) -> bool {
        let limit = i64::from(self.rollout.progress_deadline_seconds)
            .saturating_add(self.rollout.min_ready_seconds.into());
        let idle = self.facts.now.saturating_sub(self.record.since);
        !self.is_paused() && idle > limit && self.watched >= WATCHED
    }

    /// The template in place has failed.
    fn halt(mut self, in_place: &Template, Sign { node, cause }: Sign) -> Decision {
        self.record.begin(0);
        self.record.halted = Some(Halt {
            template: in_place.hash.clone(),
            node,
            cause,
        });
        self.stand(in_place)
    }

    /// The template that the spec asks for has failed.
    fn stand(self, in_place: &Template) -> Decision {
        let halt = self.failed().cloned().unwrap_or_default();
        let is_back = in_place.hash == self.record.good;
        if is_back {
            let phase = if self.facts.is_complete {
                let is_rolled_back = true;
                Phase::Halted { halt, is_rolled_back }
            } else {
                Phase::RollsBack(halt)
            };
            return self.keep_in_place(in_place, Gate::default(), phase);
        }
        if let Some(good) = &self.facts.good {
            let good = Arc::clone(good);
            let hash = self.record.good.clone();
            return self.with(Some(good), hash, Gate::default(), Phase::RollsBack(halt));
        }
        let gate = if halt.template == in_place.hash {
            Gate::closed()
        } else {
            self.gate()
        };
        let is_rolled_back = false;
        self.keep_in_place(in_place, gate, Phase::Halted { halt, is_rolled_back })
    }
}

#[cfg(test)]
mod tests;
