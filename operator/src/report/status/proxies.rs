//! Counts the proxies, and decides whether all of them are available.

use trivet_crds::pool::ProxiesStatus;

use super::Seen;
use super::undated::{Holds, Undated};
use crate::apply::Kind;
use crate::observe::availability::{counts, is_complete, is_seen};
use crate::observe::proxies::Uncounted;
use crate::reports::words::listed;

/// The condition ProxiesAvailable.
pub(super) fn available(seen: &Seen<'_>) -> Undated {
    if let Some(refused) = seen.refused.filter(|refused| refused.kind == Kind::DaemonSet) {
        return Undated::no(refused.reason, refused.words.clone());
    }
    let Some(daemon_set) = seen.daemon_set else {
        let message = "there is no DaemonSet: it is created once the spec is accepted";
        return Undated::no("NotCreated", message.to_owned());
    };
    if !is_seen(daemon_set) {
        let message = "the DaemonSet controller has not seen the newest template yet";
        return Undated::no("Progressing", message.to_owned());
    }
    let status = daemon_set.status.as_ref();
    if status.is_none_or(|status| status.desired_number_scheduled == 0) {
        let message = "no node matches spec.proxy.nodeScope and spec.proxy.nodeSelector";
        return Undated::no("NoNodes", message.to_owned());
    }
    let counts = counts(daemon_set, seen.uncounted);
    let summary = [summary(&counts, seen.uncounted) + &writers(seen)]
        .iter()
        .chain(seen.reported)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if counts.desired == 0 {
        return Undated::no("NoReadyNodes", summary);
    }
    if is_complete(&counts) {
        return Undated {
            holds: Holds::True,
            reason: "Available",
            message: summary,
        };
    }
    if seen.failures.is_empty() {
        return Undated::no("Progressing", summary);
    }
    Undated::no("Unavailable", format!("{summary}: {}", seen.failures.join("; ")))
}

/// The nodes whose standby's manifest is not as it should be. That costs no client anything while a proxy is available.
fn writers(seen: &Seen<'_>) -> String {
    if seen.writer_failures.is_empty() {
        return String::new();
    }
    format!(
        "; the writer of the standby's manifest fails: {}",
        seen.writer_failures.join("; ")
    )
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
    let named = uncounted.iter().map(|pod| format!("{} ({})", pod.node, pod.why));
    format!("; not counted: {}", listed(named))
}
