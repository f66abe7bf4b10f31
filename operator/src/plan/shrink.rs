//! Membership never shrinks by accident.
//!
//! A member is removed when the pool's owner removes it from the spec, or when discovery's source has not had it for the
//! whole removal delay and it gave no verified answer in that time. A label typo, a deleted Node object or an empty list
//! does not remove an apiserver that answers.

use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPoolSpec, PoolMemberState};
use trivet_crds::wire;

use super::facts::{Discovered, Facts, Memory};
use super::members::{self, Member, override_in_force, removal_delay};

/// The reason word of a removal that discovery wanted and did not get, in the condition, the event and the metric.
pub const REFUSED_SHRINK: &str = "RefusedShrink";

/// What the guard has decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// Members in force that neither spec nor discovery has any more, and that stay.
    pub kept: Vec<Member>,
    /// Members that are removed.
    pub removed: Vec<wire::Member>,
    /// One sentence for each refusal.
    pub refused: Vec<String>,
    /// When the next removal may be due.
    pub next_look: Option<Duration>,
}

/// The members in force that came from discovery, and that neither spec nor discovery has any more.
pub fn dropped<'a>(spec: &ApiserverPoolSpec, facts: &'a Facts, wanted: &[Member]) -> Vec<&'a wire::Member> {
    let is_wanted = |old: &wire::Member| members::have(wanted, old);
    let is_owners = |old: &wire::Member| {
        // An entry for a node's member only replaced what discovery said. Without the entry discovery counts again.
        let is_listed_alone = facts.current.marks.explicit.contains(&old.name) && old.node_name.is_empty();
        is_listed_alone || facts.discovered == Discovered::Off
    };
    let is_disabled = |old: &wire::Member| {
        let entry = override_in_force(spec, old);
        entry.is_some_and(|entry| entry.state == PoolMemberState::Disabled)
    };
    let members = facts.current.members.iter();
    members
        .filter(|old| !(is_wanted(old) || is_owners(old) || is_disabled(old)))
        .collect()
}

/// Decides which of the `dropped` members in force stay although `wanted` does not have them. `memory` includes this pass.
pub fn guard(
    spec: &ApiserverPoolSpec,
    facts: &Facts,
    memory: &Memory,
    wanted: &[Member],
    dropped: &[&wire::Member],
) -> Guarded {
    let guard = Guard {
        spec,
        facts,
        memory,
        wanted,
        delay: removal_delay(spec),
        guarded: Guarded::default(),
    };
    guard.decide(dropped)
}

/// What `guarded` becomes without the guard. `None` if it would be the same: also without the guard nothing is removed
/// because discovery cannot be read or finds nothing.
pub fn unguarded(guarded: &Guarded, facts: &Facts) -> Option<Guarded> {
    if !facts.discovered.has_masters() || guarded.kept.is_empty() {
        return None;
    }
    let stays = |old: &wire::Member| guarded.kept.iter().any(|member| member.name == old.name);
    let kept = facts.current.members.iter().filter(|old| stays(old));
    Some(Guarded {
        removed: guarded.removed.iter().chain(kept).cloned().collect(),
        ..Guarded::default()
    })
}

/// One decision under way.
struct Guard<'a> {
    spec: &'a ApiserverPoolSpec,
    facts: &'a Facts,
    memory: &'a Memory,
    wanted: &'a [Member],
    delay: Duration,
    guarded: Guarded,
}

/// Whether a dropped member may be removed.
enum Departure {
    /// It may be removed now, as far as the limits allow.
    Due,
    /// Its delay has not passed yet. The owner need not know.
    Waits { until: Instant, why: &'static str },
    /// It stays though its delay has passed, and the owner should know.
    Refused {
        look_again: Option<Instant>,
        why: String,
    },
}

impl Guard<'_> {
    fn decide(mut self, dropped: &[&wire::Member]) -> Guarded {
        let mut due = Vec::new();
        for old in dropped {
            match self.departure(old) {
                Departure::Due => due.push(*old),
                Departure::Waits { until, why } => self.keep(old, why.to_owned(), Some(until)),
                Departure::Refused { look_again, why } => self.refuse(old, why, look_again),
            }
        }
        self.remove(&due);
        self.guarded
    }

