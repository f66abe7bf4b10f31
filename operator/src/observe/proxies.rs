//! Reads a pool's DaemonSet, which of its pods do not count, and why pods fail: the API server's error if it refuses a
//! pod, and kubelet's if it cannot start one.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use tokio::time::{Instant, timeout};
use trivet_crds::{BOOTSTRAP_LABEL, POOL_LABEL, STANDBY_LABEL, TEMPLATE_LABEL, data_plane_name};

use super::Error;
use super::caches::Caches;
use super::recent::Unstarted;
use super::rows::PodRow;
use super::unstarted;
use super::words::{EVENTS_INTERVAL, failure, refusal};
use crate::api::watch;
use crate::context::Context;
use crate::plan::scope::VIRTUAL_NODES;

/// A status names up to ten nodes, however large the cluster.
const LIMIT: usize = 10;

/// How long a pass waits for nodes and pods after a start.
const CACHES_WAIT: Duration = Duration::from_secs(5);

/// The label of a pod with the generation of its template.
pub(super) const POD_GENERATION: &str = "pod-template-generation";

/// The annotation of a DaemonSet with the generation of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The proxies of a pool.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Their DaemonSet, if there is one.
    pub daemon_set: Option<DaemonSet>,
    /// The pods on nodes that cannot have an available proxy. By node name.
    pub uncounted: Vec<Uncounted>,
    /// Why pods fail. Empty if all of them are available and new, or if the reasons cannot be read.
    pub failures: Vec<String>,
    /// Kubelet's words about pods that do not start.
    pub unstarted: Unstarted,
}

/// A pod of the DaemonSet that cannot be available because of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncounted {
    /// The node.
    pub node: String,
    /// What is wrong with it.
    pub why: &'static str,
    /// Whether the pod counts as ready in the status of the DaemonSet.
    pub is_ready: bool,
    /// Whether the pod has the newest template.
    pub is_updated: bool,
}

/// Reads the DaemonSet of the proxies of `pool` from the API server.
pub async fn read(ctx: &Context, pool: &str) -> Result<Option<DaemonSet>, Error> {
    let name = data_plane_name(pool);
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let found = api.get_opt(&name).await;
    found.map_err(|source| Error::DaemonSet { name, source })
}

/// Waits until nodes and pods have been read, if there are proxies: to an operator that has just started, a pool must not look as
/// if nobody served. What cannot be read must not hold up what follows from the spec alone.
pub(super) async fn wait_for_caches(ctx: &Context, daemon_set: Option<&DaemonSet>) {
    if daemon_set.is_some_and(|daemon_set| daemon_set.status.is_some()) {
        let read = async { tokio::join!(ctx.readiness.read("Node"), ctx.readiness.read("Pod")) };
        timeout(CACHES_WAIT, read).await.ok();
    }
}

/// The proxies of `pool`, as its DaemonSet and `caches` tell. Why pods fail is read from the API server.
pub(super) async fn observe(
    ctx: &Context,
    pool: &str,
    caches: &Caches,
    daemon_set: Option<DaemonSet>,
) -> Proxies {
    let mut proxies = Proxies::default();
    let status = daemon_set
        .as_ref()
        .and_then(|set| Some((set, set.status.as_ref()?)));
    let Some((set, status)) = status else {
        return Proxies {
            daemon_set,
            ..proxies
        };
    };
    let node = |pod: &PodRow| caches.node(pod.node.as_ref()?);
    // Beside an old pod that is available a new one may fail.
    let is_available = status.number_unavailable.unwrap_or_default() == 0
        && status.updated_number_scheduled.unwrap_or_default() >= status.desired_number_scheduled;
    let unstarted = caches.pods().filter(|pod| !pod.has_started);
    let counted = unstarted.filter(|pod| node(pod).is_some_and(|node| node.why_uncounted.is_none()));
    proxies.unstarted = unstarted::observe(ctx, pool, counted.map(|row| row.pod.as_ref())).await;
    if status.current_number_scheduled < status.desired_number_scheduled {
        proxies.failures.extend(refused_pod(ctx, pool).await);
    }
    let mut surplus = surplus(caches, status.desired_number_scheduled);
    for row in caches.pods() {
        let why = match node(row) {
            Some(node) => node.why_uncounted,
            None => is_deleted(&row.pod, &proxies.uncounted, &mut surplus).then_some("deleted"),
        };
        match row.node.as_ref().zip(why) {
            Some((node, why)) => add(
                &mut proxies.uncounted,
                Uncounted {
                    node: node.clone(),
                    why,
                    is_ready: row.is_ready,
                    is_updated: row.is_updated(set),
                },
            ),
            None if is_available || proxies.failures.len() >= LIMIT => {}
            None => proxies
                .failures
                .extend(failure(&row.pod).or_else(|| by_events(&row.pod, &proxies.unstarted))),
        }
    }
    Proxies {
        daemon_set,
        ..proxies
    }
}

