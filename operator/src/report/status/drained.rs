//! The condition MembersDrained: whether a member that leaves has clients left.
//!
//! True is a promise on which somebody switches a machine off. So it takes a report of every Ready node, of a proxy that
//! already follows the document in which the member leaves: what is not known is not True.

use std::collections::BTreeMap;

use trivet_crds::pool::PoolMemberState;
use trivet_crds::report::{ELSEWHERE_UNKNOWN, HANDOVER_PATH_UNWRITABLE};

use super::Seen;
use super::proxies;
use super::synced::{UNREAD, not_obeyed, silent, unreported};
use super::undated::{Holds, Undated};
use crate::reports::NodeReport;
use crate::reports::members::SeenMember;
use crate::reports::words::{counted, listed};

/// A message tells of up to this many members.
const MEMBERS_LIMIT: usize = 5;

/// What Trivet cannot know.
const BUT: &str = "Trivet knows nothing of etcd's quorum, nor of clients that bypass it";

/// The condition.
pub(super) fn drained(seen: &Seen<'_>) -> Undated {
    if let Some(undated) = not_obeyed(seen) {
        return undated;
    }
    if !seen.fleet.has_read {
        return Undated::unknown(
            "ReportsUnreadable",
            format!("whether clients are left is not known: {UNREAD}"),
        );
    }
    let aside = proxies::names(seen.uncounted);
    let holders = holders(seen);
    let unknown = unknown(seen);
    let mut words: Vec<_> = holders.iter().take(MEMBERS_LIMIT).map(left).collect();
    if let Some(more) = holders.len().checked_sub(MEMBERS_LIMIT).filter(|more| *more > 0) {
        words.push(format!("and to {more} more members"));
    }
    words.extend(unknown);
    if !words.is_empty() {
        let message = format!("{}{aside}", words.join("; "));
        return if holders.is_empty() {
            Undated::unknown("NotReported", message)
        } else {
            Undated::no("ClientsLeft", message)
        };
    }
    let ready = seen.fleet.ready.len();
    if ready == 0 {
        return Undated::no(
            "NoReadyNodes",
            format!("no Ready node should have a proxy{aside}"),
        );
    }
    let leaving: Vec<_> = leaving(seen).map(str::to_owned).collect();
    let (reason, which) = if leaving.is_empty() {
        ("NoneLeaves", "what was removed before".to_owned())
    } else {
        ("Drained", listed(leaving.into_iter()))
    };
    Undated {
        holds: Holds::True,
        reason,
        message: format!(
            "safe to switch off as far as Trivet's clients are concerned: {which} (no client on {} is connected to it by \
             Trivet); {BUT}{aside}",
            match ready {
                1 => "the only Ready node".to_owned(),
                ready => format!("any of {ready} Ready nodes"),
            }
        ),
    }
}

/// The members that the spec has and that leave.
fn leaving<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a str> {
    let plan = seen.plan;
    let leaving = plan
        .members
        .iter()
        .filter(|member| member.state != PoolMemberState::Active);
    leaving.map(|member| member.name.as_str())
}

fn is_active(name: &str, seen: &Seen<'_>) -> bool {
    let mut members = seen.plan.members.iter();
    members.any(|member| member.name == name && member.state == PoolMemberState::Active)
}

/// The nodes with connections to each member that leaves, and how many. Nodes that are not Ready count too.
fn holders<'a>(seen: &Seen<'a>) -> BTreeMap<&'a str, Vec<(&'a str, u32)>> {
    let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for report in seen.fleet.reports() {
        for member in &report.members {
            let left = left_to(member, report, seen);
            if left > 0 {
                let of_member = holders.entry(member.name.as_str()).or_default();
                of_member.push((report.node.as_str(), left));
            }
        }
    }
    holders
}

/// The connections of a node to a member that must end. A proxy that does not know yet that it leaves counts none of them.
fn left_to(member: &SeenMember, report: &NodeReport, seen: &Seen<'_>) -> u32 {
    let knows = member.standing.is_some() && report.revision >= seen.plan.memory.membership.since;
    if knows || is_active(&member.name, seen) {
        member.leaving_connections
    } else {
        member.connections
    }
}

/// One member with connections left.
fn left((member, nodes): (&&str, &Vec<(&str, u32)>)) -> String {
    let connections = nodes
        .iter()
        .fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
    let what = match connections {
        1 => "1 connection".to_owned(),
        connections => format!("{connections} connections"),
    };
    let mut most: Vec<_> = nodes.iter().collect();
    most.sort_by_key(|(node, count)| (std::cmp::Reverse(*count), *node));
    let names: Vec<_> = most
        .iter()
        .map(|(node, count)| format!("{node} ({count})"))
        .collect();
    format!("{what} to {member} left: {}", listed(names.into_iter()))
}

/// The Ready nodes of which it is not known.
fn unknown(seen: &Seen<'_>) -> Vec<String> {
    let since = seen.plan.memory.membership.since;
    let sentence = |what: &str, nodes: Vec<String>| {
        (!nodes.is_empty()).then(|| format!("{} {what}: {}", counted(nodes.len()), listed(nodes.into_iter())))
    };
    let those = |is_so: &dyn Fn(&NodeReport) -> bool| -> Vec<String> {
        let reports = seen.fleet.of_ready_nodes().filter(|report| is_so(report));
        reports.map(|report| report.node.clone()).collect()
    };
    let is_behind = |report: &NodeReport| report.revision < since;
    let is_earlier = |report: &NodeReport| {
        let mut members = report.members.iter();
        !is_behind(report) && members.any(|member| member.standing.is_none())
    };
    let is_blind =
        |report: &NodeReport| report.warns_of(HANDOVER_PATH_UNWRITABLE) || report.warns_of(ELSEWHERE_UNKNOWN);
    [
        unreported(&silent(seen)),
        sentence(
            &format!("not known to follow revision {since} yet"),
            those(&is_behind),
        ),
        sentence(
            "with a proxy, or with a CRD of its report, of a release that does not tell which connections must end",
            those(&is_earlier),
        ),
        sentence(
            "where a proxy does not see the connections of the others",
            those(&is_blind),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
