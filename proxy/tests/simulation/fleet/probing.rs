//! The probers of a fleet, as `Prober::run` paces them.

use std::time::Duration;

use trivet_proxy::balance::{Event, schedule};

use super::{Fleet, interval};
use crate::{
    prober::{self, TIMEOUT},
    queue::What,
    schedule::{Condition, Question, Time},
};

/// The kernel sends the first keepalive packet on a probe's connection that was idle for so long.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// It ends the connection when the second packet is due, because the user timeout has passed by then.
pub(crate) const KEEPALIVE_LIMIT: Duration = Duration::from_secs(1);

impl Fleet<'_> {
    pub(super) fn probe(&mut self, node: usize, member: usize, turn: u32) {
        if self.nodes[node].upstreams[member].turn != turn {
            return;
        }
        if self.nodes[node].upstreams[member].round.is_none() {
            self.start_round(node, member);
        }
        while let Some(report) = self.due_report(node, member) {
            let id = self.nodes[node].ids[member];
            let event = match report.outcome {
                None => Event::ProbeOverdue(id),
                Some(outcome) => Event::Probed {
                    id,
                    asked: self.instant(report.asked),
                    verified: outcome.is_answer(),
                    outcome,
                },
            };
            self.tell(node, event);
        }
        let upstream = &mut self.nodes[node].upstreams[member];
        let Some((round, told)) = &upstream.round else {
            return;
        };
        let next = match round.reports.get(*told) {
            Some(report) => report.at,
            None if round.ended > self.now => round.ended,
            None => {
                let kept = round.kept;
                upstream.round = None;
                self.pause(node, member, kept)
            }
        };
        self.put(node, next, What::Probe { member, turn });
    }

    /// Asks at once, or as soon as the questions that are under way have found their end.
    pub(super) fn wake(&mut self, node: usize, member: usize) {
        let upstream = &mut self.nodes[node].upstreams[member];
        if upstream.round.is_some() {
            upstream.woken = true;
            return;
        }
        upstream.turn += 1;
        let turn = upstream.turn;
        self.put(node, self.now, What::Probe { member, turn });
    }

    fn start_round(&mut self, node: usize, member: usize) {
        let (schedule, random) = (self.schedule, &mut self.random);
        let interval = interval(schedule.nodes);
        let proxy = &self.nodes[node];
        let health = proxy.balance.health(proxy.ids[member]).unwrap();
        let hedge_delay = schedule::overdue_after(health, interval, TIMEOUT);
        let round = prober::round(self.now, (interval, hedge_delay), |question: Question, asked| {
            schedule.answer((node, member), question, asked, random.chance())
        });
        for question in &round.questions {
            self.seen.questions[member].count(*question);
        }
        let upstream = &mut self.nodes[node].upstreams[member];
        upstream.rounds += 1;
        upstream.started = self.now;
        upstream.round = Some((round, 0));
    }

    fn due_report(&mut self, node: usize, member: usize) -> Option<prober::Report> {
        let (round, told) = self.nodes[node].upstreams[member].round.as_mut()?;
        let report = *round.reports.get(*told)?;
        if report.at > self.now {
            return None;
        }
        *told += 1;
        Some(report)
    }

    /// When the next round starts after one that ended now.
    fn pause(&mut self, node: usize, member: usize, kept: bool) -> Time {
        let (interval, chance) = (interval(self.schedule.nodes), self.random.chance());
        let upstream = &mut self.nodes[node].upstreams[member];
        let pause = if upstream.rounds == 1 {
            schedule::first_pause(interval, chance)
        } else {
            schedule::jittered(interval, chance)
        };
        if std::mem::take(&mut upstream.woken) {
            return self.now;
        }
        let next = (upstream.started + pause).max(self.now);
        let lost = kept.then(|| self.disconnected(node, member)).flatten();
        lost.map_or(next, |lost| lost.min(next))
    }

    /// When the kept connection that was used last now ends, by what befalls its member next.
    fn disconnected(&self, node: usize, member: usize) -> Option<Time> {
        let begins = self.schedule.until(node, member, self.now)?;
        match self.schedule.condition(node, member, begins) {
            Condition::Killed => Some(begins),
            Condition::Blackholed => {
                let mut asked = self.now + KEEPALIVE_IDLE;
                while asked < begins {
                    asked += KEEPALIVE_IDLE;
                }
                let given_up = asked + KEEPALIVE_LIMIT;
                let ends = self.schedule.until(node, member, begins);
                ends.is_none_or(|ends| given_up < ends).then_some(given_up)
            }
            Condition::Well | Condition::NotReady | Condition::EtcdCut | Condition::Hung => None,
        }
    }
}