/// Whether this is a pod of the proxies' DaemonSet. A standby or a writer is none, whatever other labels it has, and neither
/// is any other static pod: the mirror pod of one has the labels of a file on the node.
pub(crate) fn is_proxy_of(pod: &Pod, pool: &str) -> bool {
    let labels = pod.labels();
    labels.get(POOL_LABEL).is_some_and(|label| label == pool)
        && !labels.contains_key(STANDBY_LABEL)
        && !labels.contains_key(BOOTSTRAP_LABEL)
        && !pod.annotations().contains_key(watch::MIRROR)
}

/// Whether the proxy of this pod has run at any time. It may still run even if kubelet does not report it.
pub(super) fn has_started(pod: &Pod) -> bool {
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut states = containers.flat_map(|container| [&container.state, &container.last_state]);
    states.any(|state| {
        state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

/// Why the pod on this node cannot be available.
pub(super) fn why_uncounted(node: &Node) -> Option<&'static str> {
    why_no_pods(node).or_else(|| (!watch::is_ready(node)).then_some("not Ready"))
}

/// Why this node cannot have a proxy in any pool.
pub fn why_no_pods(node: &Node) -> Option<&'static str> {
    if node
        .labels()
        .get("type")
        .is_some_and(|type_| VIRTUAL_NODES.contains(&type_.as_str()))
    {
        Some("virtual")
    } else if !watch::runs_pods(node) {
        Some("runs no pods")
    } else {
        None
    }
}

/// How many nodes the status of the DaemonSet counts although they are deleted. Its controller looks at them again only when
/// their pods are collected, up to a minute later.
fn surplus(caches: &Caches, desired: i32) -> usize {
    let Some(scoped) = caches.scoped().filter(|_| caches.are_nodes_read) else {
        return 0;
    };
    usize::try_from(desired)
        .unwrap_or_default()
        .saturating_sub(scoped.placed)
}

/// Whether this pod without a node is of one that the status of the DaemonSet counts; takes it from `surplus`.
fn is_deleted(pod: &Pod, uncounted: &[Uncounted], surplus: &mut usize) -> bool {
    let Some(node) = node_of(pod) else {
        return false;
    };
    let is_known = uncounted.last().is_some_and(|last| last.node == node);
    let counts = is_known || *surplus > 0;
    if !is_known {
        *surplus = surplus.saturating_sub(1);
    }
    counts
}

/// Why the pod does not start, by kubelet's events.
fn by_events(pod: &Pod, unstarted: &Unstarted) -> Option<String> {
    let words = unstarted.get(&pod.name_any())?;
    Some(format!("{}: {words}", node_of(pod)?))
}

/// During a rollout a node has two pods. The status of the DaemonSet counts only the older one, which comes first.
fn add(uncounted: &mut Vec<Uncounted>, new: Uncounted) {
    if uncounted.last().is_none_or(|last| last.node != new.node) {
        uncounted.push(new);
    }
}

/// Whether the pod has the newest template of `daemon_set`. After a roll-back pods of the former template are up to date
/// again, though its generation has grown.
pub(super) fn is_updated(pod: &Pod, daemon_set: &DaemonSet) -> bool {
    let (hash, generation) = templates(daemon_set);
    if let (Some(hash), Some(own)) = (hash, pod.labels().get(TEMPLATE_LABEL)) {
        return hash == own;
    }
    generation.is_some() && pod.labels().get(POD_GENERATION) == generation
}

/// The hash and the generation of the newest template of `daemon_set`.
pub(super) fn templates(daemon_set: &DaemonSet) -> (Option<&String>, Option<&String>) {
    let template = daemon_set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref());
    let hash = template.and_then(|template| template.labels.as_ref()?.get(TEMPLATE_LABEL));
    (hash, daemon_set.annotations().get(TEMPLATE_GENERATION))
}

/// Whether the pod has the condition Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some()
}

/// When kubelet found the pod Ready, by the node's clock, if it is.
pub(super) fn ready_at(pod: &Pod) -> Option<Timestamp> {
    Some(ready(pod)?.last_transition_time.as_ref()?.0)
}

