//! Reports the result of a pass in the pool's status, in events and in metrics. It reads nothing and writes only changes.

pub mod events;
pub mod status;
pub mod stored;

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus, MemberStatus};
use trivet_crds::wire;

use self::events::{
    begins, certificate, dns_names, health_changes, membership_changes, notice, unreported, warnings,
};
use self::status::{Refusal, Seen, status};
use self::stored::Stored;
use crate::MANAGER;
use crate::api::events::{log, publish};
use crate::apply::{Applied, Kind};
use crate::context::{Context, PoolState};
use crate::health::Healths;
use crate::health::sighting::Sightings;
use crate::observe::bootstrap::Bootstrap;
use crate::observe::proxies::Proxies;
use crate::plan::{Facts, Plan, Verdict};
use crate::reports::{standbys, troubles};

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the status of pool {pool}")]
pub struct Error {
    pub(crate) pool: String,
    /// Why.
    pub source: kube::Error,
}

/// The facts and the results of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What it decided.
    pub plan: &'a Plan,
    /// What it has read.
    pub facts: &'a Facts,
    /// The proxies, as they were before.
    pub proxies: &'a Proxies,
    /// The writer of the standbys' manifests, as it was before.
    pub writer: &'a Bootstrap,
    /// What it has written.
    pub applied: &'a Applied,
}

impl Pass<'_> {
    /// The health of the members by what verifies them after the pass.
    fn healths(&self) -> &Healths {
        match self.plan.verdict {
            Verdict::Accepted { .. } => &self.facts.healths,
            Verdict::Paused { .. } | Verdict::Rejected { .. } => self.facts.healths_in_force(),
        }
    }

    /// The same, and what the nodes see, by which both the status and the names of the pool judge the members.
    pub(crate) fn health(&self) -> (&Healths, &Sightings) {
        (self.healths(), self.facts.healths_in_force().sightings())
    }

    /// The names of the members in force after the pass. If a write has failed without a response but taken effect, the next
    /// pass finds the new members.
    fn in_force(&self) -> BTreeSet<String> {
        let rollout = self.plan.rollout.as_ref();
        match rollout.filter(|_| self.applied.has_document()) {
            Some(rollout) => names(&rollout.document.members),
            None => names(&self.facts.current.members),
        }
    }
}

/// Whether an apiserver of the cluster has ever answered the operator or a proxy there.
fn is_proven(member: &MemberStatus, facts: &Facts) -> bool {
    let addresses = member.addresses.iter().filter_map(|text| text.parse().ok());
    let addresses: Vec<_> = addresses.collect();
    let healths = facts.healths_in_force();
    healths.verified_at(&addresses, member.port).is_some()
}

fn names(members: &[wire::Member]) -> BTreeSet<String> {
    members.iter().map(|member| member.name.clone()).collect()
}

/// Reports one pass over `pool`.
pub async fn report(ctx: &Context, pool: &ApiserverPool, pass: Pass<'_>) -> Result<(), Error> {
    let name = pool.name_any();
    let PoolState {
        uid,
        status: last,
        reported,
        told_members,
        unsent,
        stored,
        dns,
        ..
    } = ctx.pool_states.of(&name);
    let is_same_pool = uid == pool.metadata.uid;
    // The cache may be older than the last status that this operator has written.
    let previous = last.as_ref().filter(|_| is_same_pool).or(pool.status.as_ref());
    let failure = pass.applied.failure.as_ref();
    let refused = failure.and_then(|failure| {
        Some(Refusal {
            kind: failure.kind,
            reason: failure.reason(),
            words: failure.refusal()?,
        })
    });
    let by_reports = by_reports(ctx, &name, pass);
    let published = dns.to_tell();
    let (healths, sightings) = pass.health();
    let new = status(&Seen {
        generation: pool.metadata.generation,
        plan: pass.plan,
        server_name: &pool.spec.health_check.tls_server_name,
        healths,
        sightings,
        fleet: &pass.facts.fleet,
        daemon_set: pass.applied.proxies.object.as_ref(),
        writer: pass.applied.writer.object.as_ref(),
        writer_failures: &pass.writer.pods.failures,
        reported: &by_reports,
        uncounted: &pass.proxies.uncounted,
        failures: &pass.proxies.failures,
        refused: refused.as_ref(),
        published: published.as_ref(),
        previous,
        now: now(),
    });
    let warnings = warnings(pass.plan, failure);
    let mut notices = health_changes(previous, &new, |member| is_proven(member, pass.facts));
    notices.extend(certificate(previous, &new));
    notices.extend(dns_names(previous, &new));
    // A write that fails is tried again, and begins only once it has succeeded.
    let is_written = failure.is_none_or(|failure| failure.kind == Kind::Writer);
    notices.extend(begins(pass.plan).filter(|_| is_written));
    let in_force = pass.in_force();
    let told = told_members.filter(|_| is_same_pool);
    let told = told.unwrap_or_else(|| names(&pass.facts.current.members));
    notices.extend(membership_changes(&told, &in_force, pass.plan.revision));
    for warning in unreported(&warnings, &reported) {
        ctx.metrics.refused(&name, warning.0);
        notices.push(notice(warning));
    }
    ctx.metrics.revision(&name, pass.plan.revision);
    ctx.metrics.status(&name, &new);
    let current = pool.status.as_ref();
    let stored = stored.filter(|_| is_same_pool);
    let is_stored = stored
        .as_ref()
        .is_some_and(|stored| stored.has(&new, current, Instant::now()));
    let written = if current == Some(&new) || is_stored {
        Ok(())
    } else {
        write(ctx, pool, &new, stored).await
    };
    log(&name, &notices);
    let notices = unsent
        .into_iter()
        .filter(|_| is_same_pool)
        .chain(notices)
        .collect();
    let unsent = publish(&ctx.recorder, &pool.object_ref(&()), notices).await;
    // Also if the status could not be written: the next pass does not detect these changes again.
    ctx.pool_states.change(&name, |state| {
        state.uid.clone_from(&pool.metadata.uid);
        state.status = Some(new);
        state.reported = warnings.into_iter().map(|(_, note)| note).collect();
        state.told_members = Some(in_force);
        state.unsent = unsent;
    });
    written
}

