//! Builds a pool's status. Pure.

pub(super) mod certificates;
pub mod conditions;
mod dns;
mod drained;
mod members;
pub(super) mod progress;
mod proxies;
mod synced;
mod undated;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use trivet_crds::pool::{ApiserverPoolStatus, ProxiesStatus};

use crate::apply::Kind;
use crate::dns::published::Published;
use crate::health::Healths;
use crate::health::sighting::Sightings;
use crate::observe::availability::counts;
use crate::observe::proxies::Uncounted;
use crate::plan::Plan;
use crate::reports::fleet::Fleet;

/// What a status is built from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The generation of the spec that was planned for.
    pub generation: Option<i64>,
    /// What the pass decided.
    pub plan: &'a Plan,
    /// The name that certificates are verified by.
    pub server_name: &'a str,
    /// The health of the members.
    pub healths: &'a Healths,
    /// What the nodes see of them, by the document in force.
    pub sightings: &'a Sightings,
    /// The nodes, and what their proxies report.
    pub fleet: &'a Fleet,
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
    /// What is published of the pool in DNS, if the spec asks for it.
    pub published: Option<&'a Published>,
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
        .map(|member| members::status(member, seen))
        .collect();
    let revision = revision(seen);
    let synced = revision.map_or(0, |revision| seen.fleet.synced(revision.unsigned_abs()));
    let proxies = seen.daemon_set.map(|daemon_set| ProxiesStatus {
        synced: i32::try_from(synced).unwrap_or(i32::MAX),
        ..counts(daemon_set, seen.uncounted)
    });
    let mut status = ApiserverPoolStatus {
        observed_generation: seen.generation,
        conditions: Vec::new(),
        members_summary: members::summary(&members),
        members,
        proxies_summary: proxies.as_ref().map_or_else(String::new, |proxies| {
            format!("{}/{}", proxies.ready, proxies.desired)
        }),
        proxies,
        endpoints: seen.plan.endpoints.clone(),
        config_revision: revision,
        dns: dns::status(seen),
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
