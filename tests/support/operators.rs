//! The operator, killed, and where the next one may run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::sleep;
use trivet_instruments::eventually;

use crate::installation::{Installation, NAMESPACE};
use crate::pods::OPERATOR;

/// The name of its program.
const PROGRAM: &str = "trivet-operator";

/// A pod is placed and started on a busy machine.
const STARTS: Duration = Duration::from_secs(30);

/// What an operator needs from its start to its first passes.
const WORKS: Duration = Duration::from_millis(1500);

impl Installation {
    /// Waits until there is an operator that has worked for a moment.
    pub async fn operator_works(&self) -> Result<()> {
        eventually(STARTS, "an operator", async || {
            let (_, node) = self.operator().await?;
            let pid = self.cluster().host(&node)?.pid(PROGRAM)?;
            pid.map(drop).with_context(|| format!("none runs on {node} yet"))
        })
        .await?;
        sleep(WORKS).await;
        Ok(())
    }

    /// Kills the operator with SIGKILL. The next one is another pod, because kubelet starts a container that ends again and
    /// again ever later.
    pub async fn kill_operator(&self) -> Result<()> {
        let (pod, node) = self.operator().await?;
        self.disturb(move |cluster| cluster.kill(&node, PROGRAM)).await?;
        let delete = format!("delete pod {pod} --namespace {NAMESPACE} --grace-period=1 --wait=false");
        self.tools().kubectl(&delete).await.map(drop)
    }

    /// The operator's pod and its node.
    async fn operator(&self) -> Result<(String, String)> {
        let pods = Api::<Pod>::namespaced(self.kubernetes("cp1").await?, NAMESPACE);
        let pods = pods.list(&ListParams::default().labels(OPERATOR)).await?;
        let mut pods = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let pod = pods.next().context("there is no operator")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Ok((pod.name_any(), node.context("it has no node yet")?))
    }

    /// Keeps pods that are no DaemonSet's from starting on these nodes.
    pub async fn cordon(&self, nodes: &[String]) -> Result<()> {
        try_join_all(nodes.iter().map(|node| self.set_unschedulable(node, true)))
            .await
            .map(drop)
    }

    /// Lets pods start on all nodes again.
    pub async fn uncordon_all(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.kubernetes("cp1").await?);
        let nodes = nodes.list(&ListParams::default()).await?;
        let is_cordoned = |node: &&Node| {
            let spec = node.spec.as_ref();
            spec.is_some_and(|spec| spec.unschedulable == Some(true))
        };
        let cordoned: Vec<_> = nodes
            .iter()
            .filter(is_cordoned)
            .map(kube::ResourceExt::name_any)
            .collect();
        try_join_all(cordoned.iter().map(|node| self.set_unschedulable(node, false)))
            .await
            .map(drop)
    }

    async fn set_unschedulable(&self, node: &str, is_cordoned: bool) -> Result<()> {
        let nodes = Api::<Node>::all(self.kubernetes("cp1").await?);
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": is_cordoned } }));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}
