//! Which node reaches which member, the worst nodes first. Pure.

use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::{ListenerState, ProxyReport, ReportedHealth, ReportedMember};

use crate::read::Facts;

/// How bad a node is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Its proxy reports, and reaches no member.
    ReachesNobody,
    /// It should have a proxy, and has no report.
    Silent,
    /// Its proxy does not listen, or warns.
    Troubled,
    /// It does not reach some members.
    ReachesSome,
    /// It follows an older document.
    Behind,
    /// As it should be.
    Whole,
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    /// Its name.
    pub(super) node: String,
    /// How bad it is.
    pub(super) rank: Rank,
    /// The fresh report of its proxy.
    pub(super) report: Option<&'a ProxyReport>,
    /// How old the report is, in seconds.
    pub(super) age: Option<i64>,
    /// Whether it follows the pool's document; `None` if that is not known.
    pub(super) is_synced: Option<bool>,
}

impl<'a> Row<'a> {
    /// The nodes of a pool, the worst first.
    pub(super) fn all(facts: &'a Facts, pool: &ApiserverPool, fresh: &[&'a ProxyReport]) -> Vec<Self> {
        let revision = pool.status.as_ref().and_then(|status| status.config_revision);
        let revision = revision.and_then(|revision| u64::try_from(revision).ok());
        let mut rows: Vec<_> = fresh
            .iter()
            .map(|report| {
                let is_synced = revision.map(|revision| report.content.revision >= revision);
                Self {
                    node: report.content.node_name.clone(),
                    rank: rank(report, is_synced),
                    report: Some(report),
                    age: facts.age(report),
                    is_synced,
                }
            })
            .collect();
        let name = pool.name_any();
        let silent = facts.nodes_of(&name).into_iter();
        let silent = silent.filter(|node| !fresh.iter().any(|report| report.content.node_name == *node));
        rows.extend(silent.map(|node| {
            let mut all = facts.reports.iter().flatten();
            let last =
                all.find(|report| report.content.pool_name == name && report.content.node_name == node);
            Self {
                rank: Rank::Silent,
                report: None,
                age: last.and_then(|report| facts.age(report)),
                is_synced: None,
                node,
            }
        }));
        rows.sort_by(|one, other| (one.rank, &one.node).cmp(&(other.rank, &other.node)));
        rows
    }

    /// Whether something is wrong with it.
    pub(super) fn is_wrong(&self) -> bool {
        self.rank != Rank::Whole
    }

    /// What it says of a member.
    pub(super) fn member(&self, name: &str) -> Option<&'a ReportedMember> {
        self.report?
            .content
            .members
            .iter()
            .find(|member| member.name == name)
    }
}

fn rank(report: &ProxyReport, is_synced: Option<bool>) -> Rank {
    let content = &report.content;
    let up = content
        .members
        .iter()
        .filter(|member| member.health == ReportedHealth::Up)
        .count();
    let has_failed = content
        .listeners
        .iter()
        .any(|listener| listener.state == ListenerState::Failed);
    if up == 0 {
        Rank::ReachesNobody
    } else if has_failed || !content.warnings.is_empty() {
        Rank::Troubled
    } else if up < content.members.len() {
        Rank::ReachesSome
    } else if is_synced == Some(false) {
        Rank::Behind
    } else {
        Rank::Whole
    }
}
