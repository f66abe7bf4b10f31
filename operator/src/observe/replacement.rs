//! How far the DaemonSet controller is with replacing the pods of earlier templates. Pods and nodes come from the caches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::caches::Caches;
use super::proxies::{Proxies, is_ready, is_updated, node_of, ready_at};

/// How far the replacement of a pool's pods is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// Whether a node that can have an available proxy has a pod of an earlier template, and nobody has deleted that yet.
    pub is_under_way: bool,
    /// The names of the pods of the newest template that are Ready beside such a pod, and for how long they have been.
    pub ready: BTreeMap<String, Duration>,
}

/// How far the replacement of the pods of the pool is that `caches` are about.
pub fn observe(caches: &Caches, proxies: &Proxies) -> Replacement {
    let Some(daemon_set) = &proxies.daemon_set else {
        return Replacement::default();
    };
    // Most of the time every pod is of the newest template: then there is no need to look at the pods themselves.
    if caches
        .pods()
        .all(|pod| pod.is_leaving || pod.is_updated(daemon_set))
    {
        return Replacement::default();
    }
    let uncounted = proxies.uncounted.iter().map(|pod| pod.node.as_str()).collect();
    replacement(&caches.pod_objects(), daemon_set, &uncounted, caches.at)
}

fn replacement(
    pods: &[Arc<Pod>],
    daemon_set: &DaemonSet,
    uncounted: &BTreeSet<&str>,
    now: Timestamp,
) -> Replacement {
    // A pod that is being deleted waits for its kubelet alone.
    let kept = || {
        pods.iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    };
    let earlier: BTreeSet<_> = kept()
        .filter(|pod| !is_updated(pod, daemon_set))
        .filter_map(|pod| node_of(pod))
        .collect();
    let is_beside_earlier = |pod: &Pod| node_of(pod).is_some_and(|node| earlier.contains(node));
    Replacement {
        is_under_way: !earlier.is_subset(uncounted),
        ready: kept()
            .filter(|pod| is_updated(pod, daemon_set) && is_ready(pod) && is_beside_earlier(pod))
            .map(|pod| (pod.name_any(), ready_for(pod, now)))
            .collect(),
    }
}

/// For how long the pod has been Ready, by the clocks of its node and of the operator: the difference of the two costs a wake
/// that is too early or too late.
fn ready_for(pod: &Pod, now: Timestamp) -> Duration {
    let at = ready_at(pod).map_or(now, |at| at.min(now));
    now.duration_since(at).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, generation: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "pod-template-generation": generation } },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn deleted(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        pod
    }

    /// The replacement by the template of generation 2 where the node `lost` cannot have an available proxy.
    fn seen(pods: Vec<Pod>) -> (bool, Vec<String>) {
        let daemon_set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "annotations": { "deprecated.daemonset.template.generation": "2" } },
        }))
        .unwrap();
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let found = replacement(&pods, &daemon_set, &["lost"].into(), Timestamp::now());
        (found.is_under_way, found.ready.into_keys().collect())
    }

    #[test]
    fn a_ready_pod_beside_one_of_an_earlier_template_is_found() {
        let other = pod("other", "w2", "1", "True");
        let pods = vec![
            pod("old", "w1", "1", "True"),
            pod("new", "w1", "2", "True"),
            other,
        ];
        assert_eq!(seen(pods), (true, vec!["new".to_owned()]));
    }

    #[test]
    fn a_settled_pool_has_no_replacement() {
        let pods = vec![pod("a", "w1", "2", "True"), pod("b", "w2", "2", "True")];
        assert_eq!(seen(pods), (false, Vec::new()));
        assert_eq!(seen(Vec::new()), (false, Vec::new()));
    }

    #[test]
    fn what_starts_or_is_being_deleted_is_not_waited_for() {
        let starting = vec![pod("old", "w1", "1", "True"), pod("new", "w1", "2", "False")];
        assert_eq!(seen(starting), (true, Vec::new()));
        let draining = vec![
            deleted(pod("old", "w1", "1", "True")),
            pod("new", "w1", "2", "True"),
        ];
        assert_eq!(seen(draining), (false, Vec::new()));
    }

    #[test]
    fn a_lost_node_alone_keeps_no_replacement_under_way() {
        let pods = vec![pod("old", "lost", "1", "False"), pod("b", "w2", "2", "True")];
        assert_eq!(seen(pods), (false, Vec::new()));
    }

    #[test]
    fn without_a_generation_nothing_is_known() {
        let pods = [pod("a", "w1", "1", "True"), pod("b", "w1", "2", "True")].map(Arc::new);
        let found = replacement(&pods, &DaemonSet::default(), &BTreeSet::new(), Timestamp::now());
        assert_eq!(found.ready, BTreeMap::new());
    }

    #[test]
    fn how_long_a_pod_has_been_ready_is_what_its_condition_says() {
        let mut pod = pod("a", "w1", "2", "True");
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(ready_for(&pod, now), Duration::ZERO, "it does not say");
        let condition = &mut pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
        condition.last_transition_time = serde_json::from_value(json!("2026-01-01T00:00:50Z")).unwrap();
        assert_eq!(ready_for(&pod, now), Duration::from_secs(10));
        let earlier = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(
            ready_for(&pod, earlier),
            Duration::ZERO,
            "the node's clock is ahead"
        );
    }
}
