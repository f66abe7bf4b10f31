//! The Ready nodes that should have a proxy, and what the proxies of a pool report. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::NodeReport;

/// The nodes of a pool and their reports, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Whether reports could be read at all. If not, an absent one says nothing.
    pub has_read: bool,
    /// The Ready nodes that should have a proxy, by name.
    pub ready: Arc<BTreeSet<String>>,
    /// The reports that are young enough to mean something, by node; those of other nodes too.
    reports: Arc<BTreeMap<String, Arc<NodeReport>>>,
}

impl Fleet {
    /// The fleet with these nodes, as `reports` are at the time `now` in a cluster of so many nodes.
    pub fn of(reports: Vec<Arc<NodeReport>>, ready: Vec<String>, node_count: u32, now: Timestamp) -> Self {
        let fresh = reports
            .into_iter()
            .filter(|report| report.is_fresh(node_count, now));
        Self {
            has_read: true,
            ready: Arc::new(ready.into_iter().collect()),
            reports: Arc::new(fresh.map(|report| (report.node.clone(), report)).collect()),
        }
    }

    /// The fleet of an operator that has not read the reports.
    pub fn unread(ready: Vec<String>) -> Self {
        Self {
            has_read: false,
            ready: Arc::new(ready.into_iter().collect()),
            reports: Arc::default(),
        }
    }

    /// All reports that mean something, also of nodes that are not Ready.
    pub fn reports(&self) -> impl Iterator<Item = &NodeReport> {
        self.reports.values().map(Arc::as_ref)
    }

    /// The reports of the Ready nodes. That of a lost node tells what it saw before.
    pub fn of_ready_nodes(&self) -> impl Iterator<Item = &NodeReport> {
        self.reports().filter(|report| self.ready.contains(&report.node))
    }

    /// The Ready nodes, each with its report.
    pub fn ready(&self) -> impl Iterator<Item = (&String, Option<&NodeReport>)> {
        let report = |node| self.reports.get(node).map(Arc::as_ref);
        self.ready.iter().map(move |node| (node, report(node)))
    }

    /// How many of the Ready nodes follow the document of this revision.
    pub fn synced(&self, revision: u64) -> usize {
        let synced = self.of_ready_nodes().filter(|report| report.revision == revision);
        synced.count()
    }
}
