//! Decides what should be in force for a pool. Pure: facts in, plan out.
//!
//! After this module nobody looks at the pool's spec again.

pub mod conflict;
pub mod document;
pub mod facts;
pub mod masters;
pub mod members;
pub mod rejection;
pub mod shrink;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, MemberSource, PoolMemberState, ProxyTemplate};
use trivet_crds::wire::{self, Document, MAX_MEMBERS};

pub use self::facts::{Current, Facts, Memory};
pub use self::members::Member;
pub use self::rejection::Rejection;
use self::shrink::Guarded;

/// The annotation with which a pool's owner lets discovery remove members at once. Its value is the pool's generation,
/// so that it says yes to one state of the spec and not to every later one.
pub const ALLOW_SHRINK: &str = "trivet.dev/allow-shrink";

/// What a pass is to bring about.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether the spec is obeyed: accepted with notes, or rejected.
    pub verdict: Verdict,
    /// What to write; `None` leaves everything as it is.
    pub rollout: Option<Rollout>,
    /// The members in force afterwards, and the disabled ones.
    pub members: Vec<Member>,
    /// Names that are in the new document and were not in the old one, and the other way round.
    pub changes: Changes,
    /// The revision in force afterwards; 0 if there is none.
    pub revision: u64,
    /// What a kubeconfig on the nodes says.
    pub endpoints: Vec<String>,
    /// What the next pass must know.
    pub memory: Memory,
    /// When something becomes due by itself.
    pub next_look: Option<Duration>,
}

/// Whether the spec is obeyed: accepted with notes, or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is, with these remarks for its owner.
    Accepted {
        /// What was left out or is unusual.
        notes: Vec<String>,
        /// Removals that discovery wanted and did not get, one sentence each.
        refused_removals: Vec<String>,
    },
    /// It is not: what was in force stays.
    Rejected(Rejection),
}

/// The objects' content.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// What the proxies follow.
    pub document: Document,
    /// Whether it must be written.
    pub is_new: bool,
    /// Names of the members that the spec lists with addresses, for the next pass.
    pub explicit: BTreeSet<String>,
    /// The resourceVersion of the ConfigMap that this plan was made for: a write over another one fails.
    pub version: Option<String>,
    /// How the proxies' pods look.
    pub template: ProxyTemplate,
}

/// Members that came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names in the new document only.
    pub added: Vec<String>,
    /// Names in the old document only.
    pub removed: Vec<String>,
}

/// Makes the plan for `pool`.
pub fn plan(pool: &ApiserverPool, facts: &Facts) -> Result<Plan, wire::Error> {
    let spec = &pool.spec;
    let name = pool.name_any();
    let listeners = match document::listeners(spec) {
        Ok(listeners) => listeners,
        Err(rejection) => return Ok(rejected(rejection, facts, Vec::new())),
    };
    let endpoints = document::endpoints(&listeners);
    if let Some(rejection) = conflict::find(&listeners, &spec.proxy.metrics, facts) {
        return Ok(rejected(rejection, facts, endpoints));
    }

    let allow = is_shrink_allowed(pool);
    let wanted = members::wanted(spec, facts);
    let guarded = if allow {
        Guarded::default()
    } else {
        shrink::guard(spec, facts, &wanted.members)
    };
    let mut members = wanted.members;
    members.extend(guarded.kept);
    members.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(rejection) = unfit(&members, &wanted.notes, facts, allow) {
        return Ok(rejected(rejection, facts, endpoints));
    }

    let document = document::build(&name, spec, listeners, &members, facts)?;
    let is_new = facts.current.document.as_ref() != Some(&document);
    let mut notes = wanted.notes;
    if !members.iter().any(|member| is_healthy(member, facts)) {
        notes.push(
            "no active member is ready as seen from the operator; proxies use what answers them".to_owned(),
        );
    }
    Ok(Plan {
        verdict: Verdict::Accepted {
            notes,
            refused_removals: guarded.refused,
        },
        changes: changes(&facts.current.members, &document.members),
        revision: document.revision,
        memory: Memory {
            revision: document.revision,
            ..guarded.memory
        },
        next_look: guarded.next_look,
        endpoints,
        rollout: Some(Rollout {
            document,
            is_new,
            explicit: explicit(spec),
            version: facts.current.version.clone(),
            template: spec.proxy.clone(),
        }),
        members,
    })
}

/// Why these members cannot be put in force; `None` if they can.
fn unfit(members: &[Member], notes: &[String], facts: &Facts, allow: bool) -> Option<Rejection> {
    let withdrawn = withdrawn(members, facts);
    let leaves_nobody = !members.iter().any(|member| is_healthy(member, facts));
    if leaves_nobody && !withdrawn.is_empty() && !allow {
        return Some(Rejection::NoHealthyMember { withdrawn });
    }
    match members
        .iter()
        .filter(|member| member.state != PoolMemberState::Disabled)
        .count()
    {
        0 => Some(Rejection::NoMembers {
            notes: notes.to_vec(),
        }),
        found if found > MAX_MEMBERS => Some(Rejection::TooManyMembers { found }),
        _ => None,
    }
}

/// The members in force that would get no new connection any more.
fn withdrawn(members: &[Member], facts: &Facts) -> Vec<String> {
    let stays = |old: &wire::Member| {
        members
            .iter()
            .any(|new| new.state == PoolMemberState::Active && new.is_same_server(old))
    };
    let active = facts
        .current
        .members
        .iter()
        .filter(|old| old.state == wire::MemberState::Active);
    active
        .filter(|old| !stays(old))
        .map(|old| old.name.clone())
        .collect()
}

/// The plan that changes nothing.
fn rejected(rejection: Rejection, facts: &Facts, endpoints: Vec<String>) -> Plan {
    Plan {
        verdict: Verdict::Rejected(rejection),
        rollout: None,
        members: facts
            .current
            .members
            .iter()
            .map(|member| in_force(member, facts))
            .collect(),
        changes: Changes::default(),
        // Also where the document is lost: the next one must be higher.
        revision: facts.current.highest_revision,
        endpoints,
        memory: facts.memory.clone(),
        next_look: None,
    }
}

fn in_force(member: &wire::Member, facts: &Facts) -> Member {
    let source = if facts.current.explicit.contains(&member.name) {
        MemberSource::Spec
    } else {
        MemberSource::Node
    };
    Member::of_document(member, source)
}

fn is_healthy(member: &Member, facts: &Facts) -> bool {
    member.state == PoolMemberState::Active && facts.healths.is_up(&member.addresses, member.port)
}

fn is_shrink_allowed(pool: &ApiserverPool) -> bool {
    let said = pool.annotations().get(ALLOW_SHRINK);
    let generation = pool.metadata.generation.map(|generation| generation.to_string());
    said.is_some() && said.map(|value| value.trim()) == generation.as_deref()
}

fn explicit(spec: &ApiserverPoolSpec) -> BTreeSet<String> {
    let listed = spec.members.iter().filter(|member| !member.addresses.is_empty());
    listed.map(|member| member.name.clone()).collect()
}

fn changes(old: &[wire::Member], new: &[wire::Member]) -> Changes {
    let only_in = |these: &[wire::Member], others: &[wire::Member]| {
        let others: BTreeSet<_> = others.iter().map(|member| member.name.as_str()).collect();
        let names = these.iter().map(|member| &member.name);
        names
            .filter(|name| !others.contains(name.as_str()))
            .cloned()
            .collect()
    };
    Changes {
        added: only_in(new, old),
        removed: only_in(old, new),
    }
}

#[cfg(test)]
pub(crate) mod tests;
