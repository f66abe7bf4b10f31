//! Reads the writer of a pool's manifests: its DaemonSet, and which of its pods have not done their task and why.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use trivet_crds::{BOOTSTRAP_LABEL, TEMPLATE_LABEL, bootstrap_name};

use super::Error;
use super::availability::{counts, is_complete, is_seen};
use super::caches::Caches;
use super::proxies::{Proxies, is_ready, node_of, why_no_pods};
use super::recent::{Look, Pods, Progress};
use super::words::{EVENTS_INTERVAL, events, failure, latest, refusal};
use crate::api::watch;
use crate::context::Context;
use crate::logging::chain;
use crate::plan::bootstrap::{Availability, BootstrapFacts, Task, Writer};
use crate::plan::scope::{Placement, Scope};
use crate::render::Settings;
use crate::render::bootstrap::in_place;

/// How many pods that have not done their task are read. A status names up to ten, however large the cluster.
const UNDONE_LIMIT: u32 = 50;
const FAILURES_LIMIT: usize = 10;

/// The writer of a pool's manifests.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Its DaemonSet, if there is one.
    pub daemon_set: Option<DaemonSet>,
    /// What its pods have been seen to do.
    pub pods: Pods,
}

/// Reads the writer of `pool`.
pub async fn observe(ctx: &Context, pool: &str) -> Result<Bootstrap, Error> {
    let name = bootstrap_name(pool);
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let found = api.get_opt(&name).await;
    let daemon_set = found.map_err(|source| Error::DaemonSet { name, source })?;
    let pods = match &daemon_set {
        Some(daemon_set) if !is_settled(daemon_set) => pods(ctx, pool, daemon_set).await,
        Some(_) | None => Pods::default(),
    };
    Ok(Bootstrap { daemon_set, pods })
}

/// Whether every node has a ready pod of the newest template, or needs none.
fn is_settled(daemon_set: &DaemonSet) -> bool {
    let Some(status) = &daemon_set.status else {
        return false;
    };
    let desired = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    is_seen(daemon_set) && updated >= desired && status.number_ready >= desired
}

async fn pods(ctx: &Context, pool: &str, daemon_set: &DaemonSet) -> Pods {
    let progress = Progress::of(daemon_set);
    if let Some(last) = ctx.pool_states.of(pool).writer_pods
        && last.of == progress
        && last.at.elapsed() < EVENTS_INTERVAL
    {
        return last.pods;
    }
    let pods = look(ctx, pool, daemon_set).await;
    ctx.pool_states.change(pool, |state| {
        state.writer_pods = Some(Look {
            at: Instant::now(),
            of: progress,
            pods: pods.clone(),
        });
    });
    pods
}

async fn look(ctx: &Context, pool: &str, daemon_set: &DaemonSet) -> Pods {
    let Some(mut undone) = undone(ctx, pool).await else {
        // What cannot be read may not be done.
        return Pods {
            are_undone: true,
            failures: Vec::new(),
        };
    };
    // A node without a kubelet has a pod in name only.
    let runs_none = |pod: &Pod| {
        let node = node_of(pod).and_then(|node| ctx.nodes.get(&ObjectRef::new(node)));
        node.is_some_and(|node| why_no_pods(&node).is_some())
    };
    undone.retain(|pod| !runs_none(pod));
    let mounts = if undone.is_empty() {
        Vec::new()
    } else {
        events(ctx, "involvedObject.kind=Pod,reason=FailedMount").await
    };
    let mut failures = failures(&undone, &mounts);
    let status = daemon_set.status.as_ref();
    if status.is_some_and(|status| status.current_number_scheduled < status.desired_number_scheduled) {
        failures.extend(refusal(ctx, &bootstrap_name(pool)).await);
    }
    Pods {
        are_undone: !undone.is_empty(),
        failures,
    }
}

/// The pods whose task is not done: a pod is Pending until its init containers have ended well, and Failed when kubelet has
/// refused or evicted it. `None` if they cannot be read.
async fn undone(ctx: &Context, pool: &str) -> Option<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let of_writer = ListParams::default()
        .labels(&format!("{BOOTSTRAP_LABEL}={pool}"))
        .fields("status.phase!=Running")
        .limit(UNDONE_LIMIT);
    match api.list(&of_writer).await {
        Ok(list) => Some(list.items),
        Err(error) => {
            tracing::debug!(
                pool,
                error = chain(&error),
                "failed to list the pods of the writer"
            );
            None
        }
    }
}

