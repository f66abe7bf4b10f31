//! The condition ConfigSynced: whether every proxy of a Ready node follows the newest document.

use super::Seen;
use super::proxies;
use super::undated::{Holds, Undated};
use crate::apply::Kind;
use crate::plan::Verdict;
use crate::reports::words::{counted, listed};

/// That nothing is known of any node.
pub(super) const UNREAD: &str = "ProxyReports cannot be read, or their CRD is not installed";

/// The condition.
pub(super) fn synced(seen: &Seen<'_>) -> Undated {
    let revision = seen.plan.revision;
    if let Some(undated) = not_obeyed(seen) {
        return undated;
    }
    if revision == 0 {
        return Undated::no("NotWritten", "there is no document yet".to_owned());
    }
    if !seen.fleet.has_read {
        return Undated::unknown(
            "ReportsUnreadable",
            format!("which nodes follow revision {revision} is not known: {UNREAD}"),
        );
    }
    let ready = seen.fleet.ready.len();
    let aside = proxies::names(seen.uncounted);
    if ready == 0 {
        return Undated::no(
            "NoReadyNodes",
            format!("no Ready node should have a proxy{aside}"),
        );
    }
    let synced = seen.fleet.synced(revision);
    let message = format!("{synced} of {ready} Ready nodes follow revision {revision}");
    let (untold, others): (Vec<_>, Vec<_>) = seen
        .fleet
        .of_ready_nodes()
        .filter(|report| report.revision != revision)
        .partition(|report| report.revision == 0);
    let silent = silent(seen);
    let mut words = vec![message];
    if !others.is_empty() {
        let count = counted(others.len());
        let verb = if others.len() == 1 { "follows" } else { "follow" };
        let names = others
            .iter()
            .map(|report| format!("{} ({})", report.node, report.revision));
        words.push(format!("{count} {verb} another: {}", listed(names)));
    }
    if !untold.is_empty() {
        let count = counted(untold.len());
        let verb = if untold.len() == 1 { "has" } else { "have" };
        let names = untold.iter().map(|report| report.node.clone());
        words.push(format!(
            "{count} {verb} not heard from the API which document is in force: {}",
            listed(names)
        ));
    }
    words.extend(unreported(&silent));
    let message = format!("{}{aside}", words.join("; "));
    if synced == ready {
        return Undated {
            holds: Holds::True,
            reason: "Synced",
            message,
        };
    }
    if others.is_empty() {
        Undated::unknown("NotReported", message)
    } else {
        Undated::no("Syncing", message)
    }
}

/// While the spec is not obeyed, no condition about what it asks for may hold: `kubectl wait` waits for the edit.
pub(super) fn not_obeyed(seen: &Seen<'_>) -> Option<Undated> {
    if let Verdict::Rejected { rejection, .. } = &seen.plan.verdict {
        let message = "the spec is not obeyed, see Accepted; the last good configuration stays in force";
        return Some(Undated::no(rejection.reason(), message.to_owned()));
    }
    let refused = seen.refused.filter(|refused| refused.kind == Kind::ConfigMap)?;
    Some(Undated::no(refused.reason, refused.words.clone()))
}

/// The Ready nodes from which nobody reports.
pub(super) fn silent(seen: &Seen<'_>) -> Vec<String> {
    let silent = seen.fleet.ready().filter(|(_, report)| report.is_none());
    silent.map(|(node, _)| node.clone()).collect()
}

/// The part of a message about them.
pub(super) fn unreported(silent: &[String]) -> Option<String> {
    (!silent.is_empty()).then(|| {
        let names = listed(silent.iter().cloned());
        format!("nobody reports from {}: {names}", counted(silent.len()))
    })
}
