//! What passes need to know of each node and pod, kept from pass to pass. In a large cluster it would take most of a pass to find it
//! out anew, and between two passes few objects change. Pure.
//!
//! A row belongs to one version of its object: the very one that the cache has shared. It keeps that version, so no other can be at the
//! same place in memory while the row exists.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use trivet_crds::TEMPLATE_LABEL;

use super::proxies::{POD_GENERATION, has_started, is_ready, node_of, templates, why_no_pods, why_uncounted};
use super::wave::{aside, newcomer};
use crate::api::watch;
use crate::plan::scope::{Placement, Scope};
use crate::plan::wave::{Aside, Newcomer};

/// What is known of all nodes and of the pods of one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// All nodes, by name.
    pub nodes: NodeRows,
    /// The pods of the pool's DaemonSet, by node; those of one node in the order in which they were made.
    pub pods: PodRows,
    /// The nodes in the scope of the DaemonSet, if there is one.
    pub scoped: Option<ScopedNodes>,
}

/// The rows of all nodes.
pub type NodeRows = Kept<NodeRow>;

/// The rows of the pods of one pool.
pub type PodRows = Kept<PodRow>;

/// What passes need of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// The node.
    pub node: Arc<Node>,
    /// Its name.
    pub name: String,
    /// Why it cannot have a proxy in any pool.
    pub why_no_pods: Option<&'static str>,
    /// Why a pod on it cannot be available.
    pub why_uncounted: Option<&'static str>,
    /// Whether it reports that it is Ready.
    pub is_ready: bool,
    /// Why a rollout leaves it aside.
    pub aside: Option<Aside>,
}

/// What passes need of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRow {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: Option<String>,
    /// When the API server created it.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// Whether its proxy has run at any time.
    pub has_started: bool,
    /// Whether it has the condition Ready.
    pub is_ready: bool,
    /// What the waves of a rollout need of it.
    pub newcomer: Newcomer,
    /// The hash of its template, by its label.
    pub template: Option<String>,
    /// The generation of its template, by its label.
    generation: Option<String>,
}

/// The nodes in the scope of a DaemonSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopedNodes {
    scope: Arc<Scope>,
    nodes: NodeRows,
    /// How many nodes should have a pod, those that no kubelet runs among them.
    pub placed: usize,
    /// The names of the Ready nodes that should have a pod and that a kubelet runs.
    pub ready: Arc<BTreeSet<String>>,
}

/// An object with what is known of it.
pub trait Row: Debug {
    /// The object's kind.
    type Object;
    /// Rows are in this order.
    type Key<'a>: Ord
    where
        Self: 'a;

    /// Finds out all of it.
    fn new(object: Arc<Self::Object>) -> Self;
    /// The object.
    fn object(&self) -> &Arc<Self::Object>;
    /// Its place among the others.
    fn key(&self) -> Self::Key<'_>;
    /// The name by which it is looked for.
    fn name(&self) -> &str;
}

/// Rows in their order.
#[derive(Debug)]
pub struct Kept<R>(Arc<Table<R>>);

#[derive(Debug)]
struct Table<R> {
    rows: Vec<Arc<R>>,
    /// The place of the row of each version of an object, by where that is in memory.
    by_version: HashMap<usize, usize>,
    /// The place of each row, by name.
    by_name: HashMap<String, usize>,
}

impl Rows {
    /// What is known once the caches have these objects and the DaemonSet this scope.
    #[must_use]
    pub fn next(&self, nodes: Vec<Arc<Node>>, pods: Vec<Arc<Pod>>, scope: Option<&Scope>) -> Self {
        let nodes = self.nodes.next(nodes);
        let scoped = scope.map(|scope| {
            let kept = self.scoped.as_ref();
            let kept = kept.filter(|kept| *kept.scope == *scope && kept.nodes.is_same(&nodes));
            kept.cloned()
                .unwrap_or_else(|| ScopedNodes::of(scope, nodes.clone()))
        });
        Self {
            pods: self.pods.next(pods),
            scoped,
            nodes,
        }
    }
}

