//! Who leads: what an operator knows of the Lease, and what it does next. Pure: times are arguments.
//!
//! The semantics are client-go's. The holder leads for [`RENEW_DEADLINE`] from the moment before it sent the last write
//! that the API server has confirmed. Another operator takes the Lease only when it has seen the same version of it for
//! [`LEASE_DURATION`], which is longer, and only if the version is still that one. Both measure on their own monotonic
//! clock, and the times in the Lease are for people: neither a wrong clock, nor a pause, nor a lost answer makes two
//! operators lead at once. A process whose clock stands still, as that of a virtual machine that is suspended, is stopped
//! by the resourceVersions of what it writes, see [`super::take`].

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How long an operator sees an unchanged Lease before it takes it. client-go's default.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a confirmed write of the Lease lets its holder lead. client-go's default: the third below [`LEASE_DURATION`] is
/// the difference in speed that two clocks may have.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// The time between two renewals, or two looks at another's Lease. client-go's default.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// What [`LEASE_DURATION`] is in a Lease.
const LEASE_SECONDS: i32 = 15;

/// The duration that a released Lease states, as client-go writes it: the API server takes no zero.
const RELEASED_SECONDS: i32 = 1;

/// The longest duration of a holder of another release that is respected. A number that somebody has written by hand must not
/// keep every operator from leading.
const LONGEST_SECONDS: i32 = 60;

/// The content of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The identity of the process that holds it; empty if it is released.
    pub holder: String,
    /// How long an operator waits before it takes the Lease, in seconds.
    pub seconds: i32,
    /// When the holder took it, by the holder's clock.
    pub acquired: Option<Timestamp>,
    /// When the holder last wrote it, by the holder's clock.
    pub renewed: Option<Timestamp>,
    /// How often it went from one holder to another.
    pub transitions: i32,
}

impl From<LeaseSpec> for Record {
    fn from(spec: LeaseSpec) -> Self {
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            seconds: spec.lease_duration_seconds.unwrap_or_default(),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}

impl From<Record> for LeaseSpec {
    fn from(record: Record) -> Self {
        Self {
            holder_identity: Some(record.holder),
            lease_duration_seconds: Some(record.seconds),
            acquire_time: record.acquired.map(MicroTime),
            renew_time: record.renewed.map(MicroTime),
            lease_transitions: Some(record.transitions),
            ..Self::default()
        }
    }
}

impl Record {
    /// How long an operator waits before it takes the Lease.
    fn duration(&self) -> Duration {
        let seconds = self.seconds.clamp(1, LONGEST_SECONDS);
        Duration::from_secs(seconds.unsigned_abs().into())
    }
}

/// A Lease that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its content.
    pub record: Record,
    /// Its resourceVersion.
    pub version: String,
}

/// A write of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The new content.
    pub record: Record,
    /// The resourceVersion that it replaces; `None` creates the Lease.
    pub version: Option<String>,
}

/// The time in which one process holds the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    holder: String,
    transitions: i32,
    /// When it began.
    pub since: Instant,
}

impl Term {
    /// Whether no other term was before it: an operator of a release without election may still run.
    pub fn is_first(&self) -> bool {
        self.transitions == 0
    }

    /// A text that differs from that of every other process: its identity is unique.
    pub fn text(&self) -> String {
        format!("{} {}", self.transitions, self.holder)
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the Lease.
    Read,
    /// Write the Lease.
    Write(Write),
    /// Nothing until the next round.
    Rest,
}

/// What one process knows of the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    seen: Option<Seen>,
    /// Whether `seen` is from this round, or what this process has written itself.
    is_fresh: bool,
    held: Option<Held>,
}

/// The last version of the Lease that was seen.
#[derive(Clone, Debug)]
struct Seen {
    record: Record,
    /// `None` once the Lease is deleted. Who held it may lead on for its time.
    version: Option<String>,
    /// When it was first seen.
    since: Instant,
}

#[derive(Clone, Debug)]
struct Held {
    term: Term,
    until: Instant,
}

