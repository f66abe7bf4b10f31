//! How clients' connections are opened, as `open/walk.rs` and `open/race.rs` do it.

use std::time::Duration;

use trivet_proxy::{
    balance::{Event, PathId},
    open::deadline,
};

use super::{Attempt, Connection, Fleet};
use crate::{
    queue::What,
    schedule::{Condition, Time},
};

/// The document's `connection`.
const HEDGE_DELAY: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client itself gives up after so long, as client-go does.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How soon a client tries again that was turned away.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often an attempt looks whether somebody has come back, while nothing else is planned.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Fleet<'_> {
    pub(super) fn open(&mut self, node: usize, client: usize, serial: u32) {
        if self.nodes[node].clients[client].serial != serial {
            return;
        }
        let balance = &mut self.nodes[node].balance;
        balance.earn_hedge();
        let candidates = balance.candidates();
        let left = candidates.iter().map(|candidate| self.member(node, candidate.id));
        let attempt = Attempt {
            started: self.now,
            left: left.collect(),
            asked: Vec::new(),
            asked_at: self.now,
            dialled: Vec::new(),
            stagger: deadline::stagger(HEDGE_DELAY, CONNECT_TIMEOUT, candidates.len()),
            hedge_delay: None,
            hedges: false,
        };
        self.advance(node, client, attempt);
    }

    /// The time is up that the attempt waited for somebody.
    pub(super) fn wait_over(&mut self, node: usize, client: usize, serial: u32) {
        let slot = &mut self.nodes[node].clients[client];
        if slot.serial != serial {
            return;
        }
        let Connection::Opening(attempt) = std::mem::replace(&mut slot.state, Connection::None) else {
            return;
        };
        let mut attempt = *attempt;
        let waited_for = attempt
            .asked
            .iter()
            .copied()
            .chain(attempt.dialled.iter().map(|(member, _)| *member));
        let back = waited_for
            .filter(|member| self.condition(node, *member).serves())
            .min();
        if let Some(member) = back {
            return self.won(node, client, &attempt, member);
        }
        if attempt.hedges {
            for member in attempt.asked.clone() {
                self.tell_of(node, member, Event::OpenOverdue);
            }
            let asked: Vec<_> = attempt
                .asked
                .iter()
                .map(|member| self.nodes[node].ids[*member])
                .collect();
            let since = self.instant(attempt.asked_at);
            if !self.nodes[node].balance.spend_hedge(&asked, since) {
                return self.wait(node, client, attempt);
            }
        } else {
            self.suspect_dialled(node, &mut attempt);
        }
        self.advance(node, client, attempt);
    }

    /// Tries one after the other until somebody answers or lets us wait.
    fn advance(&mut self, node: usize, client: usize, mut attempt: Attempt) {
        loop {
            if self.now >= attempt.started + deadline::OPEN_DEADLINE {
                self.suspect_dialled(node, &mut attempt);
                attempt.left.clear();
            }
            let Some(member) = attempt.left.pop_front() else {
                let waits = attempt.asked.len() + attempt.dialled.iter().filter(|(_, said)| !said).count();
                let hedge_delay = if attempt.asked.is_empty() {
                    deadline::OPEN_DEADLINE
                } else {
                    CLIENT_PATIENCE
                };
                if waits == 0 || self.now >= attempt.started + hedge_delay {
                    return self.lost(node, client, &attempt);
                }
                attempt.hedges = false;
                return self.wait(node, client, attempt);
            };
            self.tell_of(node, member, Event::Opened);
            match self.condition(node, member) {
                Condition::Well | Condition::NotReady | Condition::EtcdCut => {
                    attempt.asked.push(member);
                    return self.won(node, client, &attempt, member);
                }
                Condition::Killed => {
                    self.tell_of(node, member, Event::Closed);
                    self.tell_of(node, member, Event::Refused);
                }
                Condition::Hung => {
                    attempt.asked.push(member);
                    attempt.asked_at = self.now;
                    attempt.hedges = true;
                    return self.wait(node, client, attempt);
                }
                Condition::Blackholed => {
                    attempt.dialled.push((member, false));
                    attempt.hedges = false;
                    return self.wait(node, client, attempt);
                }
            }
        }
    }

    fn wait(&mut self, node: usize, client: usize, mut attempt: Attempt) {
        let wait = if attempt.hedges {
            let balance = &self.nodes[node].balance;
            *attempt
                .hedge_delay
                .get_or_insert_with(|| balance.hedge_delay(HEDGE_DELAY))
        } else if attempt.left.is_empty() {
            LOOK_AGAIN
        } else {
            attempt.stagger
        };
        let slot = &mut self.nodes[node].clients[client];
        slot.serial += 1;
        slot.state = Connection::Opening(Box::new(attempt));
        let serial = slot.serial;
        self.put(node, self.now + wait, What::Wait { client, serial });
    }

    fn suspect_dialled(&mut self, node: usize, attempt: &mut Attempt) {
        for (member, said) in &mut attempt.dialled {
            if !std::mem::replace(said, true) {
                self.tell_of(node, *member, Event::OpenOverdue);
            }
        }
    }

    fn won(&mut self, node: usize, client: usize, attempt: &Attempt, member: usize) {
        self.release(node, attempt, Some(member));
        let id = self.nodes[node].ids[member];
        let took = self
            .random
            .time(Duration::from_millis(2), Duration::from_millis(30));
        self.tell(node, Event::Answered(id, took));
        self.seen.handshakes[member].count(self.now);
        self.seen.slowest = self.seen.slowest.max(self.now.saturating_sub(attempt.started));
        self.opened(node, client, member);
    }

    fn lost(&mut self, node: usize, client: usize, attempt: &Attempt) {
        self.release(node, attempt, None);
        let mut members = 0..self.schedule.members;
        let served = members.find(|member| self.served_throughout(node, *member, attempt.started));
        if let Some(member) = served {
            let broken = format!(
                "{:?}: node {node} lost a connection begun at {:?} though member {member} served",
                self.now, attempt.started
            );
            self.seen.broken.push(broken);
        }
        let again = self.now + TRY_AGAIN.mul_f64(0.5 + self.random.chance());
        self.reopen(node, client, again);
    }

    fn served_throughout(&self, node: usize, member: usize, since: Time) -> bool {
        let mut at = since;
        loop {
            if !self.schedule.condition(node, member, at).serves() {
                return false;
            }
            match self.schedule.until(node, member, at) {
                Some(until) if until <= self.now => at = until,
                Some(_) | None => return true,
            }
        }
    }

    /// All who were tried count no longer, but for who won.
    fn release(&mut self, node: usize, attempt: &Attempt, won: Option<usize>) {
        let tried = attempt
            .asked
            .iter()
            .copied()
            .chain(attempt.dialled.iter().map(|(member, _)| *member));
        for member in tried.filter(|member| Some(*member) != won).collect::<Vec<_>>() {
            self.tell_of(node, member, Event::Closed);
        }
    }

    pub(super) fn tell_of(&mut self, node: usize, member: usize, event: fn(PathId) -> Event) {
        let id = self.nodes[node].ids[member];
        self.tell(node, event(id));
    }
}
