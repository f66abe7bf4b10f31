//! Which reports nobody writes any more. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use trivet_crds::POOL_LABEL;

use super::NodeReport;
use crate::pools::StoredPool;

/// The reports whose node or pool is gone, with the names of their objects. While a pod of the pool is on the node, its proxy
/// may still run and would write the report anew.
pub fn vanished(
    reports: &[(String, Arc<NodeReport>)],
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    pools: &[Arc<StoredPool>],
) -> Vec<(String, Arc<NodeReport>)> {
    let nodes: BTreeSet<_> = nodes.iter().map(|node| node.name_any()).collect();
    // No cluster is without nodes: this operator runs on one.
    if nodes.is_empty() {
        return Vec::new();
    }
    let pools: BTreeSet<_> = pools.iter().map(|pool| pool.name_any()).collect();
    let placed: BTreeSet<_> = pods.iter().filter_map(|pod| place(pod)).collect();
    let is_vanished = |report: &NodeReport| {
        let is_known = nodes.contains(&report.node) && pools.contains(&report.pool);
        !is_known && !placed.contains(&(report.pool.as_str(), report.node.as_str()))
    };
    let gone = reports.iter().filter(|(_, report)| is_vanished(report));
    gone.cloned().collect()
}

/// The pool and the node of a pod.
fn place(pod: &Pod) -> Option<(&str, &str)> {
    let pool = pod.labels().get(POOL_LABEL)?;
    Some((pool, pod.spec.as_ref()?.node_name.as_deref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec};
    use trivet_crds::report::StandbyState;

    use super::*;

    fn report(pool: &str, node: &str) -> (String, Arc<NodeReport>) {
        let report = NodeReport {
            version: None,
            pool: pool.to_owned(),
            node: node.to_owned(),
            revision: 1,
            template: String::new(),
            members: Vec::new(),
            open_files: 0,
            memory_mebibytes: 0,
            earlier_mebibytes: 0,
            connections: 0,
            idle_seconds: 0,
            troubles: Vec::new(),
            standby: StandbyState::Absent,
            observed: None,
        };
        (format!("{pool}.{node}"), Arc::new(report))
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap())
    }

    #[test]
    fn a_report_goes_with_its_node_or_its_pool_once_no_proxy_is_left_there() {
        let pool = Arc::new(ApiserverPool::new("default", ApiserverPoolSpec::default()).into());
        let pod = Arc::new(
            serde_json::from_value(json!({
                "metadata": { "labels": { POOL_LABEL: "orphan" } },
                "spec": { "nodeName": "w1", "containers": [] },
            }))
            .unwrap(),
        );
        let reports = [
            report("default", "w1"),
            report("default", "gone"),
            report("orphan", "w1"),
            report("orphan", "w2"),
        ];
        let nodes = [node("w1"), node("w2")];
        let gone = vanished(&reports, &nodes, &[pod], &[pool]);
        let gone: Vec<_> = gone.into_iter().map(|(name, _)| name).collect();
        assert_eq!(gone, ["default.gone", "orphan.w2"]);
        assert!(vanished(&reports, &[], &[], &[]).is_empty(), "no node is known");
    }
}
