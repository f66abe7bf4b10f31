//! Counts the proxies, and decides whether all of them are available.

use k8s_openapi::api::apps::v1::DaemonSet;
use trivet_crds::pool::ProxiesStatus;

use super::Seen;
use super::undated::Undated;
use crate::apply::Kind;
use crate::observe::proxies::Uncounted;

/// A message names up to this many nodes, however large the cluster.
const NAMES_LIMIT: usize = 10;

/// The counts of the DaemonSet without the nodes that cannot have an available proxy.
pub(super) fn counts(daemon_set: &DaemonSet, uncounted: &[Uncounted]) -> ProxiesStatus {
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
        unavailable: desired.saturating_sub(available).max(0),
    }
}

/// The condition ProxiesAvailable.
pub(super) fn available(seen: &Seen<'_>) -> Undated {
    let no = |reason, message: String| Undated {
        holds: false,
        reason,
        message,
    };
    if let Some((Kind::DaemonSet, words)) = seen.refused {
        return no("ApplyFailed", words.to_owned());
    }
    let Some(daemon_set) = seen.daemon_set else {
        let message = "there is no DaemonSet: it is created once the spec is accepted";
        return no("NotCreated", message.to_owned());
    };
    let status = daemon_set.status.clone().unwrap_or_default();
    if status.observed_generation < daemon_set.metadata.generation {
        let message = "the DaemonSet controller has not seen the newest template yet";
        return no("Progressing", message.to_owned());
    }
    if status.desired_number_scheduled == 0 {
        let message = "no node matches spec.proxy.nodeScope and spec.proxy.nodeSelector";
        return no("NoNodes", message.to_owned());
    }
    let counts = counts(daemon_set, seen.uncounted);
    let summary = summary(&counts, seen.uncounted);
    if counts.desired == 0 {
        return no("NoReadyNodes", summary);
    }
    if counts.unavailable == 0 && counts.updated >= counts.desired {
        return Undated {
            holds: true,
            reason: "Available",
            message: summary,
        };
    }
    if seen.failures.is_empty() {
        return no("Progressing", summary);
    }
    no("Unavailable", format!("{summary}: {}", seen.failures.join("; ")))
}

fn summary(counts: &ProxiesStatus, uncounted: &[Uncounted]) -> String {
    let ProxiesStatus {
        desired,
        updated,
        unavailable,
        ..
    } = counts;
    let available = desired.saturating_sub(*unavailable);
    format!(
        "{available} of {desired} nodes have an available proxy, {updated} have the newest template{}",
        names(uncounted)
    )
}

/// The end of a message: the nodes that are not counted.
pub(super) fn names(uncounted: &[Uncounted]) -> String {
    if uncounted.is_empty() {
        return String::new();
    }
    let named = uncounted.iter().take(NAMES_LIMIT);
    let named: Vec<_> = named.map(|pod| format!("{} ({})", pod.node, pod.why)).collect();
    let more = match uncounted.len().saturating_sub(NAMES_LIMIT) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; not counted: {}{more}", named.join(", "))
}
