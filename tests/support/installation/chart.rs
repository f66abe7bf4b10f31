//! Trivet's chart on the cluster, and the removal of all that it and its pools leave behind.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{FIRST_MASTER, Installation, NAMESPACE, POOL, Standbys};
use crate::printed_manifest;
use crate::say::say;

/// The chart of this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/trivet");

/// The release, as in the documentation.
pub const RELEASE: &str = "trivet";

/// The CRDs as users apply them.
pub const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");

/// The manifest that the chart's notes tell users to paste.
pub const EMPTY_POOL: &str = include_str!("../../../examples/pool-default.yaml");

const CRD: &str = "apiserverpools.trivet.dev";

/// Another checkout may have left it, as of kubectl.
const REPORTS: &str = "proxyreports.trivet.dev";

const OPERATOR: &str = "trivet-operator";

/// Where the proxies of the pool keep their last good documents, as each host sees it.
const CACHE: &str = "/var/lib/trivet";

impl Installation {
    /// Installs the chart, or brings the release that is there back to the chart's own values. Returns whether it was not
    /// there as it should be.
    pub async fn install(&self) -> Result<bool> {
        self.install_for(Standbys::None).await
    }

    /// The same, with the values that a pool with these standbys needs.
    pub(super) async fn install_for(&self, standbys: Standbys) -> Result<bool> {
        let tools = self.tools();
        let values = standbys.values();
        let (wanted, found) = (description(values)?, self.release().await);
        if found.as_ref().is_some_and(|found| found.is(&wanted)) && self.operator_runs().await? {
            return Ok(false);
        }
        let owner = format!(
            "get crd {CRD} --ignore-not-found --output jsonpath=owner:{{.metadata.annotations.meta\\.helm\\.sh/release-name}}"
        );
        let is_own_crd = tools.kubectl(&owner).await? == "owner:";
        if found.is_some_and(|found| found.is_stuck()) {
            say("an earlier helm command did not end: removing its release");
            tools
                .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE}"))
                .await?;
        }
        tools
            .helm(&format!(
                "upgrade --install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace --reset-values \
                 {values} --description {wanted} --wait --timeout 120s"
            ))
            .await?;
        if is_own_crd {
            // The chart leaves a CRD alone that a scenario has applied, and that may be another checkout's.
            tools
                .kubectl(&format!(
                    "apply --server-side --force-conflicts --filename {CRDS}"
                ))
                .await?;
        }
        Ok(true)
    }

    /// Removes everything of Trivet for good, as the documentation says. No node may depend on it any more.
    pub async fn purge(&self) -> Result<()> {
        let tools = self.tools();
        // The operator first: it would create the other objects again.
        tools
            .helm(&format!(
                "uninstall {RELEASE} --namespace {NAMESPACE} --ignore-not-found --wait"
            ))
            .await?;
        tools
            .kubectl(&format!(
                "delete crd {CRD} {REPORTS} --ignore-not-found --timeout=60s"
            ))
            .await?;
        self.allow_deletion().await?;
        // The pods before their namespace: a namespace that still has pods is looked at again only after half of the time
        // that they may take to end, which is 50 s for a proxy. One that ends waits for a successor, and here none comes.
        // Kubelet does not shorten the time of a container that ends already, so the pods are not those of a deleted DaemonSet.
        for delete in ["daemonsets --cascade=orphan", "pods --grace-period=1"] {
            tools
                .kubectl(&format!(
                    "delete {delete} --all --namespace {NAMESPACE} --timeout=120s"
                ))
                .await?;
        }
        self.delete_namespace().await?;
        tools
            .kubectl(
                "delete validatingadmissionpolicy,validatingadmissionpolicybinding,clusterrole,clusterrolebinding \
                 --selector app.kubernetes.io/name=trivet",
            )
            .await?;
        self.hosts().iter().try_for_each(printed_manifest::remove)?;
        // A cached document must not have a higher revision than the first one of the next installation.
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

    /// Deletes the namespace as the documentation says; an error if it still exists after a while.
    pub async fn delete_namespace(&self) -> Result<()> {
        self.allow_deletion().await?;
        self.tools()
            .kubectl(&format!(
                "delete namespace {NAMESPACE} --ignore-not-found --timeout=120s"
            ))
            .await
            .map(drop)
    }

    /// Sets the annotation that allows the deletion of the namespace, if the namespace exists.
    async fn allow_deletion(&self) -> Result<()> {
        let tools = self.tools();
        let found = tools
            .kubectl(&format!(
                "get namespace {NAMESPACE} --ignore-not-found --output name"
            ))
            .await?;
        if !found.is_empty() {
            tools
                .kubectl(&format!(
                    "annotate --overwrite namespace {NAMESPACE} trivet.dev/allow-delete=true"
                ))
                .await?;
        }
        Ok(())
    }

    /// The release as helm sees it; none if there is none.
    async fn release(&self) -> Option<Release> {
        let status = format!("status {RELEASE} --namespace {NAMESPACE} --output json");
        let status = self.tools().helm(&status).await.ok()?;
        serde_json::from_str::<Status>(&status)
            .ok()
            .map(|status| status.info)
    }

    /// Whether the CRD exists and the operator is available: a scenario may have deleted them without helm.
    async fn operator_runs(&self) -> Result<bool> {
        let kubernetes = self.kubernetes(FIRST_MASTER).await?;
        let crds = Api::<CustomResourceDefinition>::all(kubernetes.clone());
        let deployments = Api::<Deployment>::namespaced(kubernetes, NAMESPACE);
        let operator = deployments.get_opt(OPERATOR).await?;
        let available = operator
            .and_then(|operator| operator.status)
            .and_then(|status| status.available_replicas);
        Ok(available.is_some_and(|replicas| replicas > 0) && crds.get_opt(CRD).await?.is_some())
    }
}

