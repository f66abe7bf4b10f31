//! Decides what should be in force for a pool. Pure: facts in, plan out.
//!
//! After this module nobody looks at the pool's spec again.

pub mod additions;
pub mod bootstrap;
pub mod conflict;
pub mod document;
pub mod endpoints;
pub mod facts;
pub mod fitness;
pub mod growth;
pub mod history;
pub mod last_good;
pub mod masters;
pub mod members;
pub mod membership;
mod paused;
pub mod permission;
pub mod ports;
pub mod rejection;
pub mod restored;
pub mod revision;
pub mod rival;
pub mod scope;
pub mod shrink;
pub mod sight;
pub mod stalls;
pub mod trust;
pub mod wave;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, ManagementPolicy, PoolRollout, ProxyTemplate};
use trivet_crds::wire::{self, Document, Later};

use self::bootstrap::{Availability, BootstrapFacts, Phase, Target};
use self::document::Next;
pub use self::facts::{Current, Facts, Hindrance, Marks, Memory};
use self::fitness::{Edit, Fitness, is_healthy};
use self::growth::{Growth, growth};
pub use self::members::Member;
use self::members::Wanted;
use self::permission::Permission;
pub use self::rejection::Rejection;
use self::wave::Wish;
use crate::render::config_map::{ACCEPTED_DISCOVERY, NAMED_MEMBERS};

/// What one pass changes, and what it has found.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether the spec is obeyed: accepted with notes, or rejected.
    pub verdict: Verdict,
    /// What to write; `None` leaves everything as it is.
    pub rollout: Option<Rollout>,
    /// The members in force afterwards, and the disabled ones.
    pub members: Vec<Member>,
    /// The revision in force afterwards; 0 if there is none.
    pub revision: u64,
    /// What a kubeconfig on the nodes says.
    pub endpoints: Vec<String>,
    /// What the next pass must know, also if nothing can be written.
    pub memory: Memory,
    /// How far the bootstrap of the nodes is.
    pub bootstrap: Phase,
    /// How far the rollout of the proxies' template is.
    pub waves: wave::Phase,
    /// The template that begins to be rolled out with this pass.
    pub begins: Option<String>,
    /// What keeps the operator from following the cluster.
    pub hindrances: Vec<Hindrance>,
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
    /// The owner has paused the management of the pool: what was in force stays.
    Paused {
        /// What stays.
        notes: Vec<String>,
    },
    /// It is not: what was in force stays.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// What stays in force, and what is added to it.
        notes: Vec<String>,
    },
}

/// The objects' content.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// What the proxies follow.
    pub document: Document,
    /// What is written with it, because a later release has, and it takes the place of that document.
    pub later: Later,
    /// What is noted beside it.
    pub marks: Marks,
    /// Whether the ConfigMap has both already.
    pub is_written: bool,
    /// The resourceVersion of the ConfigMap that this plan was made for: a write over another one fails.
    pub version: Option<String>,
    /// How the proxies run; `None` leaves the DaemonSet as it is.
    pub proxies: Option<Proxies>,
    /// What the writer of the standbys' manifests should do; `None` leaves it as it is.
    pub writer: Option<Target>,
}

/// How a pool's proxies run.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxies {
    /// Their pods.
    pub proxy: ProxyTemplate,
    /// How they are replaced.
    pub rollout: PoolRollout,
    /// The template of their pods, if it is not the one that `proxy` asks for.
    pub template: Option<Arc<PodTemplateSpec>>,
    /// What is noted of their rollouts.
    pub record: wave::Record,
}

impl Proxies {
    /// As the spec of `pool` asks for.
    pub fn wanted(spec: &ApiserverPoolSpec) -> Self {
        Self {
            proxy: spec.proxy.clone(),
            rollout: spec.rollout.clone(),
            template: None,
            record: wave::Record::default(),
        }
    }

