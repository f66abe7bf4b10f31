//! The balancer's decisions: which path gets a connection, which is judged how, whose connections are cut.
//!
//! A path is one address of a member. Health, proof and connections are kept for each path: what happens on one says nothing
//! about another. Load is shared by member, over all its paths.
//!
//! Pure: it is told what happened and when, and answers what to do. It owns no socket, reads no clock, starts no
//! task and draws no random number, so that its tests and simulations are its whole truth.

mod choice;
mod cross_check;
pub mod cuts;
mod decision;
mod disabled;
pub mod drain;
mod event;
pub mod health;
pub mod hedge;
pub mod hold_down;
pub mod last_resort;
mod member;
mod membership;
mod path;
pub mod place;
pub mod rank;
pub mod schedule;
pub mod stranded;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

pub use self::{
    choice::Group,
    decision::{Change, Decision},
    disabled::Disabled,
    event::{Event, Target},
    member::best,
    path::{PathId, PathKey, Standing, View},
};
use self::{
    health::{Health, Outcome, Policy, Reason, State},
    hedge::{budget::HedgeBudget, delay::HedgeDelay},
    path::Path,
};

/// Suspicion asks for an extra probe at most this often per path, whatever the traffic.
const EXTRA_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A path that may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: PathId,
    /// Where.
    pub address: SocketAddr,
    /// Whether better ones are dialled before it.
    pub group: Group,
}

/// All that a proxy knows and decides about its upstreams.
#[derive(Debug)]
pub struct Balance {
    node: String,
    policy: Policy,
    /// Whether members take turns, whatever connections they have.
    takes_turns: bool,
    next: u64,
    turns: u64,
    paths: BTreeMap<PathId, Path>,
    hedge_delay: HedgeDelay,
    hedge_budget: HedgeBudget,
    moved: Option<Instant>,
    earlier: Vec<Target>,
    further: Vec<Target>,
    /// Since when no member may answer a new connection, as far as that was looked at.
    unserved_since: Option<Instant>,
    disabled: Disabled,
    /// Paths whose connections are drained once one that is to be used answers: they were the last resort.
    drain_again: BTreeSet<PathId>,
}

