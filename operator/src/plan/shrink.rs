//! Membership never shrinks by accident.
//!
//! A member leaves the pool when its owner says so in the spec, or when discovery's source has dropped it for the whole
//! removal delay and it gave no verified answer all the while. A label typo, a deleted Node object or an empty list is
//! one source's word against an apiserver that answers, and is not enough.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPoolSpec, MemberSource, PoolMemberState};
use trivet_crds::wire;

use super::facts::{Discovered, Facts, Memory};
use super::members::{Member, override_of};

/// The reason word of a removal that discovery wanted and did not get, in the condition, the event and the metric.
pub const REFUSED_SHRINK: &str = "RefusedShrink";

/// What the guard decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// Members that nobody names any more and that stay nevertheless.
    pub kept: Vec<Member>,
    /// One sentence for each refusal.
    pub refused: Vec<String>,
    /// For the next pass.
    pub memory: Memory,
    /// When the next removal may be due.
    pub next_look: Option<Duration>,
}

/// Decides which members in force stay although `wanted` does not have them.
pub fn guard(spec: &ApiserverPoolSpec, facts: &Facts, wanted: &[Member]) -> Guarded {
    let delay = Duration::from_secs(u64::from(spec.discovery.removal_delay_seconds));
    let mut memory = facts.memory.clone();
    memory
        .removals
        .retain(|at| facts.now.saturating_duration_since(*at) < delay);
    let guarded = Guarded {
        memory,
        ..Guarded::default()
    };
    Guard {
        spec,
        facts,
        wanted,
        delay,
        guarded,
    }
    .decide()
}

/// One decision under way.
struct Guard<'a> {
    spec: &'a ApiserverPoolSpec,
    facts: &'a Facts,
    wanted: &'a [Member],
    delay: Duration,
    guarded: Guarded,
}

/// Whether a dropped member may go.
enum Ruling {
    /// It may go now, if the limits allow it.
    Due,
    /// It has to wait: that is the normal course of things.
    Waits { until: Instant, why: &'static str },
    /// It stays although its time is up, and the owner should know.
    Refused {
        look_again: Option<Instant>,
        why: String,
    },
}

impl<'a> Guard<'a> {
    fn decide(mut self) -> Guarded {
        let mut due = Vec::new();
        for old in &self.facts.current.members {
            if !self.is_dropped_by_discovery(old) {
                continue;
            }
            match self.ruling(old) {
                Ruling::Due => due.push(old),
                Ruling::Waits { until, why } => self.keep(old, why.to_owned(), Some(until)),
                Ruling::Refused { look_again, why } => self.refuse(old, why, look_again),
            }
        }
        self.remove(due);
        let Guarded { kept, memory, .. } = &mut self.guarded;
        memory
            .absent
            .retain(|name, _| kept.iter().any(|member| &member.name == name));
        self.guarded
    }

    /// Whether `old` is named by nobody any more, and was discovery's to begin with.
    fn is_dropped_by_discovery(&self, old: &wire::Member) -> bool {
        let is_wanted = self
            .wanted
            .iter()
            .any(|member| member.name == old.name || member.is_same_server(old));
        let is_owners =
            self.facts.current.explicit.contains(&old.name) || self.facts.discovered == Discovered::Off;
        let entry = override_of(self.spec, &old.name);
        let is_disabled = entry.is_some_and(|entry| entry.state == PoolMemberState::Disabled);
        !(is_wanted || is_owners || is_disabled)
    }

    fn ruling(&mut self, old: &wire::Member) -> Ruling {
        match &self.facts.discovered {
            Discovered::Unknown | Discovered::Off => {
                // Not known to be gone: its time has not even begun.
                self.guarded.memory.absent.remove(&old.name);
                let why = "the nodes cannot be read, so nothing is known to be gone";
                return Ruling::Waits {
                    until: self.facts.now + self.delay,
                    why,
                };
            }
            Discovered::Masters(masters) if masters.is_empty() => {
                self.guarded.memory.absent.remove(&old.name);
                let why = "discovery finds no control-plane node at all, which is no reason to remove one";
                return Ruling::Refused {
                    look_again: None,
                    why: why.to_owned(),
                };
            }
            Discovered::Masters(_) => {}
        }
        let now = self.facts.now;
        let absent_since = *self.guarded.memory.absent.entry(old.name.clone()).or_insert(now);
        let time_is_up = absent_since + self.delay;
        let answered_at = self.facts.healths.verified_at(&old.addresses, old.port);
        let due_at = answered_at.map_or(time_is_up, |answered| time_is_up.max(answered + self.delay));
        if now < time_is_up {
            let why =
                "discovery dropped it; it goes after removalDelaySeconds unless it answers or comes back";
            Ruling::Waits { until: due_at, why }
        } else if now < due_at {
            let why = format!(
                "discovery dropped it but its apiserver answers; to retire it add {{name: {}, state: Disabled}} to \
                 spec.members",
                old.name
            );
            Ruling::Refused {
                look_again: Some(due_at),
                why,
            }
        } else if self.was_probed_since(old, absent_since) {
            Ruling::Due
        } else {
            Ruling::Waits {
                until: now + self.delay,
                why: "it has not been probed yet",
            }
        }
    }

    fn was_probed_since(&self, old: &wire::Member, since: Instant) -> bool {
        old.addresses.iter().any(|ip| {
            let health = self.facts.healths.get(&SocketAddr::new(*ip, old.port));
            health.is_some_and(|health| health.probed_at >= since)
        })
    }

    /// Takes the members that are due out, as far as the limits allow, and keeps the rest.
    fn remove(&mut self, due: Vec<&'a wire::Member>) {
        let healths = &self.facts.healths;
        let mut staying = self.wanted.iter().chain(&self.guarded.kept);
        let somebody_is_up = staying.any(|member| {
            member.state == PoolMemberState::Active && healths.is_up(&member.addresses, member.port)
        });
        let budget = self.budget();
        for (index, old) in due.into_iter().enumerate() {
            let why = if !somebody_is_up {
                "no other member is ready, so it may be the operator that is cut off"
            } else if index >= budget {
                "only a minority may go within one removalDelaySeconds"
            } else {
                self.guarded.memory.removals.push(self.facts.now);
                continue;
            };
            self.refuse(old, why.to_owned(), Some(self.facts.now + self.delay));
        }
    }

    /// How many members may still go within the current delay: never a majority.
    fn budget(&self) -> usize {
        let gone = self.guarded.memory.removals.len();
        let before = self.facts.current.members.len().saturating_add(gone);
        let minority = (before.saturating_sub(1) / 2).max(1);
        minority.saturating_sub(gone)
    }

    fn refuse(&mut self, old: &wire::Member, why: String, look_again: Option<Instant>) {
        self.guarded.refused.push(format!("{} stays: {why}", old.name));
        self.keep(old, why, look_again);
    }

    fn keep(&mut self, old: &wire::Member, why: String, look_again: Option<Instant>) {
        let state = override_of(self.spec, &old.name).map_or(PoolMemberState::Active, |entry| entry.state);
        let member = Member {
            note: why,
            state,
            ..Member::of_document(old, MemberSource::Node)
        };
        self.guarded.kept.push(member);
        let wait = look_again.map(|at| at.saturating_duration_since(self.facts.now));
        self.guarded.next_look = [self.guarded.next_look, wait].into_iter().flatten().min();
    }
}
