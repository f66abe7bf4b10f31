//! Reads what the commands look at. It judges nothing: what cannot be read is noted, and the rest is read all the same.

mod facts;
mod kubelets;
mod proxy_of_services;

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::ProxyReport;
use trivet_crds::{COMPONENT_LABEL, POOL_LABEL};
use trivet_operator::pools::StoredPool;

use crate::doctor::expected::{CRDS, POLICIES, RIGHTS};

pub use self::facts::{Facts, Rights, Unread, condition};
pub use self::proxy_of_services::server as kube_proxy_server;

/// The kinds of our own, as `kubectl auth can-i` names them.
const POOLS: &str = "apiserverpools.trivet.dev";
const REPORTS: &str = "proxyreports.trivet.dev";

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// The Deployment of the operator, as the chart names it.
pub const OPERATOR: &str = "trivet-operator";

/// Reads, and notes what cannot be read.
pub(crate) struct Reader {
    client: Client,
    namespace: String,
    unread: Vec<Unread>,
}

impl Reader {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            unread: Vec::new(),
        }
    }

    /// What every command looks at.
    async fn of_every_command(&mut self) -> Facts {
        let mut facts = self.begin();
        let all = ListParams::default();
        let pools = self.list(self.everywhere(), &all, POOLS).await;
        facts.pools = pools.map(|pools| self.readable_pools(pools, &mut facts.unreadable_pools));
        let reports = self.list(self.everywhere(), &all, REPORTS).await;
        facts.reports = reports.map(|reports| self.readable_reports(reports));
        facts.nodes = self.list(self.everywhere(), &all, "nodes").await;
        facts.daemon_sets = self.daemon_sets().await;
        facts
    }

    /// What `status` looks at: pools, reports and nodes.
    pub(crate) async fn pools(mut self) -> Facts {
        let mut facts = Box::pin(self.of_every_command()).await;
        facts.unread = self.unread;
        facts
    }

    /// All that `doctor` looks at.
    pub(crate) async fn everything(mut self, asks_kubelets: bool) -> Facts {
        let mut facts = Box::pin(self.of_every_command()).await;
        facts.version = self.version().await;
        let deployments = self.at_home();
        facts.operator = self.get(deployments, OPERATOR, "deployments.apps").await;
        let home = self.namespace.clone();
        facts.home = self.get(self.everywhere(), &home, "namespaces").await;
        facts.crds = self
            .named(
                self.everywhere(),
                &CRDS,
                "customresourcedefinitions.apiextensions.k8s.io",
            )
            .await;
        let policies = "validatingadmissionpolicies.admissionregistration.k8s.io";
        facts.policies = self.named(self.everywhere(), &POLICIES, policies).await;
        let bindings = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
        facts.bindings = self.named(self.everywhere(), &POLICIES, bindings).await;
        facts.rights = self.rights().await;
        facts.kube_proxy = self.kube_proxy().await;
        if asks_kubelets {
            let nodes = facts.nodes.iter().flatten();
            let nodes: Vec<_> = nodes.filter_map(|node| node.metadata.name.clone()).collect();
            let answers = kubelets::static_pod_paths(&self.client, nodes).await;
            facts.static_pod_paths = answers.found;
            self.unread.extend(answers.unread);
        }
        facts.unread = self.unread;
        facts
    }

    /// The pools that this release can read. Of the others it notes why not, and adds the names to `others`.
    fn readable_pools(&mut self, pools: Vec<StoredPool>, others: &mut Vec<String>) -> Vec<ApiserverPool> {
        let mut readable = Vec::new();
        for pool in pools {
            match pool {
                StoredPool::Readable(pool) => readable.push(*pool),
                StoredPool::Unreadable(pool) => {
                    let name = pool.metadata.name.unwrap_or_default();
                    self.unread.push(Unread {
                        what: format!("{POOLS}/{name}"),
                        why: pool.fault.to_string(),
                    });
                    others.push(name);
                }
            }
        }
        readable
    }

    /// The reports that this release can read. Of the others it notes why not.
    fn readable_reports(&mut self, reports: Vec<DeserializeGuard<ProxyReport>>) -> Vec<ProxyReport> {
        let mut readable = Vec::new();
        for DeserializeGuard(report) in reports {
            match report {
                Ok(report) => readable.push(report),
                Err(invalid) => self.unread.push(Unread {
                    what: format!("{REPORTS}/{}", invalid.metadata.name.unwrap_or_default()),
                    why: invalid.error,
                }),
            }
        }
        readable
    }

    fn begin(&self) -> Facts {
        Facts {
            namespace: self.namespace.clone(),
            now: Timestamp::now().as_second(),
            ..Facts::default()
        }
    }

    fn everywhere<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    fn at_home<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The proxies' DaemonSets and the writers', which have different labels.
    async fn daemon_sets(&mut self) -> Option<Vec<DaemonSet>> {
        let mut found = Vec::new();
        for label in [POOL_LABEL, COMPONENT_LABEL] {
            let with_label = ListParams::default().labels(label);
            for set in self
                .list::<DaemonSet>(self.at_home(), &with_label, "daemonsets.apps")
                .await?
            {
                if !found
                    .iter()
                    .any(|known: &DaemonSet| known.metadata.name == set.metadata.name)
                {
                    found.push(set);
                }
            }
        }
        Some(found)
    }

    async fn rights(&mut self) -> Option<Rights> {
        let mut rights = Rights::default();
        for right in &RIGHTS {
            let name = right.role;
            if let Some(namespace) = right.namespace(&self.namespace) {
                let roles = Api::namespaced(self.client.clone(), namespace);
                let bindings = Api::namespaced(self.client.clone(), namespace);
                rights
                    .roles
                    .extend(self.get(roles, name, "roles.rbac.authorization.k8s.io").await?);
                let what = "rolebindings.rbac.authorization.k8s.io";
                rights.role_bindings.extend(self.get(bindings, name, what).await?);
            } else {
                let what = "clusterroles.rbac.authorization.k8s.io";
                rights
                    .cluster_roles
                    .extend(self.get(self.everywhere(), name, what).await?);
                let what = "clusterrolebindings.rbac.authorization.k8s.io";
                rights
                    .cluster_role_bindings
                    .extend(self.get(self.everywhere(), name, what).await?);
            }
        }
        Some(rights)
    }

    async fn kube_proxy(&mut self) -> Option<Option<String>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let map = self
            .get(maps, "kube-proxy", "configmaps/kube-proxy in kube-system")
            .await?;
        Some(map.as_ref().and_then(kube_proxy_server))
    }

    async fn version(&mut self) -> Option<String> {
        match self.client.apiserver_version().await {
            Ok(info) => Some(info.git_version),
            Err(error) => {
                self.failed("the API server's version", error);
                None
            }
        }
    }

    /// Those of these objects that are there.
    async fn named<K>(&mut self, api: Api<K>, names: &[&str], what: &str) -> Option<Vec<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut found = Vec::new();
        for name in names {
            found.extend(self.get(api.clone(), name, what).await?);
        }
        Some(found)
    }

    /// One object; the inner `None` if there is none.
    async fn get<K>(&mut self, api: Api<K>, name: &str, what: &str) -> Option<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match api.get_opt(name).await {
            Ok(found) => Some(found),
            Err(error) => {
                self.failed(what, error);
                None
            }
        }
    }

    /// Every object of a kind, in pages. A kind that the API server does not know has none.
    async fn list<K>(&mut self, api: Api<K>, which: &ListParams, what: &str) -> Option<Vec<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut found = Vec::new();
        let mut params = which.clone().limit(PAGE);
        loop {
            match api.list(&params).await {
                Ok(page) => {
                    found.extend(page.items);
                    match page.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => params = params.continue_token(&token),
                        None => return Some(found),
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return Some(found),
                Err(error) => {
                    self.failed(what, error);
                    return None;
                }
            }
        }
    }

    fn failed(&mut self, what: &str, error: kube::Error) {
        let unread = Unread::new(what, error);
        if !self.unread.contains(&unread) {
            self.unread.push(unread);
        }
    }
}
