//! Trivet's pods: whether the proxies are still the same ones.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use trivet_crds::POOL_LABEL;

use crate::installation::{Installation, NAMESPACE, POOL};

/// The label of the operators' pods.
pub(crate) const OPERATOR: &str = "app.kubernetes.io/name=trivet-operator";

/// A pod and how often its containers were restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// It differs between two pods, even if they have the same name.
    pub uid: String,
    /// The sum over its containers.
    pub restarts: i32,
}

/// The proxies by node.
pub type Proxies = BTreeMap<String, Identity>;

impl Installation {
    /// The proxies that run for the pool, through a master that is not at fault. Without those of hosts that were removed:
    /// their pods are collected within minutes.
    pub async fn proxies(&self, master: &str) -> Result<Proxies> {
        let pods = Api::<Pod>::namespaced(self.kubernetes(master).await?, NAMESPACE);
        let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={POOL}"));
        let pods = pods
            .list(&of_pool)
            .await
            .context("failed to list the proxies' pods")?;
        let hosts = self.hosts();
        let is_there = |node: &String| hosts.iter().any(|host| host.name().to_string() == *node);
        let found = pods.iter().filter_map(identify);
        Ok(found.filter(|(node, _)| is_there(node)).collect())
    }

    /// Lets the API server delete these pods, whatever serves their nodes: a selector of kubectl.
    pub async fn allow_pods_to_go(&self, which: &str) -> Result<()> {
        let annotate =
            format!("annotate pods {which} --namespace {NAMESPACE} --overwrite trivet.dev/allow-delete=true");
        self.tools().kubectl(&annotate).await.map(drop)
    }
}

/// Fails unless every proxy of `before` still runs, with its connections.
pub fn assert_untouched(before: &Proxies, now: &Proxies) -> Result<()> {
    ensure!(!before.is_empty(), "no proxy ran before");
    for (node, proxy) in before {
        let found = now.get(node);
        ensure!(
            found == Some(proxy),
            "{node}'s proxy was {proxy:?} and is {found:?}"
        );
    }
    Ok(())
}

fn identify(pod: &Pod) -> Option<(String, Identity)> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let restarts = containers.iter().map(|container| container.restart_count).sum();
    Some((
        node,
        Identity {
            uid: pod.uid()?,
            restarts,
        },
    ))
}
