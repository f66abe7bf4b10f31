//! Trivet's chart on the cluster, and the removal of all that it and its pools leave behind.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::{Installation, NAMESPACE, POOL};
use crate::say::say;

/// The chart of this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/trivet");

/// The release, as in the documentation.
pub const RELEASE: &str = "trivet";

/// Where the proxies of the pool keep their last good documents, as each host sees it.
const CACHE: &str = "/var/lib/trivet";

impl Installation {
    /// Installs the chart, or brings the release that is there back to the chart's own values.
    pub async fn install(&self) -> Result<()> {
        let tools = self.tools();
        if self.release_is_stuck().await {
            say("an earlier helm command did not end: removing its release");
            tools
                .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE}"))
                .await?;
        }
        tools
            .helm(&format!(
                "upgrade --install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace --reset-values \
                 --wait --timeout 120s"
            ))
            .await?;
        Ok(())
    }

    /// Removes everything of Trivet, as somebody does who wants it gone for good. Nodes must not need it any more.
    pub async fn purge(&self) -> Result<()> {
        let tools = self.tools();
        // The operator first: it would put back what it misses.
        tools
            .helm(&format!(
                "uninstall {RELEASE} --namespace {NAMESPACE} --ignore-not-found --wait"
            ))
            .await?;
        tools
            .kubectl("delete crd apiserverpools.trivet.dev --ignore-not-found --timeout=60s")
            .await?;
        tools
            .kubectl(&format!(
                "delete namespace {NAMESPACE} --ignore-not-found --timeout=120s"
            ))
            .await?;
        // A document of this life must not outrank the first one of the next.
        for host in self.hosts() {
            let cache = host.file(CACHE).join(POOL);
            match fs::remove_dir_all(&cache) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {}", cache.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// helm refuses to touch a release that a crashed helm has left in the middle.
    async fn release_is_stuck(&self) -> bool {
        let status = format!("status {RELEASE} --namespace {NAMESPACE} --output json");
        let status = self.tools().helm(&status).await.unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status
            .pointer("/info/status")
            .and_then(|status| status.as_str())
            .is_some_and(|word| word.starts_with("pending") || word == "uninstalling")
    }
}
