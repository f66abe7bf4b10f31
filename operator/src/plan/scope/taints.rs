//! Taints and tolerations, by the rules of `ToleratesTaint` in k8s.io/component-helpers/scheduling/corev1 and of the
//! DaemonSet controller.

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use super::Placement;

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Taints by which Kubernetes tells the state of a node. The DaemonSet controller gives its pods tolerations against
/// them (`AddOrUpdateDaemonPodTolerations`), that against `network-unavailable` because proxies are on the host network.
/// It leaves out `not-ready` and `unreachable` with the effect NoSchedule, which end with that state and move no pod.
const OF_A_STATE: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// Whether a taint may decide on whether a node has a proxy.
pub fn is_decisive(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE) && !OF_A_STATE.contains(&taint.key.as_str())
}

/// What the taints of `node` leave of a pod with these tolerations.
pub(super) fn placement(node: &Node, tolerations: &[Toleration]) -> Placement {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let placements = taints
        .filter(|taint| is_decisive(taint))
        .map(|taint| beside(taint, tolerations));
    placements.min().unwrap_or(Placement::Placed)
}

fn beside(taint: &Taint, tolerations: &[Toleration]) -> Placement {
    if tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
        Placement::Placed
    } else if taint.effect == NO_EXECUTE {
        Placement::Excluded
    } else {
        Placement::Kept
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(value: Option<&String>) -> &str {
        value.map_or("", String::as_str)
    }
    let effect = text(toleration.effect.as_ref());
    let key = text(toleration.key.as_ref());
    // The pods are evicted after these seconds, again and again: this is no place for a proxy.
    let is_for_ever = taint.effect != NO_EXECUTE || toleration.toleration_seconds.is_none();
    let is_about_it = (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key);
    let fits = match text(toleration.operator.as_ref()) {
        "" | "Equal" => text(toleration.value.as_ref()) == text(taint.value.as_ref()),
        "Exists" => true,
        _ => false,
    };
    is_for_ever && is_about_it && fits
}