impl ScopedNodes {
    fn of(scope: &Scope, nodes: NodeRows) -> Self {
        let is_placed = |row: &&NodeRow| scope.placement(&row.node) == Placement::Placed;
        let placed: Vec<_> = nodes.iter().filter(is_placed).collect();
        let ready = placed
            .iter()
            .filter(|row| row.why_no_pods.is_none() && row.is_ready);
        let ready = ready.map(|row| row.name.clone()).collect();
        Self {
            scope: Arc::new(scope.clone()),
            placed: placed.len(),
            ready: Arc::new(ready),
            nodes,
        }
    }
}

impl Row for NodeRow {
    type Object = Node;
    type Key<'a> = &'a str;

    fn new(node: Arc<Node>) -> Self {
        Self {
            name: node.name_any(),
            why_no_pods: why_no_pods(&node),
            why_uncounted: why_uncounted(&node),
            is_ready: watch::is_ready(&node),
            aside: aside(Some(&node)),
            node,
        }
    }

    fn object(&self) -> &Arc<Node> {
        &self.node
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Row for PodRow {
    type Object = Pod;
    type Key<'a> = (Option<&'a str>, Option<Timestamp>, &'a str);

    fn new(pod: Arc<Pod>) -> Self {
        let label = |name: &str| pod.labels().get(name).cloned();
        Self {
            name: pod.name_any(),
            node: node_of(&pod).map(str::to_owned),
            created: pod.creation_timestamp().map(|time| time.0),
            is_leaving: pod.metadata.deletion_timestamp.is_some(),
            has_started: has_started(&pod),
            is_ready: is_ready(&pod),
            newcomer: newcomer(&pod),
            template: label(TEMPLATE_LABEL),
            generation: label(POD_GENERATION),
            pod,
        }
    }

    fn object(&self) -> &Arc<Pod> {
        &self.pod
    }

    fn key(&self) -> Self::Key<'_> {
        (self.node.as_deref(), self.created, &self.name)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl PodRow {
    /// Whether the pod has the newest template of `daemon_set`, see [`super::proxies::is_updated`].
    pub fn is_updated(&self, daemon_set: &DaemonSet) -> bool {
        let (hash, generation) = templates(daemon_set);
        match (hash, &self.template) {
            (Some(hash), Some(own)) => hash == own,
            (None, _) | (_, None) => generation.is_some() && self.generation.as_ref() == generation,
        }
    }
}

impl<R: Row> Kept<R> {
    /// The rows of `objects`, each of which is there once. A row is made anew only where this has none of its version.
    #[must_use]
    pub fn next(&self, objects: Vec<Arc<R::Object>>) -> Self {
        if objects.len() == self.0.rows.len() && objects.iter().all(|object| self.has(object)) {
            return self.clone();
        }
        let row = |object: Arc<R::Object>| self.row(&object).unwrap_or_else(|| Arc::new(R::new(object)));
        let mut rows: Vec<_> = objects.into_iter().map(row).collect();
        rows.sort_by(|one, other| one.key().cmp(&other.key()));
        let places = || rows.iter().enumerate();
        Self(Arc::new(Table {
            by_version: places()
                .map(|(place, row)| (version(row.object()), place))
                .collect(),
            by_name: places()
                .map(|(place, row)| (row.name().to_owned(), place))
                .collect(),
            rows,
        }))
    }

    /// Whether there is a row of this version of an object.
    pub fn has(&self, object: &Arc<R::Object>) -> bool {
        self.0.by_version.contains_key(&version(object))
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &R> + Clone {
        self.0.rows.iter().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// The row of the object with this name.
    pub fn of(&self, name: &str) -> Option<&R> {
        let place = self.0.by_name.get(name)?;
        self.0.rows.get(*place).map(Arc::as_ref)
    }

    fn row(&self, object: &Arc<R::Object>) -> Option<Arc<R>> {
        let place = self.0.by_version.get(&version(object))?;
        self.0.rows.get(*place).cloned()
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<R> Clone for Kept<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Default for Kept<R> {
    fn default() -> Self {
        Self(Arc::new(Table {
            rows: Vec::new(),
            by_version: HashMap::new(),
            by_name: HashMap::new(),
        }))
    }
}

impl<R: PartialEq> PartialEq for Kept<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0.rows == other.0.rows
    }
}

/// Where a version of an object is in memory.
fn version<K>(object: &Arc<K>) -> usize {
    Arc::as_ptr(object).addr()
}

#[cfg(test)]
mod tests;
