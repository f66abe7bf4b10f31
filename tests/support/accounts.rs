//! What the proxy of one node says of itself: its report in the API, its status, its log.

use anyhow::{Context as _, Result};
use kube::Api;
use serde_json::Value;
use trivet_crds::POOL_LABEL;
use trivet_crds::report::{self, ProxyReport, ReportContent};

use crate::installation::{Installation, NAMESPACE, POOL};

impl Installation {
    /// The report of a node, which the proxy that serves there writes within seconds of a change.
    pub async fn report(&self, node: &str) -> Result<ReportContent> {
        let reports = Api::<ProxyReport>::all(self.kubernetes("cp1").await?);
        let report = reports.get(&report::name(POOL, node)).await;
        let report = report.with_context(|| format!("failed to read the report of {node}"))?;
        Ok(report.content)
    }

    /// What `trivet-proxy status` prints in the proxy of a node.
    pub async fn proxy_status(&self, node: &str) -> Result<Value> {
        let pod = self.proxy_pod(node).await?;
        let ask = format!("exec --namespace {NAMESPACE} {pod} -- /trivet-proxy status --output json");
        Ok(serde_json::from_str(&self.tools().kubectl(&ask).await?)?)
    }

    /// The log of the proxy of a node since its container has started.
    pub async fn proxy_log(&self, node: &str) -> Result<String> {
        let pod = self.proxy_pod(node).await?;
        let logs = format!("logs --namespace {NAMESPACE} {pod}");
        self.tools().kubectl(&logs).await
    }

    /// The name of the pod of the DaemonSet on a node, as kubectl takes it.
    async fn proxy_pod(&self, node: &str) -> Result<String> {
        let pods = format!(
            "get pods --namespace {NAMESPACE} --selector {POOL_LABEL}={POOL} --field-selector spec.nodeName={node} \
             --output name"
        );
        let pods = self.tools().kubectl(&pods).await?;
        let pod = pods.lines().next();
        Ok(pod.with_context(|| format!("{node} has no proxy"))?.to_owned())
    }
}
