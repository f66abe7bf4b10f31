//! Builds a pool's status. Pure.

pub mod conditions;
pub(super) mod progress;
mod proxies;
mod undated;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, MemberStatus, PoolMemberState};

use crate::apply::Kind;
use crate::health::Healths;
use crate::observe::availability::counts;
use crate::observe::proxies::Uncounted;
use crate::plan::{Member, Plan};

/// The longest message of a member that the schema allows.
const MESSAGE_LIMIT: usize = 1024;

/// What a status is built from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The generation of the spec that was planned for.
    pub generation: Option<i64>,
    /// What the pass decided.
    pub plan: &'a Plan,
    /// The health of the members.
    pub healths: &'a Healths,
    /// The proxies, once there are any.
    pub daemon_set: Option<&'a DaemonSet>,
    /// The proxies that cannot be available because of their node.
    pub uncounted: &'a [Uncounted],
    /// Why pods of proxies fail: messages of the API server or kubelet.
    pub failures: &'a [String],
    /// The writer of the standbys' manifests, if there is one.
    pub writer: Option<&'a DaemonSet>,
    /// Why its pods fail.
    pub writer_failures: &'a [String],
    /// What follows from the proxies' reports.
    pub reported: &'a [String],
    /// The object that the API server has refused.
    pub refused: Option<&'a Refusal>,
    /// The status of the last pass.
    pub previous: Option<&'a ApiserverPoolStatus>,
    /// The time of the changes.
    pub now: Timestamp,
}

/// An object that the API server has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub kind: Kind,
    /// One fixed word.
    pub reason: &'static str,
    /// The error.
    pub words: String,
}

/// Builds the status.
pub fn status(seen: &Seen<'_>) -> ApiserverPoolStatus {
    let members: Vec<_> = seen
        .plan
        .members
        .iter()
        .map(|member| member_status(member, seen))
        .collect();
    let proxies = seen
        .daemon_set
        .map(|daemon_set| counts(daemon_set, seen.uncounted));
    let mut status = ApiserverPoolStatus {
        observed_generation: seen.generation,
        conditions: Vec::new(),
        members_summary: members_summary(&members),
        members,
        proxies_summary: proxies.as_ref().map_or_else(String::new, |proxies| {
            format!("{}/{}", proxies.ready, proxies.desired)
        }),
        proxies,
        endpoints: seen.plan.endpoints.clone(),
        config_revision: revision(seen),
    };
    status.conditions = conditions::conditions(seen, &status);
    status
}

/// The condition of this type, if there is one.
pub fn condition<'a>(status: &'a ApiserverPoolStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn member_status(member: &Member, seen: &Seen<'_>) -> MemberStatus {
    let is_disabled = member.state == PoolMemberState::Disabled;
    let known = seen
        .healths
        .of(&member.addresses, member.port)
        .filter(|_| !is_disabled);
    let health = known.map_or(MemberHealth::Unknown, |known| known.state);
    let before = seen
        .previous
        .iter()
        .flat_map(|status| &status.members)
        .find(|old| old.name == member.name);
    let unchanged_since = before
        .filter(|old| old.health == health)
        .and_then(|old| old.last_transition_time.clone());
    let probed = known.map_or("", |known| known.message.as_str());
    let disabled = if is_disabled {
        "it is Disabled: no proxy uses it"
    } else {
        ""
    };
    let message = [disabled, probed, &member.note]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>();
    MemberStatus {
        name: member.name.clone(),
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        port: member.port,
        source: member.source,
        node_name: member.node_name.clone(),
        zone: member.zone.clone(),
        state: member.state,
        health,
        last_transition_time: Some(unchanged_since.unwrap_or(Time(seen.now))),
        message: message.join("; ").chars().take(MESSAGE_LIMIT).collect(),
    }
}

fn members_summary(members: &[MemberStatus]) -> String {
    let active: Vec<_> = members
        .iter()
        .filter(|member| member.state == PoolMemberState::Active)
        .collect();
    let up = active
        .iter()
        .filter(|member| member.health == MemberHealth::Up)
        .count();
    format!("{up}/{}", active.len())
}

/// The revision in force, which is that of the new document unless the API server has refused it.
fn revision(seen: &Seen<'_>) -> Option<i64> {
    match seen.refused.map(|refused| refused.kind) {
        Some(Kind::ConfigMap) => seen.previous?.config_revision,
        Some(Kind::DaemonSet | Kind::Writer) | None => i64::try_from(seen.plan.revision)
            .ok()
            .filter(|revision| *revision > 0),
    }
}

#[cfg(test)]
mod tests;
