//! What is shown of one pool. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus, MemberStatus};
use trivet_crds::report::{ProxyReport, ReportedHealth};

use super::matrix::Row;
use crate::doctor::{self, Finding};
use crate::read::Facts;

/// What is shown of one pool.
pub(super) struct PoolView<'a> {
    /// Its name.
    pub(super) name: String,
    /// The generation of its spec.
    pub(super) generation: i64,
    /// What its operator says.
    pub(super) status: ApiserverPoolStatus,
    /// Its members with the nodes that reach them.
    pub(super) members: Vec<MemberView<'a>>,
    /// The nodes, the worst first.
    pub(super) rows: Vec<Row<'a>>,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
}

/// A member and who reaches it.
pub(super) struct MemberView<'a> {
    /// What the operator says of it.
    pub(super) status: &'a MemberStatus,
    /// The nodes on which it is Up.
    pub(super) reachable: usize,
    /// The nodes that report it.
    pub(super) reporting: usize,
    /// The connections of all nodes.
    pub(super) connections: u64,
}

impl<'a> PoolView<'a> {
    /// The view of `pool`.
    pub(super) fn of(facts: &'a Facts, pool: &'a ApiserverPool) -> Self {
        let name = pool.name_any();
        let fresh = facts.fresh_reports(&name);
        let members = pool
            .status
            .as_ref()
            .map(|status| status.members.as_slice())
            .unwrap_or_default();
        let members: Vec<_> = members.iter().map(|status| member(status, &fresh)).collect();
        Self {
            generation: pool.metadata.generation.unwrap_or_default(),
            status: pool.status.clone().unwrap_or_default(),
            rows: Row::all(facts, pool, &fresh),
            findings: doctor::of_pool(facts, pool),
            members,
            name,
        }
    }

    /// The members of the columns: those of the pool, then those that only nodes still report.
    pub(super) fn columns(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .members
            .iter()
            .map(|member| member.status.name.as_str())
            .collect();
        let known: BTreeSet<_> = names.iter().copied().collect();
        let reported = self.rows.iter().filter_map(|row| row.report);
        let reported = reported.flat_map(|report| &report.content.members);
        let further: BTreeSet<_> = reported
            .map(|member| member.name.as_str())
            .filter(|name| !known.contains(name))
            .collect();
        names.extend(further);
        names
    }

    /// A condition by its name.
    pub(super) fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    }
}

fn member<'a>(status: &'a MemberStatus, reports: &[&ProxyReport]) -> MemberView<'a> {
    let seen: Vec<_> = reports
        .iter()
        .flat_map(|report| &report.content.members)
        .filter(|seen| seen.name == status.name)
        .collect();
    MemberView {
        status,
        reachable: seen
            .iter()
            .filter(|seen| seen.health == ReportedHealth::Up)
            .count(),
        reporting: seen.len(),
        connections: seen.iter().map(|seen| u64::from(seen.connections)).sum(),
    }
}