    /// As `spec` asks for, as far as the waves let it.
    fn decided(spec: &ApiserverPoolSpec, waves: wave::Decision) -> Self {
        Self {
            rollout: PoolRollout {
                min_ready_seconds: waves.min_ready_seconds,
                max_parallel: waves.max_surge,
                ..spec.rollout.clone()
            },
            template: waves.template,
            record: waves.record,
            ..Self::wanted(spec)
        }
    }
}

/// Makes the plan for `pool`.
pub fn plan(pool: &ApiserverPool, facts: &Facts) -> Result<Plan, wire::Error> {
    let spec = &pool.spec;
    let wanted = members::wanted(spec, facts);
    let dropped = shrink::dropped(spec, facts, &wanted.members);
    let memory = history::remember(facts, &dropped, pool);
    if pool.spec.management == ManagementPolicy::Paused {
        return paused::plan(pool, facts, memory);
    }
    match obey(pool, facts, &wanted, &dropped, &memory) {
        Ok(plan) => Ok(plan),
        Err(Obstacle::Rejection(rejection)) => rejected(rejection, pool, facts, memory),
        Err(Obstacle::Document(error)) => Err(error),
    }
}

/// Why there is no plan that obeys the spec.
enum Obstacle {
    Rejection(Rejection),
    Document(wire::Error),
}

