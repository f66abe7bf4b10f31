//! The first node of a rollout: what it waits for before the others follow.

use super::facts::{Newcomer, NodeFacts, Reported, WaveFacts};
use super::usage::excess;

/// How long the new proxy may take from the opening of its gate until it is ready. Its container runs already. It needs the
/// document, which its predecessor gives it at once; a probe of each member, 5 s at most; the take; a readiness probe, which
/// comes every ten seconds; and kubelet's word of it. That is 15 s, and a machine that answers late for half a minute must
/// not fail it. An outage of the API fails nothing either: this operator must have looked for half a minute without a gap.
pub(super) const READY_LIMIT_SECONDS: i64 = 60;

/// How long it may look bad beyond its soak. A member that fails in the very moment looks so too.
const DOUBT_LIMIT_SECONDS: i64 = 60;

/// How long its first report may take beyond its soak. Reports are no condition: where nobody can write any, they are not
/// waited for. Where the other nodes write theirs, and this node did before, the silence of the new proxy is a doubt.
const REPORT_LIMIT_SECONDS: i64 = 30;

/// How old the last renewal of the Lease may be. Kubelet renews it every ten seconds.
const LEASE_AGE_SECONDS: i64 = 20;

/// How far the first node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for this.
    Awaits(String),
    /// It has waited too long for this.
    Failed(String),
    /// The template has soaked.
    Soaked,
}

/// The times of a soak, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Since its gate opened.
    pub(super) open: i64,
    /// Since its new proxy was first seen ready, if it is.
    pub(super) ready: Option<i64>,
    /// How long it soaks.
    pub(super) soak: i64,
}

/// How far `node` is. `template` is the one that is rolled out.
pub(super) fn progress(node: &NodeFacts, template: &str, times: Times, facts: &WaveFacts) -> Progress {
    let Some(newcomer) = node.counted() else {
        return within(times.open <= READY_LIMIT_SECONDS, "its new pod".to_owned());
    };
    let Some(ready) = times.ready else {
        let words = newcomer
            .words
            .as_ref()
            .map_or_else(String::new, |words| format!(" ({words})"));
        let awaited = format!("its new proxy to take over and to become ready{words}");
        return within(times.open <= READY_LIMIT_SECONDS, awaited);
    };
    if ready < times.soak {
        return Progress::Awaits(format!("its new proxy to run well for {} s", times.soak));
    }
    let over = ready.saturating_sub(times.soak);
    if let Some(doubt) = doubt(node, newcomer, template, times.soak, facts) {
        return within(over <= DOUBT_LIMIT_SECONDS, doubt);
    }
    let has_reported = node
        .report
        .as_ref()
        .is_none_or(|report| report.template == template);
    if !has_reported {
        let awaited = "the report of its new proxy".to_owned();
        if over <= REPORT_LIMIT_SECONDS {
            return Progress::Awaits(awaited);
        }
        if do_others_report(node, template, facts) {
            return within(over <= DOUBT_LIMIT_SECONDS, awaited);
        }
    }
    Progress::Soaked
}

fn within(is_in_time: bool, awaited: String) -> Progress {
    if is_in_time {
        Progress::Awaits(awaited)
    } else {
        Progress::Failed(format!("waited too long for {awaited}"))
    }
}

/// What speaks against a proxy that is ready and has run for long enough.
fn doubt(
    node: &NodeFacts,
    newcomer: &Newcomer,
    template: &str,
    soak: i64,
    facts: &WaveFacts,
) -> Option<String> {
    if let Some((renewed, ready_at)) = facts.lease_renewed.zip(newcomer.ready_at) {
        // Both by the node's clock.
        let renewed_for = renewed.saturating_sub(ready_at);
        if renewed_for < soak.saturating_sub(LEASE_AGE_SECONDS) {
            return Some("its kubelet to renew its Lease, which is late".to_owned());
        }
    }
    let report = node
        .report
        .as_ref()
        .filter(|report| report.template == template)?;
    if let Some(address) = report.not_listening.first() {
        return Some(format!("its new proxy to listen on {address}"));
    }
    if let Some(excess) = excess(report, template, facts) {
        return Some(excess.awaits);
    }
    let member = worse(report, template, facts)?;
    Some(format!("member {member} to be Up, as most other nodes see it"))
}

/// Whether most nodes with other proxies have reported since the document last changed, such as when the gate opened: each
/// proxy reports a new revision.
fn do_others_report(first: &NodeFacts, template: &str, facts: &WaveFacts) -> bool {
    let nodes = facts.nodes.iter();
    let nodes = nodes.filter(|node| node.aside.is_none() && node.name != first.name);
    let others = nodes.filter_map(|node| node.report.as_ref());
    let (current, late): (Vec<_>, Vec<_>) = others
        .filter(|report| report.template != template)
        .partition(|report| report.is_current);
    current.len() > late.len()
}

/// A member that is not Up here, but on most of the nodes whose proxies are not of this template.
fn worse<'a>(report: &'a Reported, template: &str, facts: &WaveFacts) -> Option<&'a String> {
    let others = facts.nodes.iter().filter_map(|node| node.report.as_ref());
    let others: Vec<_> = others.filter(|other| other.template != template).collect();
    let is_up_elsewhere = |member: &&String| {
        let up = others
            .iter()
            .filter(|other| !other.not_up.contains(*member))
            .count();
        up * 2 > others.len()
    };
    report.not_up.iter().find(is_up_elsewhere)
}
