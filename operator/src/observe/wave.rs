//! Reads what the waves of a rollout depend on: the DaemonSet with the operator's notes, its pods by node, what their
//! proxies report, and while the first node soaks its Lease.

mod limit;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use trivet_crds::report::FILES_EXHAUSTED;
use trivet_crds::wire::{Document, GatePolicy, RolloutTarget};
use trivet_crds::{POOL_LABEL, TEMPLATE_LABEL};

use super::availability::{counts, is_complete, is_seen};
use super::caches::Caches;
use super::proxies::{Proxies, is_ready, node_of, ready_at, why_no_pods};
use super::recent::Unstarted;
use super::rows::PodRow;
use super::words::failure;
use crate::api::watch;
use crate::context::Context;
use crate::logging::chain;
use crate::plan::wave::{Aside, Newcomer, NodeFacts, Record, Reported, Template, WaveFacts};
use crate::render::daemon_set::ROLLOUT;
use crate::reports::NodeReport;
use crate::reports::fleet::Fleet;

/// Where kubelets keep the Leases of their nodes.
const LEASES: &str = "kube-node-lease";

/// What the rollout of `pool` depends on. `document` is the one in force.
pub async fn observe(
    ctx: &Context,
    pool: &str,
    (caches, proxies, fleet): (&Caches, &Proxies, &Fleet),
    document: Option<&Document>,
) -> WaveFacts {
    let target = document
        .map(|document| document.rollout.clone())
        .unwrap_or_default();
    let facts = WaveFacts {
        now: caches.at.as_second(),
        is_blind: !(caches.are_nodes_read && caches.are_pods_read),
        lacks_reports: !caches.are_reports_read,
        soak: ctx.settings.rollout_soak_seconds,
        target,
        ..WaveFacts::default()
    };
    let Some(daemon_set) = &proxies.daemon_set else {
        return facts;
    };
    let in_place = template(daemon_set);
    let record = record(daemon_set);
    let (good, lease_renewed) = tokio::join!(
        good(ctx, pool, &record, &in_place.hash),
        lease_renewed(ctx, &facts.target, &in_place.hash)
    );
    WaveFacts {
        good,
        is_complete: is_seen(daemon_set) && is_complete(&counts(daemon_set, &proxies.uncounted)),
        desired: desired(daemon_set),
        nodes: nodes(
            (caches, fleet),
            proxies,
            &in_place.hash,
            document.map_or(0, |document| document.revision),
        ),
        memory_limit_mebibytes: limit::memory_mebibytes(&in_place.content),
        in_place: Some(in_place),
        record,
        lease_renewed,
        ..facts
    }
}

fn desired(daemon_set: &DaemonSet) -> u32 {
    let status = daemon_set.status.as_ref();
    let desired = status.map(|status| status.desired_number_scheduled);
    desired.unwrap_or_default().try_into().unwrap_or_default()
}

/// The template of a DaemonSet.
fn template(daemon_set: &DaemonSet) -> Template {
    let content = daemon_set
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    Template {
        hash: hash(&content),
        content: Arc::new(content),
    }
}

fn hash(template: &PodTemplateSpec) -> String {
    let labels = template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.as_ref());
    labels
        .and_then(|labels| labels.get(TEMPLATE_LABEL))
        .cloned()
        .unwrap_or_default()
}

/// What the operator has noted. Notes that cannot be read are none: then a rollout is judged by what it looks like.
fn record(daemon_set: &DaemonSet) -> Record {
    let Some(text) = daemon_set.annotations().get(ROLLOUT) else {
        return Record::default();
    };
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::warn!(%error, annotation = ROLLOUT, "ignoring the notes about rollouts, which cannot be read");
        Record::default()
    })
}

/// The last good template, if it is not in place. The DaemonSet controller keeps it as a ControllerRevision, which it
/// labels as the template labels its pods.
async fn good(ctx: &Context, pool: &str, record: &Record, in_place: &str) -> Option<Arc<PodTemplateSpec>> {
    if record.good.is_empty() || record.good == in_place {
        return None;
    }
    if let Some((hash, content)) = ctx.pool_states.of(pool).good_template
        && hash == record.good
    {
        return Some(content);
    }
    let api: Api<ControllerRevision> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let labels = format!("{POOL_LABEL}={pool},{TEMPLATE_LABEL}={}", record.good);
    let revisions = match api.list(&ListParams::default().labels(&labels)).await {
        Ok(list) => list.items,
        Err(error) => {
            tracing::warn!(
                pool,
                error = chain(&error),
                "failed to read the last good template of the proxies"
            );
            return None;
        }
    };
    let mut contents = revisions.into_iter().filter_map(content);
    let content = Arc::new(contents.find(|content| hash(content) == record.good)?);
    ctx.pool_states.change(pool, |state| {
        state.good_template = Some((record.good.clone(), Arc::clone(&content)));
    });
    Some(content)
}

/// The template in a revision, which is a patch of a DaemonSet.
fn content(revision: ControllerRevision) -> Option<PodTemplateSpec> {
    let mut patch = revision.data?.0;
    let template = patch.pointer_mut("/spec/template")?.take();
    match serde_json::from_value(template) {
        Ok(content) => Some(content),
        Err(error) => {
            tracing::warn!(%error, "the last good template of the proxies cannot be read");
            None
        }
    }
}

