//! How many proxies are available, and whether a rollout of them is complete. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use trivet_crds::pool::ProxiesStatus;

use super::proxies::Uncounted;

/// The counts of the DaemonSet without the nodes that cannot have an available proxy.
pub fn counts(daemon_set: &DaemonSet, uncounted: &[Uncounted]) -> ProxiesStatus {
    let Some(status) = &daemon_set.status else {
        return ProxiesStatus::default();
    };
    let without = |all: i32, does_count: fn(&Uncounted) -> bool| {
        let left_out = uncounted.iter().filter(|pod| does_count(pod)).count();
        all.saturating_sub(i32::try_from(left_out).unwrap_or(i32::MAX))
            .max(0)
    };
    let desired = without(status.desired_number_scheduled, |_| true);
    let available = without(status.number_available.unwrap_or_default(), |pod| pod.is_ready);
    ProxiesStatus {
        desired,
        ready: without(status.number_ready, |pod| pod.is_ready).min(desired),
        updated: without(status.updated_number_scheduled.unwrap_or_default(), |pod| {
            pod.is_updated
        }),
        // The nodes say that themselves.
        synced: 0,
        unavailable: desired.saturating_sub(available).max(0),
    }
}

/// Whether the DaemonSet controller has seen the newest template.
pub fn is_seen(daemon_set: &DaemonSet) -> bool {
    let status = daemon_set.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    observed >= daemon_set.metadata.generation
}

/// Whether every one of the counted nodes has an available proxy of the newest template.
pub fn is_complete(counts: &ProxiesStatus) -> bool {
    counts.desired > 0 && counts.unavailable == 0 && counts.updated >= counts.desired
}
