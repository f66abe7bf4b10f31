//! Membership never shrinks by accident.
//!
//! A member leaves the pool when its owner says so in the spec, or when discovery's source has dropped it for the whole
//! removal delay and it gave no verified answer all the while. A label typo, a deleted Node object or an empty list is
//! one source's word against an apiserver that answers, and is not enough.

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

/// Whether a dropped member may go.
enum Ruling {
    /// It may go now, if the limits allow it.
    Due,
    /// It has to wait: that is the normal course of things.
    Waits { until: Instant, why: String },
    /// It stays although its time is up, and the owner should know.
    Refused {
        look_again: Option<Instant>,
        why: String,
    },
}

/// Decides which members in force stay although `wanted` does not have them. `allow` is the owner's yes to removals.
pub fn guard(spec: &ApiserverPoolSpec, facts: &Facts, wanted: &[Member], allow: bool) -> Guarded {
    let delay = Duration::from_secs(u64::from(spec.discovery.removal_delay_seconds));
    let mut guarded = Guarded {
        memory: remembered(facts, delay),
        ..Guarded::default()
    };
    let mut due = Vec::new();
    for old in facts
        .current
        .members
        .iter()
        .filter(|old| is_dropped_by_discovery(old, spec, facts, wanted))
    {
        if allow {
            due.push(old);
            continue;
        }
        match ruling(old, facts, delay, &mut guarded.memory) {
            Ruling::Due => due.push(old),
            Ruling::Waits { until, why } => guarded.keep(spec, old, why, Some(until), facts.now),
            Ruling::Refused { look_again, why } => {
                guarded.refused.push(format!("{} stays: {why}", old.name));
                guarded.keep(spec, old, why, look_again, facts.now);
            }
        }
    }
    remove(
        spec,
        facts,
        wanted,
        due,
        if allow {
            usize::MAX
        } else {
            budget(facts, &guarded.memory)
        },
        &mut guarded,
    );
    guarded
        .memory
        .absent
        .retain(|name, _| guarded.kept.iter().any(|kept| &kept.name == name));
    guarded
}

/// Takes the members that are due out, as far as the limits allow, and keeps the rest.
fn remove(
    spec: &ApiserverPoolSpec,
    facts: &Facts,
    wanted: &[Member],
    due: Vec<&wire::Member>,
    budget: usize,
    guarded: &mut Guarded,
) {
    let delay = Duration::from_secs(u64::from(spec.discovery.removal_delay_seconds));
    let is_up = |member: &Member| {
        member.state == PoolMemberState::Active && facts.healths.is_up(&member.addresses, member.port)
    };
    let somebody_is_up = wanted.iter().chain(&guarded.kept).any(is_up);
    for (index, old) in due.into_iter().enumerate() {
        let why = if !somebody_is_up && budget != usize::MAX {
            "no other member is ready, so it may be the operator that is cut off"
        } else if index >= budget {
            "only a minority may go within one removalDelaySeconds"
        } else {
            guarded.memory.removals.push(facts.now);
            continue;
        };
        guarded.refused.push(format!("{} stays: {why}", old.name));
        guarded.keep(spec, old, why.to_owned(), Some(facts.now + delay), facts.now);
    }
}

/// How many members may still go within the current delay: never a majority.
fn budget(facts: &Facts, memory: &Memory) -> usize {
    let before = facts.current.members.len().saturating_add(memory.removals.len());
    let minority = (before.saturating_sub(1) / 2).max(1);
    minority.saturating_sub(memory.removals.len())
}

/// The memory without what is over.
fn remembered(facts: &Facts, delay: Duration) -> Memory {
    let mut memory = facts.memory.clone();
    memory
        .removals
        .retain(|at| facts.now.saturating_duration_since(*at) < delay);
    memory
}

/// Whether `old` is in force, is named by nobody any more, and was discovery's to begin with.
fn is_dropped_by_discovery(
    old: &wire::Member,
    spec: &ApiserverPoolSpec,
    facts: &Facts,
    wanted: &[Member],
) -> bool {
    let is_wanted = wanted
        .iter()
        .any(|member| member.name == old.name || member.is_same_server(old));
    let is_owners = facts.current.explicit.contains(&old.name) || facts.discovered == Discovered::Off;
    let is_disabled =
        override_of(spec, &old.name).is_some_and(|entry| entry.state == PoolMemberState::Disabled);
    !(is_wanted || is_owners || is_disabled)
}

fn ruling(old: &wire::Member, facts: &Facts, delay: Duration, memory: &mut Memory) -> Ruling {
    match &facts.discovered {
        Discovered::Unknown | Discovered::Off => {
            // Not known to be gone: its time has not even begun.
            memory.absent.remove(&old.name);
            let why = "the nodes cannot be read, so nothing is known to be gone".to_owned();
            return Ruling::Waits {
                until: facts.now + delay,
                why,
            };
        }
        Discovered::Masters(masters) if masters.is_empty() => {
            memory.absent.remove(&old.name);
            let why =
                "discovery finds no control-plane node at all, which is no reason to remove one".to_owned();
            return Ruling::Refused {
                look_again: None,
                why,
            };
        }
        Discovered::Masters(_) => {}
    }
    let absent_since = *memory.absent.entry(old.name.clone()).or_insert(facts.now);
    let answered_at = facts.healths.verified_at(&old.addresses, old.port);
    let time_is_up = absent_since + delay;
    let due_at = answered_at.map_or(time_is_up, |answered| time_is_up.max(answered + delay));
    let was_probed_since = old.addresses.iter().any(|ip| {
        let health = facts.healths.get(&std::net::SocketAddr::new(*ip, old.port));
        health.is_some_and(|health| health.probed_at >= absent_since)
    });
    if facts.now < time_is_up {
        let why = "discovery dropped it; it goes after removalDelaySeconds unless it answers or comes back"
            .to_owned();
        Ruling::Waits { until: due_at, why }
    } else if facts.now < due_at {
        let why = format!(
            "discovery dropped it but its apiserver answers; to retire it add {{name: {}, state: Disabled}} to spec.members",
            old.name
        );
        Ruling::Refused {
            look_again: Some(due_at),
            why,
        }
    } else if was_probed_since {
        Ruling::Due
    } else {
        Ruling::Waits {
            until: facts.now + delay,
            why: "it has not been probed yet".to_owned(),
        }
    }
}

impl Guarded {
    fn keep(
        &mut self,
        spec: &ApiserverPoolSpec,
        old: &wire::Member,
        why: String,
        look_again: Option<Instant>,
        now: Instant,
    ) {
        let mut member = Member {
            note: why,
            ..Member::of_document(old, MemberSource::Node)
        };
        if let Some(entry) = override_of(spec, &old.name) {
            member.state = entry.state;
        } else {
            member.state = PoolMemberState::Active;
        }
        self.kept.push(member);
        let wait = look_again.map(|at| at.saturating_duration_since(now));
        self.next_look = [self.next_look, wait].into_iter().flatten().min();
    }
}