impl From<Rejection> for Obstacle {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl From<wire::Error> for Obstacle {
    fn from(error: wire::Error) -> Self {
        Self::Document(error)
    }
}

/// The plan that obeys the spec. `dropped` are the members in force that neither spec nor discovery has any more.
fn obey(
    pool: &ApiserverPool,
    facts: &Facts,
    wanted: &Wanted,
    dropped: &[&wire::Member],
    memory: &Memory,
) -> Result<Plan, Obstacle> {
    let spec = &pool.spec;
    document::check_in_force(pool, facts)?;
    let listeners = document::listeners(spec)?;
    let endpoints = document::endpoints(&listeners);
    ports::check_own(&listeners, &spec.proxy)?;
    conflict::check(&conflict::claims(&listeners, &spec.proxy.metrics), facts)?;
    trust::check_server_name(spec, facts)?;
    scope::guard::check(pool, facts)?;

    let permission = Permission::of(pool, memory);
    let guarded = shrink::guard(spec, facts, memory, &wanted.members, dropped);
    let unguarded = shrink::unguarded(&guarded, facts).filter(|_| permission.is_open());
    let is_guard_overruled = unguarded.is_some();
    let guarded = unguarded.unwrap_or(guarded);
    let mut members = wanted.members.clone();
    members.extend(guarded.kept);
    members.sort_by(|a, b| a.name.cmp(&b.name));
    ports::check_apiservers(&listeners, &spec.proxy, &members, facts)?;
    let edit = Edit {
        members: &members,
        wanted,
        generation: pool.metadata.generation,
        permission: &permission,
    };
    let fitness = edit.check(facts, memory)?;
    let is_permission_used = is_guard_overruled || fitness == Fitness::Permitted;

    let records = revision::records(facts, memory);
    let wish = Wish {
        template: &facts.template,
        rollout: &spec.rollout,
        retry: &permission::retry(pool),
    };
    let waves = restored::waves(facts, &records);
    let waves = wave::decide(&wish, &waves, memory.vigil.lasts());
    let further = endpoints::further::further(spec, &members, facts, memory);
    let further_since = further.since.clone();
    let next = Next {
        lasting: restored::lasting(facts, &records),
        revision: revision::next(facts, &records),
        rollout: waves.target.clone(),
        further,
    };
    let document = document::build(pool, listeners, &members, facts, next)?;
    let marks = Marks {
        explicit: explicit(spec),
        named: named(spec),
        used_permission: permission.used(is_permission_used, memory),
        discovery: Some(spec.discovery.clone()),
        unread: kept_notes(&facts.current.marks),
    };
    let is_written = facts.current.document.as_ref() == Some(&document) && facts.current.marks == marks;
    let mut notes: Vec<_> = permission.note(is_permission_used).into_iter().collect();
    notes.extend(wanted.notes.iter().cloned());
    notes.extend(records.notes);
    notes.extend(sight_note(&members, facts));
    let bootstrap = after_waves(&facts.bootstrap, &waves.phase);
    notes.extend(bootstrap::pull_secrets_note(
        &spec.node_bootstrap,
        &spec.proxy,
        &bootstrap,
    ));
    let standbys = bootstrap::decide(&spec.node_bootstrap, &facts.template, &bootstrap, &memory.soak);
    Ok(Plan {
        verdict: Verdict::Accepted {
            notes,
            refused_removals: guarded.refused,
        },
        revision: document.revision,
        memory: Memory {
            revision: document.revision,
            membership: memory.membership.next(&members, document.revision),
            leaving: guarded.removed,
            further: further_since,
            ..memory.clone()
        },
        next_look: [guarded.next_look, standbys.next_look, waves.next_look]
            .into_iter()
            .flatten()
            .min(),
        endpoints,
        bootstrap: standbys.phase,
        waves: waves.phase.clone(),
        begins: waves.begins.then(|| facts.template.clone()),
        hindrances: facts.hindrances.clone(),
        rollout: Some(Rollout {
            document,
            later: facts.current.later.clone(),
            marks,
            is_written,
            version: facts.current.version.clone(),
            // The writer's pods run with what the spec asks for.
            writer: standbys.target.filter(|_| waves.template.is_none()),
            proxies: (!waves.is_blind).then(|| Proxies::decided(spec, waves)),
        }),
        members,
    })
}

/// What the operator sees of the members, if that is unusual.
fn sight_note(members: &[Member], facts: &Facts) -> Option<String> {
    if members.iter().any(|member| is_healthy(member, facts)) {
        return None;
    }
    let Some(why) = fitness::unreached(members, &facts.healths) else {
        let note = "no active member is ready as seen from the operator or from most nodes; proxies use what answers them";
        return Some(note.to_owned());
    };
    Some(format!(
        "the operator cannot judge the members, because it reaches none of them ({why}); it obeys edits without a check, \
         and proxies use what answers them"
    ))
}

/// The plan that leaves the last good spec in force. It still remembers what this pass has seen, and members that
/// discovery has found meanwhile are added.
fn rejected(
    rejection: Rejection,
    pool: &ApiserverPool,
    facts: &Facts,
    mut memory: Memory,
) -> Result<Plan, wire::Error> {
    if matches!(rejection, Rejection::NoHealthyMember { .. }) && sight::reaches_a_member(facts) {
        memory.judged = pool.metadata.generation;
    }
    let Growth { document, notes } = growth(pool, facts, &memory)?;
    let verdict = Verdict::Rejected { rejection, notes };
    stand_still(verdict, document, &pool.spec.rollout, pool, facts, memory)
}

/// The plan that leaves in force what is, but for `document` if there is one. A rollout that has begun goes on by `rollout`.
fn stand_still(
    verdict: Verdict,
    document: Option<Document>,
    rollout: &PoolRollout,
    pool: &ApiserverPool,
    facts: &Facts,
    mut memory: Memory,
) -> Result<Plan, wire::Error> {
    let listeners = document::listeners(&pool.spec).unwrap_or_default();
    let waves = restored::waves(facts, &revision::records(facts, &memory));
    let waves = wave::decide_in_place(rollout, &waves, memory.vigil.lasts());
    let document = with_target(document, waves.as_ref(), facts, &memory)?;
    let members = document
        .as_ref()
        .map_or(&facts.current.members, |document| &document.members);
    let members: Vec<_> = members.iter().map(|member| in_force(member, facts)).collect();
    if let Some(document) = &document {
        memory.revision = document.revision;
    }
    let revision = document.as_ref().map(|document| document.revision);
    let revision = revision.unwrap_or_else(|| revision_in_force(facts, &memory));
    memory.membership = memory.membership.next(&members, revision);
    Ok(Plan {
        verdict,
        revision,
        next_look: waves.as_ref().and_then(|waves| waves.next_look),
        waves: waves
            .as_ref()
            .map(|waves| waves.phase.clone())
            .unwrap_or_default(),
        rollout: standing(document, waves, pool, facts),
        members,
        endpoints: document::endpoints(&listeners),
        memory,
        bootstrap: Phase::Off,
        begins: None,
        hindrances: facts.hindrances.clone(),
    })
}

/// The document with what the waves of the template in place ask for. It is a new one if that is something else.
fn with_target(
    document: Option<Document>,
    waves: Option<&wave::Decision>,
    facts: &Facts,
    memory: &Memory,
) -> Result<Option<Document>, wire::Error> {
    let current = revision::followed(facts);
    let Some(waves) = waves.filter(|waves| current.is_some_and(|current| current.rollout != waves.target))
    else {
        return Ok(document);
    };
    let next = || {
        Some(Document {
            revision: revision::next(facts, &revision::records(facts, memory)),
            ..current?.clone()
        })
    };
    let document = document.or_else(next).map(|document| Document {
        rollout: waves.target.clone(),
        ..document
    });
    let seal = |document: Document| document.seal_with(&facts.current.later);
    document.map(seal).transpose()
}

/// What is written while a spec is rejected: a document that something was added to, and what a rollout that has begun before
/// asks for.
fn standing(
    document: Option<Document>,
    waves: Option<wave::Decision>,
    pool: &ApiserverPool,
    facts: &Facts,
) -> Option<Rollout> {
    let is_written = document.is_none();
    let in_force = || waves.as_ref().and(facts.current.document.clone());
    Some(Rollout {
        document: document.or_else(in_force)?,
        later: facts.current.later.clone(),
        marks: facts.current.marks.clone(),
        is_written,
        version: facts.current.version.clone(),
        proxies: waves.map(|waves| Proxies::decided(&pool.spec, waves)),
        writer: None,
    })
}

/// The standbys follow only a template whose waves are complete.
fn after_waves(facts: &BootstrapFacts, waves: &wave::Phase) -> BootstrapFacts {
    let proxies = &facts.proxies;
    BootstrapFacts {
        proxies: Availability {
            is_complete: proxies.is_complete && waves.is_settled(),
            ..proxies.clone()
        },
        ..facts.clone()
    }
}

/// Where the document is lost, the highest of the past: the next one must be higher.
fn revision_in_force(facts: &Facts, memory: &Memory) -> u64 {
    let document = facts.current.document.as_ref();
    document.map_or_else(
        || revision::records(facts, memory).highest,
        |document| document.revision,
    )
}

fn in_force(member: &wire::Member, facts: &Facts) -> Member {
    Member::of_document(member, members::source_of(member, facts))
}

/// The notes of a later release that stay beside those of a spec that is accepted.
fn kept_notes(marks: &Marks) -> BTreeMap<String, String> {
    let is_replaced = |name: &str| [ACCEPTED_DISCOVERY, NAMED_MEMBERS].contains(&name);
    let kept = marks.unread.iter().filter(|(name, _)| !is_replaced(name));
    kept.map(|(name, text)| (name.clone(), text.clone())).collect()
}

fn explicit(spec: &ApiserverPoolSpec) -> BTreeSet<String> {
    let listed = spec.members.iter().filter(|member| !member.addresses.is_empty());
    listed.map(|member| member.name.clone()).collect()
}

fn named(spec: &ApiserverPoolSpec) -> BTreeMap<String, Vec<String>> {
    let is_name = |text: &String| text.parse::<IpAddr>().is_err();
    let listed = spec
        .members
        .iter()
        .filter(|member| member.addresses.iter().any(is_name));
    listed
        .map(|member| (member.name.clone(), member.addresses.clone()))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
