//! A rollout of the proxies, as their pods show it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use trivet_crds::{POOL_LABEL, TEMPLATE_LABEL};
use trivet_instruments::eventually;

use crate::installation::{Installation, NAMESPACE, POOL};

/// Every node has a new pod within this time: its start, the first readiness probe, the old one's deletion, and before all
/// that the soak on the first node.
const ROLLED_OUT: Duration = Duration::from_secs(180);

/// The pod of one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyPod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// The hash of its template; none of a release that does not label it.
    pub template: Option<String>,
    /// The image of its container.
    pub image: String,
    /// The id of its container, once there is one.
    pub container: Option<String>,
    /// Whether kubelet says that it is ready.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_leaving: bool,
}

impl ProxyPod {
    fn read(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
        let mut ids = containers.filter_map(|container| container.container_id.as_deref());
        let conditions = pod.status.as_ref()?.conditions.iter().flatten();
        Some(Self {
            name: pod.name_any(),
            node: spec.node_name.clone()?,
            template: pod.labels().get(TEMPLATE_LABEL).cloned(),
            image: spec.containers.first()?.image.clone()?,
            // "containerd://" and a number of 256 bits.
            container: ids.find_map(|id| Some(id.split_once("://")?.1.to_owned())),
            is_ready: conditions
                .clone()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            is_leaving: pod.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// Whether a pod is of this template.
pub fn is_of(template: &str) -> impl Fn(&ProxyPod) -> bool {
    move |pod| pod.template.as_deref() == Some(template)
}

impl Installation {
    /// The pods of the pool's proxies, those that are being deleted included.
    pub async fn proxy_pods(&self) -> Result<Vec<ProxyPod>> {
        let pods = Api::<Pod>::namespaced(self.kubernetes("cp1").await?, NAMESPACE);
        let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={POOL}"));
        let pods = pods
            .list(&of_pool)
            .await
            .context("failed to list the proxies' pods")?;
        Ok(pods.iter().filter_map(ProxyPod::read).collect())
    }

    /// The template of the DaemonSet.
    pub async fn template(&self) -> Result<String> {
        let set = Api::<k8s_openapi::api::apps::v1::DaemonSet>::namespaced(
            self.kubernetes("cp1").await?,
            NAMESPACE,
        );
        let set = set.get(&trivet_crds::data_plane_name(POOL)).await?;
        let labels = set.spec.and_then(|spec| spec.template.metadata?.labels);
        let hash = labels.and_then(|labels| labels.get(TEMPLATE_LABEL).cloned());
        hash.context("the DaemonSet's pods have no template label")
    }

    /// Waits until the DaemonSet has another template than `before`; returns it.
    pub async fn other_template(&self, before: &str) -> Result<String> {
        eventually(Duration::from_secs(15), "another template", async || {
            let now = self.template().await?;
            ensure!(now != before, "it is still {now}");
            Ok(now)
        })
        .await
    }

    /// Waits until `wanted` holds for the pods of every one of these nodes.
    pub async fn pods_of_nodes(
        &self,
        nodes: &[String],
        what: &str,
        wanted: impl Fn(&[ProxyPod]) -> bool,
    ) -> Result<()> {
        eventually(ROLLED_OUT, what, async || {
            let mut by_node: BTreeMap<_, Vec<ProxyPod>> = BTreeMap::new();
            for pod in self.proxy_pods().await? {
                by_node.entry(pod.node.clone()).or_default().push(pod);
            }
            for node in nodes {
                let pods = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
                ensure!(wanted(pods), "{node}: {pods:?}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until each of these nodes has one proxy, which `is_new` and ready.
    pub async fn rolled_out(&self, nodes: &[String], is_new: impl Fn(&ProxyPod) -> bool) -> Result<()> {
        let alone = |pods: &[ProxyPod]| match pods {
            [pod] => is_new(pod) && pod.is_ready && !pod.is_leaving,
            _ => false,
        };
        self.pods_of_nodes(nodes, "one new proxy on each node", alone)
            .await
    }
}
