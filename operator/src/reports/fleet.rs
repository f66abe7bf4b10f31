//! The Ready nodes that should have a proxy, and what the proxies of a pool report. Pure.

use std::collections::BTreeSet;
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
    reports: Arc<Vec<Arc<NodeReport>>>,
    /// Those of them that are of Ready nodes. A status asks for them again and again.
    of_ready: Arc<Vec<Arc<NodeReport>>>,
}

impl Fleet {
    /// The fleet with these nodes, as `reports` are at the time `now` in a cluster of so many nodes. Of several reports of one
    /// node the last counts.
    pub fn of(reports: Vec<Arc<NodeReport>>, ready: Vec<String>, node_count: u32, now: Timestamp) -> Self {
        Self::by(reports, Arc::new(ready.into_iter().collect()), node_count, now)
    }

    /// The same with nodes that earlier passes have found too.
    pub fn by(
        reports: Vec<Arc<NodeReport>>,
        ready: Arc<BTreeSet<String>>,
        node_count: u32,
        now: Timestamp,
    ) -> Self {
        let mut fresh = reports;
        fresh.retain(|report| report.is_fresh(node_count, now));
        fresh.sort_by(|one, other| one.node.cmp(&other.node));
        fresh.dedup_by(|later, earlier| {
            let is_same = later.node == earlier.node;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        let of_ready = of_ready(&fresh, &ready);
        Self {
            has_read: true,
            ready,
            reports: Arc::new(fresh),
            of_ready: Arc::new(of_ready),
        }
    }

    /// The fleet of an operator that has not read the reports.
    pub fn unread(ready: Vec<String>) -> Self {
        Self::unread_by(Arc::new(ready.into_iter().collect()))
    }

    /// The same with nodes that earlier passes have found too.
    pub fn unread_by(ready: Arc<BTreeSet<String>>) -> Self {
        Self {
            has_read: false,
            ready,
            reports: Arc::default(),
            of_ready: Arc::default(),
        }
    }

    /// All reports that mean something, also of nodes that are not Ready.
    pub fn reports(&self) -> impl Iterator<Item = &NodeReport> {
        self.reports.iter().map(Arc::as_ref)
    }

    /// The same, as they are shared with others.
    pub fn shared(&self) -> &[Arc<NodeReport>] {
        &self.reports
    }

    /// The reports of the Ready nodes. That of a lost node tells what it saw before.
    pub fn of_ready_nodes(&self) -> impl Iterator<Item = &NodeReport> {
        self.of_ready.iter().map(Arc::as_ref)
    }

    /// The Ready nodes, each with its report.
    pub fn ready(&self) -> impl Iterator<Item = (&String, Option<&NodeReport>)> {
        let mut reports = self.of_ready_nodes().peekable();
        // Both are in the order of their names, and each of these reports is of one of these nodes.
        self.ready
            .iter()
            .map(move |node| (node, reports.next_if(|report| report.node == *node)))
    }

    /// How many of the Ready nodes follow the document of this revision.
    pub fn synced(&self, revision: u64) -> usize {
        let synced = self.of_ready_nodes().filter(|report| report.revision == revision);
        synced.count()
    }
}

/// Those of `reports` that are of the nodes `ready`. Both are in the order of their names.
fn of_ready(reports: &[Arc<NodeReport>], ready: &BTreeSet<String>) -> Vec<Arc<NodeReport>> {
    let mut ready = ready.iter().peekable();
    let mut is_ready = |node: &String| {
        while ready.next_if(|ready| *ready < node).is_some() {}
        ready.peek() == Some(&node)
    };
    let of_ready = reports.iter().filter(|report| is_ready(&report.node));
    of_ready.cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;
    use trivet_crds::report::ProxyReport;

    use super::*;

    fn report(node: u8, revision: u64, is_fresh: bool) -> Arc<NodeReport> {
        let observed = if is_fresh {
            "2026-11-29T00:00:00Z"
        } else {
            "2026-01-01T00:00:00Z"
        };
        let report: ProxyReport = serde_json::from_value(json!({
            "metadata": { "name": format!("default.w{node}") }, "poolName": "default",
            "nodeName": format!("w{node}"), "revision": revision, "observedTime": observed,
        }))
        .unwrap();
        Arc::new(report.into())
    }

    proptest! {
        #[test]
        fn each_node_has_the_last_of_its_young_reports_in_whatever_order_they_come(
            reports in prop::collection::vec((0..9_u8, 0..3_u64, any::<bool>()), 0..20),
            ready in prop::collection::vec(0..12_u8, 0..12),
        ) {
            let name = |node: &u8| format!("w{node}");
            let young = reports.iter().filter(|(.., is_fresh)| *is_fresh);
            let expected: BTreeMap<_, _> = young.map(|(node, revision, _)| (name(node), *revision)).collect();
            let names: BTreeSet<_> = ready.iter().map(name).collect();

            let reports = reports.iter().map(|(node, revision, is_fresh)| report(*node, *revision, *is_fresh));
            let now = "2026-11-29T00:01:00Z".parse().unwrap();
            let fleet = Fleet::of(reports.collect(), ready.iter().map(name).collect(), 9, now);

            let told = |report: &NodeReport| (report.node.clone(), report.revision);
            prop_assert_eq!(fleet.reports().map(told).collect::<Vec<_>>(), expected.clone().into_iter().collect::<Vec<_>>());
            let of_ready = expected.iter().filter(|(node, _)| names.contains(*node));
            let of_ready: Vec<_> = of_ready.map(|(node, revision)| (node.clone(), *revision)).collect();
            prop_assert_eq!(fleet.of_ready_nodes().map(told).collect::<Vec<_>>(), of_ready);
            let each = names.iter().map(|node| (node, expected.get(node).copied()));
            let told = fleet.ready().map(|(node, report)| (node, report.map(|report| report.revision)));
            prop_assert_eq!(told.collect::<Vec<_>>(), each.collect::<Vec<_>>());
        }
    }
}
