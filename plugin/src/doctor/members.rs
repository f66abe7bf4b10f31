//! Which members are reached, by what the nodes report.

use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, MemberStatus, PoolMemberState};
use trivet_crds::report::{ProxyReport, ReportedHealth, ReportedMember};

use super::finding::Finding;
use super::kind::Kind;
use crate::output::text::counted;

pub(super) fn check(pool: &ApiserverPool, reports: &[&ProxyReport]) -> Vec<Finding> {
    let name = pool.name_any();
    let members = pool
        .status
        .as_ref()
        .map(|status| status.members.as_slice())
        .unwrap_or_default();
    let mut found = Vec::new();
    for member in members {
        match member.state {
            PoolMemberState::Active => found.extend(unreached(&name, member, reports)),
            PoolMemberState::Draining | PoolMemberState::Disabled => {
                found.extend(connected(&name, member, reports));
            }
        }
    }
    found
}

/// What one node says of a member.
pub(crate) fn seen<'a>(report: &'a ProxyReport, member: &str) -> Option<&'a ReportedMember> {
    report.content.members.iter().find(|seen| seen.name == member)
}

fn unreached(pool: &str, member: &MemberStatus, reports: &[&ProxyReport]) -> Option<Finding> {
    let seen: Vec<_> = reports
        .iter()
        .filter_map(|report| Some((*report, seen(report, &member.name)?)))
        .collect();
    let not_up: Vec<_> = seen
        .iter()
        .filter(|(_, seen)| seen.health != ReportedHealth::Up)
        .map(|(report, seen)| (report.content.node_name.clone(), words(seen)))
        .collect();
    if not_up.is_empty() || not_up.len() < seen.len() {
        let finding = Finding::on(Kind::MemberUnreached, pool, not_up)?;
        let place = format!("pool {pool}, member {}", member.name);
        let message = format!(
            "of {} it is not Up on {}",
            counted(seen.len(), "node"),
            finding.message
        );
        return Some(Finding::at(Kind::MemberUnreached, place, message));
    }
    let why = not_up
        .into_iter()
        .next()
        .map(|(_, words)| words)
        .unwrap_or_default();
    let place = format!("pool {pool}, member {}", member.name);
    Some(Finding::at(
        Kind::MemberDown,
        place,
        format!("{}: {why}", counted(seen.len(), "node")),
    ))
}

/// The health in a word, and the proxy's own words.
fn words(member: &ReportedMember) -> String {
    let health = health(member.health);
    if member.last_error.is_empty() {
        health.to_owned()
    } else {
        format!("{health}: {}", member.last_error)
    }
}

/// The word of a health.
pub(crate) fn health(health: ReportedHealth) -> &'static str {
    match health {
        ReportedHealth::Up => "Up",
        ReportedHealth::Unready => "Unready",
        ReportedHealth::Down => "Down",
    }
}

fn connected(pool: &str, member: &MemberStatus, reports: &[&ProxyReport]) -> Option<Finding> {
    let connected = reports.iter().filter_map(|report| {
        let connections = seen(report, &member.name)?.connections;
        let node = report.content.node_name.clone();
        (connections > 0).then(|| {
            (
                node,
                counted(connections.try_into().unwrap_or(usize::MAX), "connection"),
            )
        })
    });
    let finding = Finding::on(Kind::DrainUnfinished, pool, connected.collect())?;
    let place = format!("pool {pool}, member {}", member.name);
    let message = format!(
        "it is {:?}, and connected to on {}",
        member.state, finding.message
    );
    Some(Finding::at(Kind::DrainUnfinished, place, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{facts, kinds, pool};

    /// What is found where these nodes do not reach cp2.
    fn checked(nodes: &[&str]) -> Vec<Finding> {
        let mut facts = facts();
        for report in facts.reports.as_mut().unwrap() {
            if nodes.contains(&report.content.node_name.as_str()) {
                let member = &mut report.content.members[1];
                member.health = ReportedHealth::Down;
                member.last_error = "no answer".to_owned();
            }
        }
        check(&pool(), &facts.fresh_reports("default"))
    }

    #[test]
    fn members_that_every_node_reaches_are_in_order() {
        assert_eq!(checked(&[]), []);
    }

    #[test]
    fn a_member_that_some_nodes_do_not_reach_is_named_with_them() {
        let found = checked(&["w1"]);
        assert_eq!(kinds(&found), [Kind::MemberUnreached]);
        assert_eq!(found[0].place, "pool default, member cp2");
        assert_eq!(
            found[0].message,
            "of 5 nodes it is not Up on w1 (Down: no answer)"
        );
    }

    #[test]
    fn a_member_that_no_node_reaches_is_another_finding() {
        let found = checked(&["cp1", "cp2", "cp3", "w1", "w2"]);
        assert_eq!(kinds(&found), [Kind::MemberDown]);
        assert_eq!(found[0].message, "5 nodes: Down: no answer");
    }

    #[test]
    fn a_member_that_drains_is_told_while_it_has_connections() {
        let facts = facts();
        let mut pool = pool();
        for state in [PoolMemberState::Draining, PoolMemberState::Disabled] {
            pool.status.as_mut().unwrap().members[0].state = state;
            let found = check(&pool, &facts.fresh_reports("default"));
            assert_eq!(kinds(&found), [Kind::DrainUnfinished]);
            assert!(found[0].message.contains("w1 (2 connections)"), "{found:?}");
        }
        let mut drained = facts.clone();
        for report in drained.reports.as_mut().unwrap() {
            report.content.members[0].connections = 0;
        }
        assert_eq!(check(&pool, &drained.fresh_reports("default")), []);
    }
}