/// What follows from the proxies' reports: what is wrong on some nodes, and which nodes have no standby, if the pool places
/// standbys.
fn by_reports(ctx: &Context, pool: &str, pass: Pass<'_>) -> Vec<String> {
    let node_count = pass.facts.node_count.unwrap_or_default();
    let mut sentences = troubles::sentences(pass.facts.fleet.shared(), node_count, now());
    if pass.plan.bootstrap.expects_standbys() {
        sentences.extend(standbys(ctx, pool, pass));
    } else {
        ctx.metrics.standbys(pool, None);
    }
    sentences
}

/// What is to be said about the standbys of the nodes that have a proxy.
fn standbys(ctx: &Context, pool: &str, pass: Pass<'_>) -> Vec<String> {
    if !pass.facts.fleet.has_read {
        ctx.metrics.standbys(pool, None);
        let unknown = "which nodes have a standby is not known: ProxyReports cannot be read, or their CRD is not installed";
        return vec![unknown.to_owned()];
    }
    let uncounted: BTreeSet<_> = pass
        .proxies
        .uncounted
        .iter()
        .map(|pod| pod.node.as_str())
        .collect();
    let nodes = pass.facts.in_place.nodes.iter().flatten();
    let counted = nodes.map(String::as_str).filter(|node| !uncounted.contains(node));
    let node_count = pass.facts.node_count.unwrap_or_default();
    let standbys = standbys::standbys(counted, pass.facts.fleet.shared(), node_count, now());
    ctx.metrics
        .standbys(pool, Some(standbys.without.len() + standbys.unreported.len()));
    standbys.sentences()
}

/// The time in the precision of the API, so that a status that was written and read again is equal.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Writes the status over the version of the pool that the pass has seen, or that its last write has left.
/// `before` is what became of the last write.
async fn write(
    ctx: &Context,
    pool: &ApiserverPool,
    status: &ApiserverPoolStatus,
    before: Option<Stored>,
) -> Result<(), Error> {
    let name = pool.name_any();
    let api: Api<ApiserverPool> = Api::all(ctx.client.clone());
    let seen = pool.resource_version();
    let versions = ctx.pool_states.change(&name, |state| state.versions.clone());
    let version = versions
        .filter(|(before, _)| *before == seen)
        .map_or_else(|| seen.clone(), |(_, after)| after);
    let patch = json!({
        "apiVersion": format!("{}/v1alpha1", trivet_crds::GROUP),
        "kind": "ApiserverPool",
        "metadata": { "name": name, "resourceVersion": version },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let mut written = api.patch_status(&name, &params, &Patch::Apply(patch)).await;
    if written.as_ref().is_err_and(lacks_a_field) {
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        written = api.patch_status(&name, &params, &patch).await;
    }
    match written {
        // The pool was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error { pool: name, source }),
        Ok(written) => {
            let versions = Some((seen, written.resource_version()));
            let stored = Stored::new(status, written.status, Instant::now());
            tell_lost(&name, &stored, before.as_ref());
            ctx.pool_states.change(&name, |state| {
                state.versions = versions;
                state.stored = Some(stored);
            });
            Ok(())
        }
    }
}

/// Logs which fields of the status the API server has dropped, once.
fn tell_lost(pool: &str, stored: &Stored, before: Option<&Stored>) {
    let is_told = before.is_some_and(|before| stored.lost.is_subset(&before.lost));
    if !stored.lost.is_empty() && !is_told {
        let fields = stored
            .lost
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        tracing::warn!(
            pool,
            fields,
            "the API server drops fields of the status: the CRD apiserverpools.trivet.dev is of an earlier release; apply the \
             CRDs of this release"
        );
    }
}

/// Whether the CRD of the cluster is of an earlier release. An apiserver refuses a server-side apply of a field that its
/// schema does not declare, and drops such a field of any other patch.
fn lacks_a_field(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.message.contains("field not declared in schema"))
}

#[cfg(test)]
mod tests;
