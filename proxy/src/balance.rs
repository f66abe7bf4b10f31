//! The balancer's decisions: which upstream gets a connection, which is judged how, whose connections are cut.
//!
//! Pure: it is told what happened and when, and answers what to do. It owns no socket, reads no clock, starts no
//! task and draws no random number, so that its tests and simulations are its whole truth.

pub mod choice;
mod cross_check;
pub mod cuts;
mod decision;
pub mod drain;
mod event;
pub mod health;
pub mod hedge;
pub mod hold_down;
pub mod last_resort;
pub mod place;
pub mod rank;
pub mod schedule;
pub mod stranded;
#[cfg(test)]
mod tests;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use self::{
    cross_check::CrossCheckBudget,
    health::{Health, Outcome, Policy, Reason, State},
    hedge::{budget::HedgeBudget, delay::HedgeDelay},
    place::Distance,
    upstream::Upstream,
};
pub use self::{
    decision::Decision,
    event::{Event, Target},
    upstream::View,
};

/// Suspicion asks for an extra probe at most this often per upstream, whatever the traffic.
const EXTRA_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// One upstream for as long as this process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(u64);

/// What makes a member the same upstream across documents: a member that moved is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The member's name.
    pub name: String,
    /// Its addresses, the preferred first, never empty.
    pub addresses: Vec<SocketAddr>,
}

/// What the pool's owner wants of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets connections.
    Active,
    /// It gets no new ones, and its old ones are closed gradually.
    Draining,
    /// As Draining; and it is forgotten with its last connection.
    Removed,
    /// A member of an earlier document: used while none of the current one's answers.
    LastResort,
}

/// An upstream that may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: UpstreamId,
    /// Where.
    pub address: SocketAddr,
}

/// All that a proxy knows and decides about its upstreams.
#[derive(Debug)]
pub struct Balance {
    node: String,
    policy: Policy,
    next: u64,
    turns: u64,
    upstreams: BTreeMap<UpstreamId, Upstream>,
    hedge_delay: HedgeDelay,
    hedge_budget: HedgeBudget,
    moved: Option<Instant>,
    earlier: Vec<Target>,
    /// Upstreams whose connections are drained once a member that is to be used answers: they were the last resort.
    drain_again: BTreeSet<UpstreamId>,
}