impl Balance {
    /// A balancer with no paths on the node of this name.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            policy: Policy {
                failure_threshold: 2,
                success_threshold: 2,
                probe_interval: schedule::LONGEST_INTERVAL,
            },
            takes_turns: false,
            next: 0,
            turns: 0,
            paths: BTreeMap::new(),
            hedge_delay: HedgeDelay::default(),
            hedge_budget: HedgeBudget::default(),
            moved: None,
            earlier: Vec::new(),
            further: Vec::new(),
            unserved_since: None,
            disabled: Disabled::default(),
            drain_again: BTreeSet::new(),
        }
    }

    /// Whether the members that are equally well take turns from now on, whatever connections they have and wherever they are:
    /// successive connections then reach every one of them. Otherwise the one with the fewest comes first.
    pub fn take_turns(&mut self, takes_turns: bool) {
        self.takes_turns = takes_turns;
    }

    /// Takes in what happened at `now` and says what to do.
    pub fn observe(&mut self, event: Event, now: Instant) -> Vec<Decision> {
        match event {
            Event::Configured {
                targets,
                disabled,
                policy,
            } => {
                self.disabled = disabled;
                self.policy = policy;
                self.unserved_since = None;
                self.configure(targets, now)
            }
            Event::Remembered { earlier, further } => {
                self.earlier = earlier;
                self.know_further(further)
            }
            Event::Elapsed => self.look_further(now),
            Event::Probed {
                id,
                asked,
                verified,
                outcome,
            } => {
                // Also of one that is held down: else, with none Up, clients would stay away from it for no reason.
                if outcome.is_good() {
                    self.trust(id);
                }
                if outcome.is_answer() {
                    self.hear(id, now);
                }
                let mut decisions = self.prove(id, verified);
                decisions.extend(self.judge(id, now, |health, at| health.fold(outcome, asked, at)));
                decisions.extend(self.follow_last_resort(id, outcome.is_answer(), now));
                decisions
            }
            Event::ProbeOverdue(id) => self.late(id, now),
            Event::ProbeUnsent(id) => {
                let mut decisions = self.judge(id, now, |health, (now, _)| health.stay_unasked(now));
                decisions.extend(self.follow_last_resort(id, false, now));
                decisions
            }
            Event::Refused(id) => self.refused(id, now),
            Event::OpenOverdue(id) => self.suspect(id, now),
            Event::ReplyOverdue(id) => self.ask_again(id, now),
            Event::Replied(id, at) => {
                if let Some(path) = self.paths.get_mut(&id) {
                    path.health.reply(at);
                }
                Vec::new()
            }
            Event::Answered(id, elapsed) => {
                self.hedge_delay.learn(elapsed);
                self.trust(id);
                self.hear(id, now);
                self.cuts()
            }
            Event::Opened(id) => {
                self.opened(id);
                Vec::new()
            }
            Event::Closed(id) => {
                self.closed(id);
                self.forget(id)
            }
        }
    }

    /// Where to dial for a new connection, the best first: see [`choice`].
    pub fn candidates(&self) -> Vec<Candidate> {
        let usable = self.paths.iter().filter(|(_, path)| self.may_dial(path));
        let facts: Vec<_> = usable.map(|(id, path)| choice::Facts::of(*id, path)).collect();
        choice::order(&facts, self.needs_last_resort(), self.takes_turns)
    }

    /// Whether new connections may go there, if only as a last resort.
    pub fn is_usable(&self, id: PathId) -> bool {
        self.paths.get(&id).is_some_and(|path| self.may_dial(path))
    }

    /// Whether a path is expected to answer a new connection.
    pub fn expects_answers(&self) -> bool {
        let mut paths = self.paths.values();
        paths.any(|path| self.may_dial(path) && path.health.answers())
    }

    /// What a path may get, and why; none once it is forgotten.
    pub fn health(&self, id: PathId) -> Option<(State, Reason)> {
        let health = &self.paths.get(&id)?.health;
        Some((health.state(), health.reason()))
    }

    /// Whether the connections of a path are moved to others, because its member is stranded.
    pub fn is_moving(&self, id: PathId) -> bool {
        self.paths.get(&id).is_some_and(|path| path.moving)
    }

    /// Another process of this node drains a path, and this one goes on with that. Returns whether it drains here too.
    pub fn goes_on_draining(&mut self, id: PathId) -> bool {
        self.drain_again.remove(&id);
        self.paths.get(&id).is_some_and(Path::is_leaving)
    }

    /// A connection has come to a path that another process of this node does not drain. Returns whether the path drains at once:
    /// it leaves, and there is no active path whose next answer would begin that.
    pub fn begins_draining(&mut self, id: PathId) -> bool {
        !self.paths.values().any(Path::is_active) && self.goes_on_draining(id)
    }

    /// All paths as they are.
    pub fn view(&self) -> Vec<View> {
        self.paths.iter().map(|(id, path)| path.view(*id)).collect()
    }

    fn prove(&mut self, id: PathId, verified: bool) -> Vec<Decision> {
        match self.paths.get_mut(&id) {
            Some(path) if verified && !path.proven => {
                path.proven = true;
                vec![Decision::Remember(id, path.key.clone())]
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn judge(
        &mut self,
        id: PathId,
        now: Instant,
        fold: impl FnOnce(&mut Health, (Instant, Policy)),
    ) -> Vec<Decision> {
        let policy = self.policy;
        let Some(member) = self.paths.get(&id).map(|path| path.member) else {
            return Vec::new();
        };
        let before = (self.health(id), self.health_of_member(member));
        if let Some(path) = self.paths.get_mut(&id) {
            fold(&mut path.health, (now, policy));
        }
        let after = (self.health(id), self.health_of_member(member));
        let (Some(path), Some(member)) = (change(before.0, after.0), change(before.1, after.1)) else {
            return Vec::new();
        };
        let mut decisions = Vec::new();
        if path.from != path.to {
            decisions.push(Decision::Tell { id, path, member });
        }
        decisions.extend(self.cuts());
        if path.is_of_state() && path.from.0 == State::Up {
            decisions.extend(self.probe_siblings(id));
        }
        if path.is_of_state() && path.to.0 == State::Down {
            let witnesses = self.cross_check_after_a_fall(id, now);
            let asked_already = decisions.clone();
            decisions.extend(
                witnesses
                    .into_iter()
                    .filter(|probe| !asked_already.contains(probe)),
            );
        }
        decisions.extend(self.moves(now));
        decisions
    }

    /// A probe of a path is overdue.
    fn late(&mut self, id: PathId, now: Instant) -> Vec<Decision> {
        let interval = self.policy.probe_interval;
        let Some(late) = self.paths.get_mut(&id) else {
            return Vec::new();
        };
        late.health.wait();
        let rested = |last: Instant| now.saturating_duration_since(last) >= interval;
        let known = schedule::is_known_overdue((late.health.state(), late.health.reason()));
        if known || !late.called.is_none_or(rested) {
            return Vec::new();
        }
        let called = late.called.replace(now);
        self.cross_check(id, called, now)
    }

    fn refused(&mut self, id: PathId, now: Instant) -> Vec<Decision> {
        let was_up = self
            .paths
            .get(&id)
            .is_some_and(|path| path.health.state() == State::Up);
        let mut decisions = self.judge(id, now, |health, at| health.fold(Outcome::Refused, now, at));
        if was_up {
            decisions.push(Decision::Probe(id));
        }
        decisions.extend(self.follow_last_resort(id, false, now));
        decisions
    }

    fn suspect(&mut self, id: PathId, now: Instant) -> Vec<Decision> {
        if let Some(path) = self.paths.get_mut(&id) {
            path.suspect = true;
        }
        self.ask_again(id, now)
    }

    /// Traffic notices a hung server before the timer does; how often it may say so does not grow with the traffic.
    fn ask_again(&mut self, id: PathId, now: Instant) -> Vec<Decision> {
        let Some(path) = self.paths.get_mut(&id) else {
            return Vec::new();
        };
        let rested = |last: Instant| now.saturating_duration_since(last) >= EXTRA_PROBE_INTERVAL;
        if !path.extra_probe.is_none_or(rested) {
            return Vec::new();
        }
        path.extra_probe = Some(now);
        vec![Decision::Probe(id)]
    }

    fn trust(&mut self, id: PathId) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.suspect = false;
        }
    }

    fn opened(&mut self, id: PathId) {
        self.turns += 1;
        if let Some(path) = self.paths.get_mut(&id) {
            path.connections = path.connections.saturating_add(1);
            path.turn = self.turns;
            // Its drain may be over by now.
            if path.is_leaving() {
                self.drain_again.insert(id);
            }
        }
    }

    fn closed(&mut self, id: PathId) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.connections = path.connections.saturating_sub(1);
        }
    }
}

fn change(from: Option<(State, Reason)>, to: Option<(State, Reason)>) -> Option<Change> {
    Some(Change { from: from?, to: to? })
}