/// What we read of `helm status`.
#[derive(Deserialize)]
struct Status {
    info: Release,
}

#[derive(Deserialize)]
struct Release {
    status: String,
    #[serde(default)]
    description: String,
}

impl Release {
    /// Whether its last revision is a finished one of this description.
    fn is(&self, description: &str) -> bool {
        self.status == "deployed" && self.description == description
    }

    /// helm refuses to touch a release that a crashed helm has left in the middle.
    fn is_stuck(&self) -> bool {
        self.status.starts_with("pending") || self.status == "uninstalling"
    }
}

/// The description of a release of this chart with these values: one word, which changes with the chart.
fn description(values: &str) -> Result<String> {
    let mut files = Vec::new();
    list(Path::new(CHART), &mut files)?;
    files.sort();
    let mut digest = Sha256::new();
    digest.update(values);
    for file in files {
        let content = fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
        // Lengths keep the end of one file apart from the beginning of the next.
        digest.update(format!("{} {}\n", file.display(), content.len()));
        digest.update(content);
    }
    Ok(format!("chart-{:x}", digest.finalize()))
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("failed to list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_kept_only_if_it_ended_well_and_is_of_this_chart() {
        let release = |status: &str, description: &str| Release {
            status: status.to_owned(),
            description: description.to_owned(),
        };
        assert!(release("deployed", "chart-1").is("chart-1"));
        assert!(!release("deployed", "chart-2").is("chart-1"));
        assert!(!release("failed", "chart-1").is("chart-1"));
        assert!(release("pending-upgrade", "chart-1").is_stuck());
        assert!(!release("failed", "chart-1").is_stuck());
    }

    #[test]
    fn the_same_chart_has_the_same_description() {
        let described = description("").unwrap();
        assert_eq!(described, description("").unwrap());
        assert_ne!(described, description("--set a=b").unwrap());
        assert!(!described.contains(char::is_whitespace), "{described}");
    }
}