/// Why pods have not done their task: what their status says, or kubelet's event where it cannot mount a directory.
fn failures(undone: &[Pod], mounts: &[Event]) -> Vec<String> {
    let why = |pod: &Pod| {
        let of_pod = mounts
            .iter()
            .filter(|event| event.involved_object.uid == pod.metadata.uid);
        let mount = || Some(format!("{}: {}", node_of(pod)?, latest(of_pod)?));
        failure(pod).or_else(mount)
    };
    let mut failures: Vec<_> = undone.iter().filter_map(why).collect();
    failures.sort();
    failures.truncate(FAILURES_LIMIT);
    failures
}

/// What the bootstrap of the nodes of the pool depends on that `caches` are about.
pub fn facts(
    settings: &Settings,
    caches: &Caches,
    proxies: &Proxies,
    bootstrap: &Bootstrap,
) -> BootstrapFacts {
    let writer = bootstrap
        .daemon_set
        .as_ref()
        .and_then(|set| writer(set, &bootstrap.pods));
    // Only a removal asks which nodes have no proxy.
    let is_removal_possible = writer
        .as_ref()
        .is_some_and(|writer| writer.target.task == Task::Write);
    let without = || without(caches, proxies.daemon_set.as_ref());
    let availability = Availability {
        without: is_removal_possible.then(without).flatten(),
        ..availability(proxies)
    };
    BootstrapFacts {
        is_allowed: settings.has_node_bootstrap,
        has_pull_secrets: !settings.pull_secrets.is_empty(),
        soak: settings.standby_soak,
        writer,
        proxies: availability,
    }
}

fn writer(daemon_set: &DaemonSet, pods: &Pods) -> Option<Writer> {
    let (target, template) = in_place(daemon_set)?;
    let status = daemon_set.status.clone().unwrap_or_default();
    let desired = status.desired_number_scheduled;
    // The status counts a pod as updated also while it is Pending, and one that kubelet has refused. One that ran and lost its
    // node since has done its task.
    let is_replaced = status.updated_number_scheduled.unwrap_or_default() >= desired
        && status.current_number_scheduled >= desired;
    Some(Writer {
        target,
        template,
        is_done: status.observed_generation.is_some()
            && is_seen(daemon_set)
            && is_replaced
            && !pods.are_undone,
    })
}

fn availability(proxies: &Proxies) -> Availability {
    let Some(daemon_set) = &proxies.daemon_set else {
        return Availability::default();
    };
    let template = daemon_set.spec.as_ref().map(|spec| &spec.template);
    let metadata = template.and_then(|template| template.metadata.as_ref());
    let labels = metadata.and_then(|metadata| metadata.labels.as_ref());
    let hash = labels.and_then(|labels| labels.get(TEMPLATE_LABEL));
    Availability {
        template: hash.cloned().unwrap_or_default(),
        is_complete: is_seen(daemon_set) && is_complete(&counts(daemon_set, &proxies.uncounted)),
        without: None,
    }
}

/// The nodes that may have a standby and have no ready proxy; `None` while nodes or pods have not been read.
fn without(caches: &Caches, daemon_set: Option<&DaemonSet>) -> Option<Vec<String>> {
    if !caches.are_pods_read || !caches.are_nodes_read {
        return None;
    }
    let scope = Scope::in_force(daemon_set?)?;
    Some(without_proxy(&caches.nodes(), &caches.pod_objects(), &scope))
}

fn without_proxy(nodes: &[Arc<Node>], pods: &[Arc<Pod>], scope: &Scope) -> Vec<String> {
    let on = |pod: &Arc<Pod>| node_of(pod).map(str::to_owned);
    let all: BTreeSet<_> = pods.iter().filter_map(on).collect();
    let stays = |pod: &&Arc<Pod>| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
    let ready: BTreeSet<_> = pods.iter().filter(stays).filter_map(on).collect();
    let has_writer = |node: &Node| match scope.placement(node) {
        Placement::Placed => true,
        // A pod that was there before the taint stays; a node that had the taint before never had one.
        Placement::Kept => all.contains(&node.name_any()),
        Placement::Excluded => false,
    };
    let has_proxy = |node: &Node| watch::is_ready(node) && ready.contains(&node.name_any());
    let without = nodes.iter().filter(|node| has_writer(node) && !has_proxy(node));
    without.map(|node| node.name_any()).collect()
}

#[cfg(test)]
mod tests;
