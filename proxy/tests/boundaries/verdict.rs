//! What clients may see in a run, from what was done to the processes and when.
//!
//! A client that connects, [`Facts::broken`]:
//! - It is answered in time. It is refused only while no process holds the listeners, and lost only with a process that is
//!   killed, that ends, or that has no file for it.
//!
//! A client that keeps its connection, [`Facts::broken_kept`]:
//! - What it says comes back once, in order, and at once: it waits for a process that is stopped only if that process has its
//!   connection.
//! - Its connection ends with a process that is killed and that has it: the one that has said last that it goes on with it;
//!   or one that may not have come to say so, while the other says that its connections were taken.
//! - It ends gradually with a process that ends if there was none to take it for as long as that one tried to give it: each other
//!   was killed, or one, which may be the one that serves, was stopped for longer than that.
//! - No other connection ends under a client, and no two processes end one or give it to the same: both would have served it.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    clients::{Attempt, Outcome},
    established::{Fate, Kept},
    fault::Done,
    plan::Harm,
    process::{Said, Word},
};

/// How late a connection may be that a process accepts in place of one that hangs.
const LIMIT: Duration = Duration::from_millis(1500);

/// For how long a process that ends tries to give its connections: a stop of ten seconds of another ends none, two stops may,
/// and a second without files does not.
const GIVE_LIMIT: Duration = Duration::from_millis(10_500);

/// When a process was there for clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) process: &'static str,
    /// Since when it holds the listeners.
    pub(crate) from: Instant,
    /// When it was killed or began to end.
    pub(crate) until: Option<Instant>,
}

/// What a process has told of connections.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) process: &'static str,
    /// Whether another has said that it takes connections of this one.
    has_given: bool,
    words: Vec<Word>,
}

impl Told {
    pub(crate) fn of(process: &'static str, said: &Said) -> Self {
        Self {
            process,
            has_given: said.has_given,
            words: said.connections.clone(),
        }
    }
}

/// What has happened.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) begun: Instant,
    pub(crate) lives: Vec<Life>,
    pub(crate) told: Vec<Told>,
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
        let is_held = self.lives.iter().any(|life| lives_for(life, *begun, *ended));
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

    /// What is wrong with this connection, which its client has kept, if anything is.
    pub(crate) fn broken_kept(&self, kept: &Kept) -> Option<String> {
        let ends = self.ends(kept.client);
        let wrong = match (&kept.outcome, ends.as_slice()) {
            (Fate::Wrong(what), _) => what.clone(),
            (_, [_, _, ..]) => "two processes have served it".to_owned(),
            _ if self.was_given_twice(kept) => "two processes have given it".to_owned(),
            (Fate::Lasted, _) => self.late(kept)?,
            (Fate::Ended(at, _), []) if self.was_with_a_killed(kept, *at) => return None,
            (Fate::Ended(..), [(process, word)]) if self.may_drain(process, word) => return None,
            (Fate::Ended(at, error), _) => format!("ended at {:?}: {error}", self.since(*at)),
        };
        let way: Vec<_> = self
            .way(kept)
            .into_iter()
            .map(|(at, name)| (self.since(at), name))
            .collect();
        let ends: Vec<_> = ends
            .into_iter()
            .map(|(process, word)| (process, self.since(word.at), word.ending.clone()))
            .collect();
        let (client, home) = (kept.client, kept.home);
        Some(format!(
            "{client} of {home}: {wrong}; taken by {way:?}, and ended by {ends:?}"
        ))
    }

    /// Which processes have said that they end it.
    fn ends(&self, client: SocketAddr) -> Vec<(&'static str, &Word)> {
        self.words(client)
            .filter(|(_, word)| word.ending.is_some())
            .collect()
    }

    /// Whether one process has gone on with it twice: it was given by two.
    fn was_given_twice(&self, kept: &Kept) -> bool {
        let mut takers: Vec<_> = self.way(kept).into_iter().map(|(_, taker)| taker).collect();
        let all = takers.len();
        takers.sort_unstable();
        takers.dedup();
        takers.len() < all
    }

    /// Which have said that they go on with it, and when.
    fn way(&self, kept: &Kept) -> Vec<(Instant, &'static str)> {
        let words = self.words(kept.client);
        let mut taken: Vec<_> = words
            .filter(|(_, word)| word.ending.is_none())
            .map(|(process, word)| (word.at, process))
            .collect();
        taken.sort();
        taken
    }

    fn words(&self, client: SocketAddr) -> impl Iterator<Item = (&'static str, &Word)> {
        let told = self.told.iter();
        told.flat_map(|told| told.words.iter().map(|word| (told.process, word)))
            .filter(move |(_, word)| word.client == client)
    }

    /// Whether a process was killed, by then, that has it or may have taken it.
    fn was_with_a_killed(&self, kept: &Kept, ended: Instant) -> bool {
        let holder = self.way(kept).last().map_or(kept.home, |(_, process)| *process);
        let mut told = self.told.iter();
        let has_given = told.any(|told| told.process == holder && told.has_given);
        let mut kills = self
            .faults
            .iter()
            .filter(|done| done.harm == Harm::Kill && done.from <= ended);
        kills.any(|kill| kill.process == holder || has_given)
    }

    /// Whether a process may end a connection gradually.
    fn may_drain(&self, process: &str, word: &Word) -> bool {
        let mut lives = self.lives.iter();
        let Some(ends) = lives
            .find(|life| life.process == process)
            .and_then(|life| life.until)
        else {
            return false;
        };
        let others = || self.lives.iter().filter(|life| life.process != process);
        let was_stopped = |life: &Life| {
            let stopped = self.stopped(ends, word.at, |process| process == life.process);
            stopped > GIVE_LIMIT
        };
        let none_takes = others().any(was_stopped) || !others().any(|life| lives_for(life, ends, word.at));
        let is_drained = word.ending.as_deref() == Some("ProxyDrained");
        is_drained && none_takes
    }

    /// For how long in all these processes were stopped by stops that fall into this time.
    fn stopped(&self, from: Instant, to: Instant, which: impl Fn(&str) -> bool) -> Duration {
        let stops = self.faults.iter().filter_map(|done| {
            let until = done.until.filter(|until| *until >= from && done.from <= to)?;
            let is_stop = matches!(done.harm, Harm::Stop(_)) && which(done.process);
            is_stop.then(|| until.saturating_duration_since(done.from))
        });
        stops.sum()
    }

    /// What it has waited for too long.
    fn late(&self, kept: &Kept) -> Option<String> {
        let way = self.way(kept);
        let (said, answered) = kept.waits.iter().find(|(said, answered)| {
            let stopped = self.stopped(*said, *answered, |process| {
                let mut way = way.iter().filter(|(at, _)| at <= answered);
                process == kept.home || way.any(|(_, taker)| *taker == process)
            });
            let most = LIMIT + self.machine + stopped;
            answered.saturating_duration_since(*said) > most
        })?;
        let took = answered.saturating_duration_since(*said);
        Some(format!(
            "a message of {:?} was answered {took:?} later",
            self.since(*said)
        ))
    }

    fn since(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.begun)
    }

    /// For people: all that was, and when.
    pub(crate) fn story(&self) -> String {
        let since = |moment: Instant| self.since(moment);
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
            (Harm::Stop(_), _) | (Harm::NoFiles(_), None) => false,
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
        let mut living = self.lives.iter().filter(|life| lives_for(life, from, to));
        living.any(|life| !is_harmed(&life))
    }
}

fn lives_for(life: &Life, from: Instant, to: Instant) -> bool {
    life.from <= from && life.until.is_none_or(|until| until >= to)
}
