//! What was read of a cluster, and what of it belongs together. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use trivet_crds::data_plane_name;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::{ProxyReport, STALE_AFTER_INTERVALS, interval_seconds};
use trivet_operator::api::watch::is_ready;
use trivet_operator::observe::proxies::why_no_pods;
use trivet_operator::plan::scope::{Placement, Scope};

use crate::output::chain;

/// What was read of a cluster. `None` is what could not be read; [`Facts::unread`] says why.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The namespace that Trivet is installed in.
    pub namespace: String,
    /// When it was read, in Unix seconds.
    pub now: i64,
    /// The release of the API server, such as v1.34.4.
    pub version: Option<String>,
    /// All pools that this release can read.
    pub pools: Option<Vec<ApiserverPool>>,
    /// The names of the others.
    pub unreadable_pools: Vec<String>,
    /// What the proxies say, as far as this release can read it.
    pub reports: Option<Vec<ProxyReport>>,
    /// All nodes.
    pub nodes: Option<Vec<Node>>,
    /// The DaemonSets of proxies and of the writers of manifests.
    pub daemon_sets: Option<Vec<DaemonSet>>,
    /// The operator's Deployment; the inner `None` if there is none.
    pub operator: Option<Option<Deployment>>,
    /// The namespace itself.
    pub home: Option<Option<Namespace>>,
    /// Trivet's CRDs that are there.
    pub crds: Option<Vec<CustomResourceDefinition>>,
    /// The chart's admission policies that are there.
    pub policies: Option<Vec<ValidatingAdmissionPolicy>>,
    /// Their bindings.
    pub bindings: Option<Vec<ValidatingAdmissionPolicyBinding>>,
    /// The rights of operator and proxies.
    pub rights: Option<Rights>,
    /// The server in the kubeconfig of kube-proxy's ConfigMap, if there is one as kubeadm makes it.
    pub kube_proxy: Option<Option<String>>,
    /// The directories of static pods, by node, if the kubelets were asked.
    pub static_pod_paths: BTreeMap<String, String>,
    /// What could not be read, and why.
    pub unread: Vec<Unread>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// What, as `kubectl auth can-i` names it.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Roles of the chart and what binds them, as far as they are there.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// By name.
    pub cluster_roles: Vec<ClusterRole>,
    /// By name.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// By namespace and name.
    pub roles: Vec<Role>,
    /// By namespace and name.
    pub role_bindings: Vec<RoleBinding>,
}

impl Unread {
    /// By the error of the request.
    pub(crate) fn new(what: &str, error: kube::Error) -> Self {
        Self {
            what: what.to_owned(),
            why: chain(&error.into()),
        }
    }
}

impl Facts {
    /// The reports of a pool that are young enough to mean something, by node.
    pub fn fresh_reports(&self, pool: &str) -> Vec<&ProxyReport> {
        let all = self.reports.iter().flatten();
        let mut fresh: Vec<_> = all
            .filter(|report| report.content.pool_name == pool && self.is_fresh(report))
            .collect();
        fresh.sort_by(|one, other| one.content.node_name.cmp(&other.content.node_name));
        fresh
    }

    /// Whether a report is young enough to mean something. The clock of its node may be ahead.
    pub fn is_fresh(&self, report: &ProxyReport) -> bool {
        let nodes = u32::try_from(self.nodes.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX);
        let longest = interval_seconds(nodes).saturating_mul(STALE_AFTER_INTERVALS);
        self.age(report)
            .is_some_and(|age| age <= i64::try_from(longest).unwrap_or(i64::MAX))
    }

    /// How long ago a report was written, by the clocks of its node and of this machine.
    pub fn age(&self, report: &ProxyReport) -> Option<i64> {
        let observed: Timestamp = report.content.observed_time.parse().ok()?;
        Some(self.now.saturating_sub(observed.as_second()))
    }

    /// The DaemonSet of a pool's proxies.
    pub fn proxies_of(&self, pool: &str) -> Option<&DaemonSet> {
        let name = data_plane_name(pool);
        self.daemon_sets
            .iter()
            .flatten()
            .find(|set| set.name_any() == name)
    }

    /// The Ready nodes that the DaemonSet of a pool places a proxy on, sorted.
    pub fn nodes_of(&self, pool: &str) -> Vec<String> {
        let Some(scope) = self.proxies_of(pool).and_then(Scope::in_force) else {
            return Vec::new();
        };
        let nodes = self.nodes.iter().flatten();
        let placed = nodes.filter(|node| {
            is_ready(node) && why_no_pods(node).is_none() && scope.placement(node) == Placement::Placed
        });
        let mut names: Vec<_> = placed.map(ResourceExt::name_any).collect();
        names.sort();
        names
    }
}

/// A condition of a pool, by its name: a release of the operator may not know it.
pub fn condition<'a>(pool: &'a ApiserverPool, type_: &str) -> Option<&'a Condition> {
    let conditions = &pool.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == type_)
}