/// When the Lease of the first node was renewed. `None` where none soaks, or where Leases cannot be read.
async fn lease_renewed(ctx: &Context, target: &RolloutTarget, in_place: &str) -> Option<i64> {
    let first = target.gate.nodes.first()?;
    if target.gate.policy != GatePolicy::Nodes || target.template != in_place {
        return None;
    }
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), LEASES);
    match api.get_opt(first).await {
        Ok(lease) => Some(lease?.spec?.renew_time?.0.as_second()),
        Err(error) => {
            tracing::debug!(
                node = first,
                error = chain(&error),
                "failed to read the Lease of a node"
            );
            None
        }
    }
}

/// The nodes that have a pod of the pool, by name, while the document has this revision.
fn nodes(
    (caches, fleet): (&Caches, &Fleet),
    proxies: &Proxies,
    template: &str,
    revision: u64,
) -> Vec<NodeFacts> {
    // Pods and reports are in the order of their nodes' names.
    let mut reports = fleet.reports().peekable();
    let mut nodes: Vec<NodeFacts> = Vec::new();
    for row in caches.pods() {
        let Some(name) = row.node.as_deref() else { continue };
        if nodes.last().is_none_or(|last| last.name != name) {
            while reports.next_if(|report| report.node.as_str() < name).is_some() {}
            let report = reports.next_if(|report| report.node == name);
            nodes.push(NodeFacts {
                name: name.to_owned(),
                aside: caches.node(name).map_or_else(|| aside(None), |row| row.aside),
                report: report.map(|report| reported(report, revision)),
                ..NodeFacts::default()
            });
        }
        if let Some(facts) = nodes.last_mut() {
            add(facts, row, template, &proxies.unstarted);
        }
    }
    nodes
}

/// Adds a pod. `unstarted` has the words of kubelet's events about pods that do not start.
fn add(facts: &mut NodeFacts, pod: &PodRow, template: &str, unstarted: &Unstarted) {
    // One that is being deleted takes nothing, and waits for its kubelet alone.
    if pod.is_leaving {
        return;
    }
    if pod.template.as_ref().is_none_or(|own| own != template) {
        facts.has_earlier |= pod.newcomer.is_ready;
        facts.earlier_ready_at = facts.earlier_ready_at.max(pod.newcomer.ready_at);
        return;
    }
    // A pod that has failed stays beside its successor for a moment.
    if facts.newcomer.as_ref().is_none_or(|other| !other.is_running) {
        let mut own = pod.newcomer.clone();
        own.words = own.words.or_else(|| unstarted.get(&pod.name).cloned());
        facts.newcomer = Some(own);
    }
}

/// Why a node is left aside.
pub(super) fn aside(node: Option<&Node>) -> Option<Aside> {
    match node {
        None => Some(Aside::RunsNoPods),
        Some(node) if why_no_pods(node).is_some() => Some(Aside::RunsNoPods),
        Some(node) if !watch::is_ready(node) => Some(Aside::NotReady),
        Some(_) => None,
    }
}

/// What the waves need of a pod.
pub(super) fn newcomer(pod: &Pod) -> Newcomer {
    let status = pod.status.as_ref();
    let containers = || {
        status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
    };
    let runs = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.running.is_some())
    };
    // A restart is counted when it happens, which may be minutes after the end.
    let has_ended = |container: &&ContainerStatus| {
        let mut seen = [&container.state, &container.last_state].into_iter().flatten();
        !runs(container) && seen.any(|state| state.terminated.is_some())
    };
    let is_running = containers().any(runs);
    let restarts: i32 = containers().map(|container| container.restart_count).sum();
    let ends = u32::try_from(restarts).unwrap_or_default();
    let ends = ends.saturating_add(u32::try_from(containers().filter(has_ended).count()).unwrap_or_default());
    Newcomer {
        created_at: pod.creation_timestamp().map(|time| time.0.as_second()),
        is_running,
        has_started: is_running || ends > 0,
        is_ready: is_ready(pod),
        ready_at: ready_at(pod).map(Timestamp::as_second),
        ends,
        words: failure(pod).map(|words| {
            // The sentence names the node already.
            let node = node_of(pod).unwrap_or_default();
            let own = words.strip_prefix(node).and_then(|rest| rest.strip_prefix(": "));
            own.map(str::to_owned).unwrap_or(words)
        }),
    }
}

fn reported(report: &NodeReport, revision: u64) -> Reported {
    Reported {
        is_out_of_files: report.warns_of(FILES_EXHAUSTED),
        is_current: report.revision >= revision,
        memory_mebibytes: report.memory_mebibytes,
        earlier_mebibytes: report.earlier_mebibytes,
        not_up: report.not_up(),
        template: report.template.clone(),
        not_listening: report
            .troubles
            .iter()
            .filter_map(|trouble| trouble.kind.not_listening())
            .map(str::to_owned)
            .collect(),
        open_files: report.open_files,
        connections: report.connections,
    }
}

#[cfg(test)]
mod tests;
