//! A standby as an administrator brings it to a node that joins: what `trivet-proxy manifest` prints, in kubelet's directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trivet_testbed::{Host, images};

use crate::installation::{Installation, NAMESPACE, POOL};

/// kubelet's directory of static pods, as its host sees it.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The authorities of the apiservers, in the pods of the DaemonSet.
const AUTHORITIES: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// A standby's manifest.
#[derive(Debug, Clone)]
pub struct PrintedManifest {
    file: String,
    text: String,
}

impl PrintedManifest {
    /// What `trivet-proxy manifest` of the image prints, given the masters' addresses and nothing else.
    pub async fn print(installation: &Installation) -> Result<Self> {
        let members: Vec<_> = installation
            .cluster()
            .masters()
            .iter()
            .map(|master| format!("--member {}={}", master.name(), master.ipv4()))
            .collect();
        let members = members.join(" ");
        let image = format!("trivet.dev/trivet-proxy:{}", images::VERSION);
        let tools = installation.tools();
        let print = async |what: &str| {
            let command_line = format!(
                "exec --namespace {NAMESPACE} daemonset/trivet-{POOL} -- /trivet-proxy manifest \
                 --image {image} --ca-file {AUTHORITIES} {members} --print {what}"
            );
            tools.kubectl(&command_line).await
        };
        Ok(Self {
            file: format!("{}.yaml", print("name").await?.trim()),
            text: print("manifest").await?,
        })
    }

    /// Writes the manifest into a host's directory, and returns where it is on the machine.
    pub fn write(&self, host: &Host) -> Result<PathBuf> {
        let directory = host.file(MANIFESTS);
        let (partial, path) = (
            directory.join(format!(".{}", self.file)),
            directory.join(&self.file),
        );
        let failed = || format!("failed to write {}", path.display());
        fs::write(&partial, &self.text).with_context(failed)?;
        fs::rename(&partial, &path).with_context(failed)?;
        Ok(path)
    }
}

/// Removes the manifests of standbys from a host's directory, as far as there are any.
pub fn remove(host: &Host) -> Result<()> {
    let directory = host.file(MANIFESTS);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("failed to list {}", directory.display()))?;
    let is_standby = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches('.').starts_with("trivet-")
    };
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_standby(path))
    {
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}
