//! What clients may see in a run, from what was done to the processes and when.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    clients::{Attempt, Outcome},
    fault::Done,
    plan::Harm,
};

/// How late a connection may be that a process accepts in place of one that hangs.
const LIMIT: Duration = Duration::from_millis(1500);

/// When a process was there for clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) process: &'static str,
    /// Since when it holds the listeners.
    pub(crate) from: Instant,
    /// When it was killed or began to end.
    pub(crate) until: Option<Instant>,
}

/// What has happened.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) lives: Vec<Life>,
    pub(crate) faults: Vec<Done>,
    /// The share of the machine in the duration of a connection.
    pub(crate) machine: Duration,
}

impl Facts {
    /// What is wrong with this connection, if anything is.
    pub(crate) fn broken(&self, attempt: &Attempt) -> Option<String> {
        let Attempt {
            begun,
            ended,
            outcome,
        } = attempt;
        let is_held = self.lives.iter().any(|life| lives(life, *begun, *ended));
        let wrong = match outcome {
            Outcome::Refused if is_held => "refused",
            Outcome::Lost(_) if is_held && !self.may_be_lost(*begun, *ended) => "lost",
            _ if *ended > self.due(*begun) => "late",
            Outcome::Answered | Outcome::Refused | Outcome::Lost(_) => return None,
        };
        let took = attempt.took();
        Some(match outcome {
            Outcome::Lost(error) => format!("{wrong} after {took:?}: {error}"),
            Outcome::Answered | Outcome::Refused => format!("{wrong} after {took:?}"),
        })
    }

    /// For people: all moments since this one.
    pub(crate) fn relative_to(&self, begun: Instant) -> String {
        let since = |moment: Instant| moment.saturating_duration_since(begun);
        let lives = self.lives.iter().map(|life| {
            format!(
                "{} holds from {:?} to {:?}",
                life.process,
                since(life.from),
                life.until.map(since)
            )
        });
        let faults = self.faults.iter().map(|done| {
            let (from, until) = (since(done.from), done.until.map(since));
            format!("{}: {:?} from {from:?} to {until:?}", done.process, done.harm)
        });
        lives.chain(faults).collect::<Vec<_>>().join("\n")
    }

    /// Whether a connection may be with a process that takes it along: one that is killed meanwhile, or that begins to end
    /// its connections gradually. One without files resets a client for which it could open no connection to an apiserver.
    fn may_be_lost(&self, begun: Instant, ended: Instant) -> bool {
        let mut faults = self.faults.iter();
        let is_with_a_fault = faults.any(|done| match (done.harm, done.until) {
            (Harm::Kill, _) => begun <= done.effective && ended >= done.from,
            (Harm::NoFiles(_), Some(until)) => begun <= until && ended >= done.from,
            (Harm::NoFiles(_), None) | (Harm::Stop(_), _) => false,
        });
        let mut ends = self.lives.iter().filter_map(|life| life.until);
        is_with_a_fault || ends.any(|end| begun <= end && ended >= end)
    }

    /// When a connection must have ended at the latest. One that is with a process that hangs waits for it; so does each
    /// while there is no process that could accept in its place.
    fn due(&self, begun: Instant) -> Instant {
        let limit = LIMIT + self.machine;
        let mut due = begun + limit;
        // In the order of their beginning: while it waits for the end of one, the next may come.
        for done in &self.faults {
            let Some(until) = done.until else {
                continue;
            };
            let is_hit = done.from <= due && begun <= until;
            let may_be_with_it = begun <= done.effective || matches!(done.harm, Harm::NoFiles(_));
            if is_hit && (may_be_with_it || !self.has_sound_process(begun, begun + limit)) {
                due = due.max(until + limit);
            }
        }
        due
    }

    /// Whether a process holds the listeners all this time, and nothing is done to it.
    fn has_sound_process(&self, from: Instant, to: Instant) -> bool {
        let is_harmed = |life: &&Life| {
            let mut own = self.faults.iter().filter(|done| done.process == life.process);
            own.any(|done| done.from <= to && done.until.is_none_or(|until| until >= from))
        };
        let mut living = self.lives.iter().filter(|life| lives(life, from, to));
        living.any(|life| !is_harmed(&life))
    }
}

fn lives(life: &Life, from: Instant, to: Instant) -> bool {
    life.from <= from && life.until.is_none_or(|until| until >= to)
}