fn ready(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The node of the pod.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// The latest refusal to create a pod.
async fn refused_pod(ctx: &Context, pool: &str) -> Option<String> {
    if let Some((at, message)) = ctx.pool_states.of(pool).refused_pod
        && at.elapsed() < EVENTS_INTERVAL
    {
        return message;
    }
    let message = refusal(ctx, &data_plane_name(pool)).await;
    ctx.pool_states.change(pool, |state| {
        state.refused_pod = Some((Instant::now(), message.clone()));
    });
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &serde_json::Value, pods: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "w1", "labels": labels },
            "status": { "allocatable": { "pods": pods }, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    #[test]
    fn only_pods_of_the_daemon_set_are_proxies() {
        let is_proxy = |labels: serde_json::Value, annotations: serde_json::Value| {
            let mut pod: Pod = serde_json::from_value(json!({
                "metadata": { "labels": labels, "annotations": annotations },
                "spec": { "nodeName": "w1", "containers": [] },
            }))
            .unwrap();
            watch::trim_pod(&mut pod);
            is_proxy_of(&pod, "default")
        };
        let pool = || json!({ POOL_LABEL: "default", "pod-template-generation": "1" });
        assert!(is_proxy(pool(), json!({ "example.com/note": "" })));
        assert!(!is_proxy(json!({ POOL_LABEL: "other" }), json!({})));
        assert!(!is_proxy(json!({ STANDBY_LABEL: "default" }), json!({})));
        for label in [STANDBY_LABEL, BOOTSTRAP_LABEL] {
            let mut both = pool();
            both[label] = "default".into();
            assert!(!is_proxy(both, json!({})), "{label}");
        }
        assert!(!is_proxy(
            pool(),
            json!({ "kubernetes.io/config.mirror": "hash" })
        ));
    }

    #[test]
    fn after_a_roll_back_pods_of_the_former_template_are_up_to_date() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "annotations": { TEMPLATE_GENERATION: "3" } },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { TEMPLATE_LABEL: "a" } } } },
        }))
        .unwrap();
        let is_updated = |labels: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({ "metadata": { "labels": labels } })).unwrap();
            is_updated(&pod, &set)
        };
        assert!(is_updated(json!({ TEMPLATE_LABEL: "a", POD_GENERATION: "1" })));
        assert!(!is_updated(json!({ TEMPLATE_LABEL: "b", POD_GENERATION: "2" })));
        assert!(
            is_updated(json!({ POD_GENERATION: "3" })),
            "of a release without the label"
        );
        assert!(!is_updated(json!({ POD_GENERATION: "1" })));
    }

    #[test]
    fn only_ready_nodes_that_run_pods_count() {
        let why = |labels, pods, ready| why_uncounted(&node(&labels, pods, ready));
        assert_eq!(why(json!({}), "110", "True"), None);
        assert_eq!(why(json!({}), "110", "Unknown"), Some("not Ready"));
        assert_eq!(why(json!({}), "0", "True"), Some("runs no pods"));
        assert_eq!(
            why(json!({ "type": "virtual-kubelet" }), "110", "True"),
            Some("virtual")
        );
        assert_eq!(why(json!({ "type": "kwok" }), "110", "True"), Some("virtual"));
    }

    #[test]
    fn of_pods_without_a_node_as_many_are_left_out_as_the_status_counts_nodes_too_many() {
        let on = |node: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "nodeName": node, "containers": [] } }))
                .unwrap()
        };
        let uncounted = |node: &str| Uncounted {
            node: node.to_owned(),
            why: "deleted",
            is_ready: false,
            is_updated: true,
        };
        let mut surplus = 1;
        assert!(is_deleted(&on("cp4"), &[], &mut surplus));
        assert!(
            is_deleted(&on("cp4"), &[uncounted("cp4")], &mut surplus),
            "its second pod"
        );
        assert!(!is_deleted(&on("cp5"), &[uncounted("cp4")], &mut surplus));
        let mut surplus = 0;
        assert!(!is_deleted(&on("cp4"), &[], &mut surplus), "the status is newer");
        let unscheduled: Pod =
            serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": [] } })).unwrap();
        assert!(!is_deleted(&unscheduled, &[], &mut 1));
    }

    #[test]
    fn of_two_pods_of_one_node_the_older_counts() {
        let pod = |is_ready, is_updated| Uncounted {
            node: "w1".to_owned(),
            why: "not Ready",
            is_ready,
            is_updated,
        };
        let mut uncounted = Vec::new();
        add(&mut uncounted, pod(true, false));
        add(&mut uncounted, pod(false, true));
        assert_eq!(uncounted, [pod(true, false)]);
    }
}