impl Balance {
    /// A balancer with no upstreams on the node of this name.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            policy: Policy {
                failure_threshold: 2,
                success_threshold: 2,
                probe_interval: schedule::LONGEST_INTERVAL,
            },
            next: 0,
            turns: 0,
            upstreams: BTreeMap::new(),
            hedge_delay: HedgeDelay::default(),
            hedge_budget: HedgeBudget::default(),
            moved: None,
            earlier: Vec::new(),
            drain_again: BTreeSet::new(),
        }
    }

    /// Takes in what happened at `now` and says what to do.
    pub fn observe(&mut self, event: Event, now: Instant) -> Vec<Decision> {
        match event {
            Event::Configured(targets, policy) => self.configure(targets, policy, now),
            Event::Remembered(earlier) => {
                self.earlier = earlier;
                Vec::new()
            }
            Event::Probed {
                id,
                asked,
                via,
                verified,
                outcome,
            } => {
                // Also of one that is held down: else, with nobody Up, clients would stay away from it for no reason.
                if outcome.is_good() {
                    self.trust(id);
                }
                if outcome.is_answer() {
                    self.hear(id, now);
                }
                let mut decisions = self.prove(id, verified);
                decisions.extend(self.judge(id, now, |health, at| health.fold(outcome, asked, via, at)));
                decisions.extend(self.follow_last_resort(id, outcome.is_answer(), now));
                decisions
            }
            Event::ProbeOverdue(id) => self.late(id, now),
            Event::Refused(id) => self.refused(id, now),
            Event::OpenOverdue(id) => self.suspect(id, now),
            Event::ReplyOverdue(id) => self.ask_again(id, now),
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

    /// Where to dial for a new connection, the best first. First every upstream once, by the address that answered
    /// last, then the other addresses. Members that are to be used come before the last resort, unless none of them
    /// answers; unproven ones come last.
    pub fn candidates(&self) -> Vec<Candidate> {
        let of = |group: fn(&Upstream) -> bool| {
            let usable = self.upstreams.iter().filter(|(_, upstream)| upstream.is_usable());
            let found = usable.filter(|(_, upstream)| group(upstream));
            choice::order(found.map(|(id, upstream)| upstream.facts(*id)).collect())
        };
        let proven = of(|upstream| !upstream.is_last_resort() && upstream.proven);
        let unproven = of(|upstream| !upstream.is_last_resort() && !upstream.proven);
        let resorts = of(Upstream::is_last_resort);
        let ordered = if self.needs_last_resort() {
            [resorts, proven, unproven]
        } else {
            [proven, resorts, unproven]
        }
        .concat();
        let known = ordered
            .iter()
            .filter_map(|id| Some((*id, self.upstreams.get(id)?)));
        let first = known
            .clone()
            .filter_map(|(id, upstream)| Some((id, upstream.preferred()?)));
        let others = known.flat_map(|(id, upstream)| {
            let preferred = upstream.preferred();
            let rest = upstream
                .identity
                .addresses
                .iter()
                .filter(move |address| Some(**address) != preferred);
            rest.map(move |address| (id, *address))
        });
        first
            .chain(others)
            .map(|(id, address)| Candidate { id, address })
            .collect()
    }

    /// How long to wait for the first byte before the first flight is sent to another upstream as well.
    pub fn hedge_delay(&self, configured: Duration) -> Duration {
        self.hedge_delay.get(configured)
    }

    /// Counts an opened connection, which earns part of a hedge.
    pub fn earn_hedge(&mut self) {
        self.hedge_budget.earn();
    }

    /// Whether the first flight of a client, which nobody of `asked` has answered since it was sent to the last of them,
    /// may be sent to another. That is free where they are known to be silent, or where somebody else was heard meanwhile
    /// and none of them was; otherwise they may be slow, and it costs budget: a slow cluster must not be made slower.
    pub fn spend_hedge(&mut self, asked: &[UpstreamId], since: Instant) -> bool {
        let heard = |upstream: &Upstream| upstream.heard.is_some_and(|heard| heard >= since);
        let (mut any_of_them, mut another) = (false, false);
        for (id, upstream) in &self.upstreams {
            if asked.contains(id) {
                any_of_them |= heard(upstream);
            } else {
                another |= upstream.is_usable() && heard(upstream);
            }
        }
        another && !any_of_them || self.are_silent(asked) || self.hedge_budget.spend()
    }

    /// Whether all of these are silent: then a client that waits for them waits in vain.
    pub fn are_silent(&self, asked: &[UpstreamId]) -> bool {
        asked
            .iter()
            .filter_map(|id| self.upstreams.get(id))
            .all(|upstream| upstream.health.state() == State::Down)
    }

    /// Whether new connections may go there, if only as a last resort.
    pub fn is_usable(&self, id: UpstreamId) -> bool {
        self.upstreams.get(&id).is_some_and(Upstream::is_usable)
    }

    /// Whether an upstream is expected to answer a new connection.
    pub fn expects_answers(&self) -> bool {
        let mut upstreams = self.upstreams.values();
        upstreams.any(|upstream| upstream.is_usable() && upstream.health.answers())
    }

    /// What an upstream may get, and why; none once it is forgotten.
    pub fn health(&self, id: UpstreamId) -> Option<(State, Reason)> {
        let health = &self.upstreams.get(&id)?.health;
        Some((health.state(), health.reason()))
    }

    /// All upstreams as they are.
    pub fn view(&self) -> Vec<View> {
        self.upstreams
            .iter()
            .map(|(id, upstream)| upstream.view(*id))
            .collect()
    }

    fn configure(&mut self, targets: Vec<Target>, policy: Policy, now: Instant) -> Vec<Decision> {
        self.policy = policy;
        let mut decisions = Vec::new();
        let gone: Vec<_> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| !targets.iter().any(|target| target.identity == upstream.identity))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            decisions.extend(self.stand(id, Standing::Removed));
            decisions.extend(self.forget(id));
        }
        for target in targets {
            let standing = if target.draining {
                Standing::Draining
            } else {
                Standing::Active
            };
            match self.find(&target.identity) {
                Some(id) => {
                    self.locate(id, target.distance);
                    decisions.extend(self.stand(id, standing));
                }
                None => decisions.extend(self.add(target, standing, now)),
            }
        }
        decisions
    }

    fn find(&self, identity: &Identity) -> Option<UpstreamId> {
        self.upstreams
            .iter()
            .find(|(_, upstream)| upstream.identity == *identity)
            .map(|(id, _)| *id)
    }

    /// A member may get another zone, and a pool another policy, without being another upstream.
    fn locate(&mut self, id: UpstreamId, distance: Distance) {
        if let Some(upstream) = self.upstreams.get_mut(&id) {
            upstream.distance = distance;
        }
    }

    fn add(&mut self, target: Target, standing: Standing, now: Instant) -> Vec<Decision> {
        let id = UpstreamId(self.next);
        self.next += 1;
        let upstream = Upstream {
            standing,
            proven: target.proven,
            health: Health::new(target.proven, now),
            suspect: false,
            extra_probe: None,
            called: None,
            cross_checks: CrossCheckBudget::default(),
            heard: None,
            moving: false,
            connections: 0,
            turn: 0,
            rank: rank::rank(&self.node, &target.identity.name),
            distance: target.distance,
            identity: target.identity.clone(),
        };
        self.upstreams.insert(id, upstream);
        vec![Decision::Watch(id, target.identity)]
    }

    fn stand(&mut self, id: UpstreamId, standing: Standing) -> Option<Decision> {
        let upstream = self.upstreams.get_mut(&id)?;
        let before = std::mem::replace(&mut upstream.standing, standing);
        upstream.moving &= standing == Standing::Active;
        match (before, standing) {
            (Standing::Active | Standing::LastResort, Standing::Draining | Standing::Removed) => {
                Some(Decision::Drain(id))
            }
            (Standing::Draining | Standing::Removed, Standing::Active | Standing::LastResort) => {
                Some(Decision::Restore(id))
            }
            (Standing::Active | Standing::LastResort, Standing::Active | Standing::LastResort)
            | (Standing::Draining | Standing::Removed, Standing::Draining | Standing::Removed) => None,
        }
    }

    fn forget(&mut self, id: UpstreamId) -> Vec<Decision> {
        let over = |upstream: &Upstream| upstream.standing == Standing::Removed && upstream.connections == 0;
        if !self.upstreams.get(&id).is_some_and(over) {
            return Vec::new();
        }
        let forgotten = self.upstreams.remove(&id);
        forgotten
            .map(|upstream| Decision::Forget(id, upstream.identity))
            .into_iter()
            .collect()
    }

    fn prove(&mut self, id: UpstreamId, verified: bool) -> Vec<Decision> {
        match self.upstreams.get_mut(&id) {
            Some(upstream) if verified && !upstream.proven => {
                upstream.proven = true;
                vec![Decision::Remember(id, upstream.identity.clone())]
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn judge(
        &mut self,
        id: UpstreamId,
        now: Instant,
        fold: impl FnOnce(&mut Health, (Instant, Policy)),
    ) -> Vec<Decision> {
        let policy = self.policy;
        let Some(upstream) = self.upstreams.get_mut(&id) else {
            return Vec::new();
        };
        let from = (upstream.health.state(), upstream.health.reason());
        fold(&mut upstream.health, (now, policy));
        let to = (upstream.health.state(), upstream.health.reason());
        let told = (from != to).then_some(Decision::Tell { id, from, to });
        let witnesses = if from.0 != State::Down && to.0 == State::Down {
            self.cross_check_after_a_fall(id, now)
        } else {
            Vec::new()
        };
        let moves = self.moves(now);
        let decisions = told.into_iter().chain(self.cuts()).chain(witnesses);
        decisions.chain(moves).collect()
    }

    /// Whose connections to cut: who is silent by itself, once another was heard since it fell. If all are silent it is us,
    /// and cutting would only turn a hiccup into a stampede. Said again as long as a silent upstream has connections.
    fn cuts(&self) -> Vec<Decision> {
        let active = |upstream: &&Upstream| upstream.standing == Standing::Active;
        let answering = |upstream: &&Upstream| upstream.health.is_answering();
        let witnesses = self.upstreams.values().filter(active).filter(answering);
        let Some(latest) = witnesses.filter_map(|upstream| upstream.heard).max() else {
            return Vec::new();
        };
        let silent = |upstream: &Upstream| {
            let since = upstream.health.silent_alone_since();
            upstream.connections > 0 && since.is_some_and(|since| latest > since)
        };
        let found = self.upstreams.iter().filter(|(_, upstream)| silent(upstream));
        found.map(|(id, _)| Decision::Cut(*id)).collect()
    }

    /// An upstream was heard: whoever lets us wait meanwhile does so by itself.
    fn hear(&mut self, id: UpstreamId, now: Instant) {
        let Some(heard) = self.upstreams.get_mut(&id) else {
            return;
        };
        heard.heard = Some(now);
        if heard.standing != Standing::Active {
            return;
        }
        for (_, other) in self.upstreams.iter_mut().filter(|(other, _)| **other != id) {
            other.health.hear_another(now);
        }
    }

    /// An upstream lets a question wait.
    fn late(&mut self, id: UpstreamId, now: Instant) -> Vec<Decision> {
        let interval = self.policy.probe_interval;
        let Some(late) = self.upstreams.get_mut(&id) else {
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

    /// Whose connections to move: who has been cut off from its etcd for long while another is well. If no other is, etcd
    /// has lost its quorum, and nobody would be better off elsewhere.
    fn moves(&mut self, now: Instant) -> Option<Decision> {
        let well = |upstream: &Upstream| {
            upstream.standing == Standing::Active && upstream.health.state() == State::Up
        };
        let relief = self.upstreams.values().any(well);
        let stranded =
            |upstream: &Upstream| relief && upstream.health.stranded_for(now) >= Some(stranded::MOVE_AFTER);
        if let Some((id, upstream)) = self
            .upstreams
            .iter_mut()
            .find(|(_, upstream)| upstream.moving && !stranded(upstream))
        {
            upstream.moving = false;
            return Some(Decision::Restore(*id));
        }
        let rested = |last: Instant| now.saturating_duration_since(last) >= stranded::MOVE_INTERVAL;
        if !self.moved.is_none_or(rested) {
            return None;
        }
        let movable = |upstream: &Upstream| {
            upstream.standing == Standing::Active
                && !upstream.moving
                && upstream.connections > 0
                && stranded(upstream)
        };
        let (id, upstream) = self
            .upstreams
            .iter_mut()
            .find(|(_, upstream)| movable(upstream))?;
        upstream.moving = true;
        self.moved = Some(now);
        Some(Decision::Move(*id))
    }

    fn refused(&mut self, id: UpstreamId, now: Instant) -> Vec<Decision> {
        let was_up = self
            .upstreams
            .get(&id)
            .is_some_and(|upstream| upstream.health.state() == State::Up);
        let mut decisions = self.judge(id, now, |health, at| health.fold(Outcome::Refused, now, None, at));
        if was_up {
            decisions.push(Decision::Probe(id));
        }
        decisions.extend(self.follow_last_resort(id, false, now));
        decisions
    }

    fn suspect(&mut self, id: UpstreamId, now: Instant) -> Vec<Decision> {
        if let Some(upstream) = self.upstreams.get_mut(&id) {
            upstream.suspect = true;
        }
        self.ask_again(id, now)
    }

    /// Traffic notices a hung server before the timer does; how often it may say so does not grow with the traffic.
    fn ask_again(&mut self, id: UpstreamId, now: Instant) -> Vec<Decision> {
        let Some(upstream) = self.upstreams.get_mut(&id) else {
            return Vec::new();
        };
        let rested = |last: Instant| now.saturating_duration_since(last) >= EXTRA_PROBE_INTERVAL;
        if !upstream.extra_probe.is_none_or(rested) {
            return Vec::new();
        }
        upstream.extra_probe = Some(now);
        vec![Decision::Probe(id)]
    }

    fn trust(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(&id) {
            upstream.suspect = false;
        }
    }

    fn opened(&mut self, id: UpstreamId) {
        self.turns += 1;
        if let Some(upstream) = self.upstreams.get_mut(&id) {
            upstream.connections = upstream.connections.saturating_add(1);
            upstream.turn = self.turns;
            // Its drain may be over by now.
            if upstream.is_leaving() {
                self.drain_again.insert(id);
            }
        }
    }

    fn closed(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(&id) {
            upstream.connections = upstream.connections.saturating_sub(1);
        }
    }
}