impl Candidate {
    /// A process that knows nothing yet. No other process has its identity.
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            is_fresh: false,
            held: None,
        }
    }

    /// The term in which this process leads at `now`, and its end.
    pub fn leads(&self, now: Instant) -> Option<(&Term, Instant)> {
        let held = self.held.as_ref().filter(|held| now < held.until)?;
        Some((&held.term, held.until))
    }

    /// Who holds the Lease, as far as is known; empty if nobody does.
    pub fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.record.holder)
    }

    /// Begins a round: who does not lead must read what the others have written meanwhile.
    pub fn begin_round(&mut self, now: Instant) {
        self.is_fresh &= self.leads(now).is_some();
    }

    /// What is to be done next in this round. `wall` is the time that people read in the Lease.
    pub fn next(&self, now: Instant, wall: Timestamp) -> Step {
        if !self.is_fresh {
            return Step::Read;
        }
        let write = match &self.seen {
            None => Some(Write {
                record: Record {
                    holder: self.identity.clone(),
                    seconds: LEASE_SECONDS,
                    acquired: Some(wall),
                    renewed: Some(wall),
                    transitions: 0,
                },
                version: None,
            }),
            Some(seen) => self.may_take(seen, now).then(|| self.replace(seen, wall)),
        };
        write.map_or(Step::Rest, Step::Write)
    }

    fn may_take(&self, seen: &Seen, now: Instant) -> bool {
        let holder = &seen.record.holder;
        holder.is_empty() || *holder == self.identity || now >= seen.since + seen.record.duration()
    }

    /// The write that makes this process the holder of what it has seen.
    fn replace(&self, seen: &Seen, wall: Timestamp) -> Write {
        let before = &seen.record;
        let is_own = before.holder == self.identity;
        Write {
            record: Record {
                holder: self.identity.clone(),
                seconds: LEASE_SECONDS,
                acquired: if is_own { before.acquired } else { Some(wall) },
                renewed: Some(later(wall, before.renewed)),
                transitions: before.transitions.saturating_add(i32::from(!is_own)),
            },
            version: seen.version.clone(),
        }
    }

    /// The write that lets the next process lead at once; `None` if this one does not lead.
    pub fn release(&self, now: Instant, wall: Timestamp) -> Option<Write> {
        self.leads(now)?;
        let seen = self.seen.as_ref().filter(|_| self.is_fresh)?;
        let released = Record {
            holder: String::new(),
            seconds: RELEASED_SECONDS,
            ..self.replace(seen, wall).record
        };
        Some(Write {
            record: released,
            version: seen.version.clone(),
        })
    }

    /// The Lease was read; `None`: there is none. `now` is the time after the answer.
    pub fn read(&mut self, found: Option<Found>, now: Instant) {
        self.is_fresh = true;
        let Some(Found { record, version }) = found else {
            self.held = None;
            if let Some(seen) = &mut self.seen {
                seen.version = None;
            }
            return;
        };
        if record.holder != self.identity {
            self.held = None;
        }
        let version = Some(version);
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Seen {
                record,
                version,
                since: now,
            });
        }
    }

    /// The API server has confirmed a write that was sent after `sent`, and the Lease has this version now.
    pub fn written(&mut self, write: Write, version: String, sent: Instant) {
        let Write { record, .. } = write;
        let before = self.held.take().map(|held| held.term);
        let is_same = |term: &Term| term.transitions == record.transitions;
        let term = before.filter(is_same).unwrap_or_else(|| Term {
            holder: record.holder.clone(),
            transitions: record.transitions,
            since: sent,
        });
        self.held = Some(Held {
            term,
            until: sent + RENEW_DEADLINE,
        });
        self.is_fresh = true;
        self.seen = Some(Seen {
            record,
            version: Some(version),
            since: sent,
        });
    }

    /// A read or a write has failed: what the Lease holds is not known.
    pub fn failed(&mut self) {
        self.is_fresh = false;
    }
}

/// A time that differs from the last one also where the clock stands or goes back: a write that changes nothing has no new
/// version, and another operator would take the holder for dead.
fn later(wall: Timestamp, last: Option<Timestamp>) -> Timestamp {
    let after = |last: Timestamp| last.checked_add(SignedDuration::from_micros(1)).ok();
    last.and_then(after).map_or(wall, |after| wall.max(after))
}

#[cfg(test)]
mod tests;
