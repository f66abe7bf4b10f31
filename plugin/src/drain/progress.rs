//! How far the drain of a member is. Pure.
//!
//! The pool's condition MembersDrained decides where its operator has it. Where it does not, every node that should have a proxy
//! must have reported no connection, at the revision with the member's state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, PoolMemberState};

use crate::output::text::counted;
use crate::read::{Facts, condition};

/// A message names up to this many nodes.
const NAMES_LIMIT: usize = 5;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether no client of Trivet is connected to the member.
    pub(super) is_done: bool,
    /// The connections that are left, as far as nodes report.
    pub(super) connections: u64,
    /// The same in words.
    pub(super) message: String,
}

/// How far the drain of `member` is; `None` if it cannot be told now.
pub(super) fn progress(facts: &Facts, pool: &str, member: &str) -> Option<Progress> {
    let pool = facts
        .pools
        .as_ref()?
        .iter()
        .find(|other| other.name_any() == pool)?;
    facts.reports.as_ref()?;
    let status = pool.status.as_ref()?;
    let waits = |message: String| Progress {
        is_done: false,
        connections: 0,
        message,
    };
    if status.observed_generation < pool.metadata.generation {
        return Some(waits(format!(
            "waiting for the operator to see generation {}",
            generation(pool)
        )));
    }
    if let Some(accepted) = condition(pool, "Accepted").filter(|accepted| accepted.status == "False") {
        return Some(waits(format!(
            "the operator refuses the spec: {}: {}",
            accepted.reason, accepted.message
        )));
    }
    let told = status.members.iter().find(|told| told.name == member);
    if told.is_some_and(|told| told.state == PoolMemberState::Active) {
        return Some(waits(format!("waiting for the operator to drain {member}")));
    }
    let left = left(facts, pool, member);
    let drained = condition(pool, "MembersDrained").filter(|drained| {
        drained
            .observed_generation
            .is_none_or(|seen| seen >= generation(pool))
    });
    Some(match drained {
        Some(drained) => by_condition(drained, &left),
        None => by_reports(facts, pool, member, &left),
    })
}

/// The connections to the member, by node, the most first.
struct Left {
    nodes: Vec<(String, u32)>,
    all: u64,
}

fn left(facts: &Facts, pool: &ApiserverPool, member: &str) -> Left {
    let reports = facts.fresh_reports(&pool.name_any());
    let mut nodes: Vec<_> = reports
        .iter()
        .filter_map(|report| {
            let seen = report.content.members.iter().find(|seen| seen.name == member)?;
            (seen.connections > 0).then(|| (report.content.node_name.clone(), seen.connections))
        })
        .collect();
    nodes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let all = nodes.iter().map(|(_, connections)| u64::from(*connections)).sum();
    Left { nodes, all }
}

impl Left {
    fn told(&self) -> String {
        let named = self
            .nodes
            .iter()
            .take(NAMES_LIMIT)
            .map(|(node, left)| format!("{node} {left}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match self.nodes.len().saturating_sub(NAMES_LIMIT) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let all = counted(usize::try_from(self.all).unwrap_or(usize::MAX), "connection");
        format!(
            "{all} left on {} ({named}{more})",
            counted(self.nodes.len(), "node")
        )
    }
}

fn by_condition(drained: &Condition, left: &Left) -> Progress {
    let is_done = drained.status == "True";
    let message = if is_done || left.nodes.is_empty() {
        drained.message.clone()
    } else {
        left.told()
    };
    Progress {
        is_done,
        connections: left.all,
        message,
    }
}

fn by_reports(facts: &Facts, pool: &ApiserverPool, member: &str, left: &Left) -> Progress {
    let name = pool.name_any();
    let revision = pool
        .status
        .as_ref()
        .and_then(|status| status.config_revision)
        .unwrap_or_default();
    let revision = u64::try_from(revision).unwrap_or_default();
    let reports = facts.fresh_reports(&name);
    let follows = |node: &String| {
        let mut reports = reports.iter();
        reports.any(|report| report.content.node_name == *node && report.content.revision >= revision)
    };
    let nodes = facts.nodes_of(&name);
    let behind: Vec<_> = nodes
        .iter()
        .filter(|node| !follows(node))
        .map(String::as_str)
        .collect();
    let waits = |message| Progress {
        is_done: false,
        connections: left.all,
        message,
    };
    if nodes.is_empty() {
        return waits(
            "which nodes have a proxy cannot be told: waiting until nodes and DaemonSets can be read"
                .to_owned(),
        );
    }
    if !behind.is_empty() {
        let named = behind
            .iter()
            .take(NAMES_LIMIT)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let count = counted(behind.len(), "node");
        return waits(format!(
            "waiting for reports of revision {revision} from {count}: {named}"
        ));
    }
    if !left.nodes.is_empty() {
        return waits(left.told());
    }
    Progress {
        is_done: true,
        connections: 0,
        message: format!(
            "{member} is safe to switch off as far as Trivet's clients are concerned: all {} report no connection to it. Trivet \
             knows nothing of etcd's quorum, or of clients that bypass it",
            counted(nodes.len(), "node")
        ),
    }
}

fn generation(pool: &ApiserverPool) -> i64 {
    pool.metadata.generation.unwrap_or_default()
}