    fn departure(&self, old: &wire::Member) -> Departure {
        let now = self.facts.now;
        match &self.facts.discovered {
            Discovered::Unknown | Discovered::Off => Departure::Waits {
                until: now + self.delay,
                why: "the nodes cannot be read, so nothing is known to be gone",
            },
            Discovered::Masters(masters) if masters.is_empty() => Departure::Refused {
                look_again: None,
                why: "discovery finds no control-plane node at all, which is no reason to remove one"
                    .to_owned(),
            },
            Discovered::Masters(_) => {
                let absent_since = self.memory.absent.get(&old.name).copied();
                self.departure_since(old, absent_since.unwrap_or(now))
            }
        }
    }

    fn departure_since(&self, old: &wire::Member, absent_since: Instant) -> Departure {
        let now = self.facts.now;
        let time_is_up = absent_since + self.delay;
        let answered_at = self.facts.healths.verified_at(&old.addresses, old.port);
        let due_at = answered_at.map_or(time_is_up, |answered| time_is_up.max(answered + self.delay));
        if now < time_is_up {
            let why =
                "discovery dropped it; it goes after removalDelaySeconds unless it answers or comes back";
            Departure::Waits { until: due_at, why }
        } else if now < due_at {
            let why = format!(
                "discovery dropped it but its apiserver answers; to retire it add {{name: {}, state: Disabled}} to \
                 spec.members",
                old.name
            );
            Departure::Refused {
                look_again: Some(due_at),
                why,
            }
        } else if self.was_probed_since(old, absent_since) {
            Departure::Due
        } else {
            Departure::Waits {
                until: now + self.delay,
                why: "it has not been probed yet",
            }
        }
    }

    fn was_probed_since(&self, old: &wire::Member, since: Instant) -> bool {
        old.sockets().any(|socket| {
            let health = self.facts.healths.get(&socket);
            health.is_some_and(|health| health.probed_at >= since)
        })
    }

    /// Removes the members that are due, as far as the limits allow, and keeps the rest.
    fn remove(&mut self, due: &[&wire::Member]) {
        let healths = &self.facts.healths;
        let mut staying = self.wanted.iter().chain(&self.guarded.kept);
        let is_another_up = staying.any(|member| {
            member.state == PoolMemberState::Active && healths.is_up(&member.addresses, member.port)
        });
        let budget = self.budget();
        for (index, old) in due.iter().enumerate() {
            let why = if !is_another_up {
                "no other member is ready, so it may be the operator that is cut off"
            } else if index >= budget {
                "only a minority may go within one removalDelaySeconds"
            } else {
                self.guarded.removed.push((*old).clone());
                continue;
            };
            self.refuse(old, why.to_owned(), Some(self.facts.now + self.delay));
        }
    }

    /// How many members may still be removed within the current delay: never a majority.
    fn budget(&self) -> usize {
        let Facts { current, .. } = self.facts;
        let removals = &self.memory.removals;
        // A removed member that has come back is in force again and must not be counted twice.
        let absent = removals.iter().filter(|(old, _)| !current.has(old));
        let before = current.members.len().saturating_add(absent.count());
        let minority = (before.saturating_sub(1) / 2).max(1);
        minority.saturating_sub(removals.len())
    }

    fn refuse(&mut self, old: &wire::Member, why: String, look_again: Option<Instant>) {
        self.guarded.refused.push(format!("{} stays: {why}", old.name));
        self.keep(old, why, look_again);
    }

    fn keep(&mut self, old: &wire::Member, why: String, look_again: Option<Instant>) {
        let state = override_in_force(self.spec, old).map_or(PoolMemberState::Active, |entry| entry.state);
        let member = Member {
            note: why,
            state,
            addresses: members::without_those_of(self.wanted, old),
            ..Member::of_document(old, members::source_of(old, self.facts))
        };
        self.guarded.kept.push(member);
        let wait = look_again.map(|at| at.saturating_duration_since(self.facts.now));
        self.guarded.next_look = [self.guarded.next_look, wait].into_iter().flatten().min();
    }
}
