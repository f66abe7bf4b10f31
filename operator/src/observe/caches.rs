//! What the caches have at one moment. A pass reads them once: whatever it decides follows from one state of the cluster, and a
//! kind that had not been listed at that moment is unknown to the whole pass, which is not the same as there being none.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use super::proxies::is_proxy_of;
use super::rows::{NodeRow, PodRow, Rows, ScopedNodes};
use crate::context::Context;
use crate::plan::scope::Scope;
use crate::reports::NodeReport;

/// What the caches have at one moment, as far as it concerns one pool.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// When they were read, or shortly before. Whatever is judged by how long it has lasted is judged as of this time: by a
    /// later one, it would have lasted through changes that the pass does not know yet.
    pub at: Timestamp,
    rows: Rows,
    /// Whether all nodes have been listed.
    pub are_nodes_read: bool,
    /// Whether all pods of proxies have been listed.
    pub are_pods_read: bool,
    /// Whether the reports have been listed.
    pub are_reports_read: bool,
    /// The reports of the pool's proxies.
    pub reports: Vec<Arc<NodeReport>>,
}

impl Caches {
    /// What they have now. `scope` is that of the pool's DaemonSet.
    pub fn now(ctx: &Context, pool: &str, scope: Option<&Scope>) -> Self {
        let at = Timestamp::now();
        // Before the objects: what is listed between the two counts as unknown, and never as absent.
        let are_nodes_read = ctx.readiness.has_read("Node");
        let are_pods_read = ctx.readiness.has_read("Pod");
        let are_reports_read = ctx.reports.has_read();
        let mut pods = ctx.pods.state();
        let known = ctx.pool_states.change(pool, |state| state.rows.clone());
        pods.retain(|pod| known.pods.has(pod) || is_proxy_of(pod, pool));
        let rows = known.next(ctx.nodes.state(), pods, scope);
        ctx.pool_states.change(pool, |state| state.rows = rows.clone());
        Self {
            at,
            rows,
            are_nodes_read,
            are_pods_read,
            are_reports_read,
            reports: ctx.reports.of(pool),
        }
    }

    /// All nodes, by name.
    pub fn all_nodes(&self) -> impl Iterator<Item = &NodeRow> {
        self.rows.nodes.iter()
    }

    /// The nodes that a kubelet runs, by name: the order of a cache is not fixed, and a message must not change with it.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let run = self.all_nodes().filter(|row| row.why_no_pods.is_none());
        run.map(|row| Arc::clone(&row.node)).collect()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeRow> {
        self.rows.nodes.of(name)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.rows.nodes.len()
    }

    /// The nodes in the scope of the pool's DaemonSet, if there is one.
    pub fn scoped(&self) -> Option<&ScopedNodes> {
        self.rows.scoped.as_ref()
    }

    /// The pods of the pool's DaemonSet, by node; those of one node in the order in which they were made.
    pub fn pods(&self) -> impl Iterator<Item = &PodRow> + Clone {
        self.rows.pods.iter()
    }

    /// The same pods as the cache has them.
    pub fn pod_objects(&self) -> Vec<Arc<Pod>> {
        self.pods().map(|row| Arc::clone(&row.pod)).collect()
    }

    /// The nodes on which a pod of the pool has started; `None` while the pods have not been read.
    ///
    /// A pod that ends counts too: the DaemonSet controller replaces it if the scope lets it.
    pub fn nodes_with_proxy(&self) -> Option<BTreeSet<String>> {
        let started = || self.pods().filter(|pod| pod.has_started);
        self.are_pods_read
            .then(|| started().filter_map(|pod| pod.node.clone()).collect())
    }
}
