//! The clients of a fleet, and what ends their connections.

use std::time::Duration;

use trivet_proxy::balance::Event;

use super::{BACK_WITHIN, Connection, Fleet};
use crate::{
    queue::What,
    schedule::{Condition, Fault, Time},
    seen::End,
};

/// As in `upstream.rs`: how long a client waits before that is noticed, and how often one looks.
const QUIET_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The kernel sends the first keepalive packet on a client's connection that was idle for so long, and ends the
/// connection so long after that if no packet is acknowledged. One that is busy it ends after minutes only.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
pub(crate) const KEEPALIVE_LIMIT: Duration = Duration::from_secs(8);

impl Fleet<'_> {
    pub(super) fn opened(&mut self, node: usize, client: usize, member: usize) {
        let slot = &mut self.nodes[node].clients[client];
        slot.serial += 1;
        slot.state = Connection::Open(member);
        let serial = slot.serial;
        self.nodes[node].upstreams[member].open += 1;
        // Most clients of a node stay for ever; every fourth comes and goes.
        if client.is_multiple_of(4) {
            let stays = self.random.time(Duration::from_secs(5), Duration::from_secs(60));
            self.put(node, self.now + stays, What::Renew { client, serial });
        }
    }

    pub(super) fn renew(&mut self, node: usize, client: usize, serial: u32) {
        if self.nodes[node].clients[client].serial == serial {
            self.close(node, client);
            // What it opens now is another connection.
            self.seen.cuts.remove(&(node, client));
            self.reopen(node, client, self.now);
        }
    }

    /// A client's connection ends, and the client comes back.
    pub(super) fn end(&mut self, node: usize, client: usize, end: End) {
        if let Some(member) = self.close(node, client) {
            self.seen
                .ends
                .entry(end)
                .or_default()
                .push((self.now, node, member));
            let back = self.now + self.random.time(Time::ZERO, BACK_WITHIN);
            self.reopen(node, client, back);
        }
    }

    fn close(&mut self, node: usize, client: usize) -> Option<usize> {
        let slot = &mut self.nodes[node].clients[client];
        let Connection::Open(member) = slot.state else {
            return None;
        };
        slot.state = Connection::None;
        self.nodes[node].upstreams[member].open -= 1;
        self.tell_of(node, member, Event::Closed);
        Some(member)
    }

    pub(super) fn reopen(&mut self, node: usize, client: usize, at: Time) {
        let slot = &mut self.nodes[node].clients[client];
        slot.serial += 1;
        slot.state = Connection::None;
        let serial = slot.serial;
        self.put(node, at, What::Open { client, serial });
    }

    pub(super) fn clients_of(&self, node: usize, member: usize) -> Vec<usize> {
        let clients = self.nodes[node].clients.iter().enumerate();
        let its = clients.filter(|(_, client)| matches!(client.state, Connection::Open(of) if of == member));
        its.map(|(client, _)| client).collect()
    }

    /// What a fault does to the connections that are there when it begins.
    pub(super) fn befall(&mut self, member: usize, index: usize) {
        let fault = self.schedule.faults[member][index];
        for node in (0..self.nodes.len()).filter(|node| fault.seen_by(*node)) {
            match self.condition(node, member) {
                Condition::Killed => {
                    for client in self.clients_of(node, member) {
                        self.end(node, client, End::Killed);
                    }
                }
                Condition::Blackholed => {
                    self.plan_giving_up(node, member);
                    self.plan_look(node, member);
                }
                Condition::Hung => self.plan_look(node, member),
                Condition::Well | Condition::NotReady | Condition::EtcdCut => {}
            }
        }
    }

    fn plan_giving_up(&mut self, node: usize, member: usize) {
        if self.schedule.busy {
            return;
        }
        for client in self.clients_of(node, member) {
            let within = self.random.time(Time::ZERO, KEEPALIVE_IDLE) + KEEPALIVE_LIMIT;
            let serial = self.nodes[node].clients[client].serial;
            self.put(node, self.now + within, What::GiveUp { client, serial });
        }
    }

    pub(super) fn give_up(&mut self, node: usize, client: usize, serial: u32) {
        let slot = &self.nodes[node].clients[client];
        let Connection::Open(member) = slot.state else {
            return;
        };
        if slot.serial == serial && self.condition(node, member) == Condition::Blackholed {
            self.tell_of(node, member, Event::OpenOverdue);
            self.end(node, client, End::GivenUp);
        }
    }

    fn plan_look(&mut self, node: usize, member: usize) {
        if self.schedule.busy {
            // The first client asks for something, and waits.
            let asks = self.random.time(Time::ZERO, Duration::from_secs(1));
            let looked = self.random.time(Time::ZERO, LOOK_EVERY);
            self.put(node, self.now + asks + QUIET_FOR + looked, What::Look { member });
        }
    }

    pub(super) fn look(&mut self, node: usize, member: usize) {
        let open = self.nodes[node].upstreams[member].open;
        if open > 0 && self.condition(node, member).is_silent() {
            self.tell_of(node, member, Event::ReplyOverdue);
            self.put(node, self.now + LOOK_EVERY, What::Look { member });
        }
    }

    /// Counts what a fault has left of the connections that were there when it began.
    pub(super) fn look_back(&mut self, member: usize, index: usize) {
        let fault: Fault = self.schedule.faults[member][index];
        let nodes = (0..self.nodes.len()).filter(|node| fault.seen_by(*node));
        let left = nodes.map(|node| self.nodes[node].upstreams[member].open).sum();
        self.seen.left.insert((member, index), left);
    }

    pub(super) fn take_census(&mut self) {
        let of = |member: usize| self.nodes.iter().map(|node| node.upstreams[member].open).sum();
        let counts = (0..self.schedule.members).map(of).collect();
        self.seen.spread.push((self.now, counts));
    }
}
