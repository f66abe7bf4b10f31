//! A host's own files before anything runs on it: directories, and the configuration of its programs.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::address::{HostName, POD_NETWORK, SERVICE_NETWORK};
use crate::host::{BOOT_SCRIPT, Host, OWN_DIRECTORIES, SUPERVISE_SCRIPT};
use crate::images;
use crate::state::State;
use crate::static_pod::MANIFESTS;

/// Makes the directories of the machine that hosts mount their own on, and returns those that were missing.
pub(crate) fn mount_points() -> Result<Vec<PathBuf>> {
    let missing = OWN_DIRECTORIES
        .iter()
        .map(PathBuf::from)
        .filter(|directory| !directory.exists());
    missing
        .map(|directory| {
            fs::create_dir_all(&directory)
                .with_context(|| format!("failed to make {}", directory.display()))?;
            Ok(directory)
        })
        .collect()
}

/// Writes everything that follows from the address plan. Writing it again changes nothing.
pub(crate) fn host(host: &Host, state: &State) -> Result<()> {
    for directory in OWN_DIRECTORIES {
        // etcd refuses a data directory that others can read.
        let mode = if directory == "/var/lib/etcd" {
            0o700
        } else {
            0o755
        };
        let path = host.file(directory);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path)
            .with_context(|| format!("failed to make {}", path.display()))?;
    }
    let name = host.name();
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for (path, content) in [
        (BOOT_SCRIPT, include_str!("host/boot.sh").to_owned()),
        (SUPERVISE_SCRIPT, include_str!("host/supervise.sh").to_owned()),
        ("/etc/hosts", hosts_file(&state.hosts)),
        ("/etc/cni/net.d/10-testbed.conflist", cni(name)),
        ("/etc/kubernetes/containerd.toml", containerd()),
        ("/etc/kubernetes/kube-proxy.yaml", kube_proxy()),
        (
            "/etc/kubernetes/kubeadm.yaml",
            kubeadm(name, &state.kubernetes_version),
        ),
        ("/etc/kubernetes/audit-policy.yaml", AUDIT_POLICY.to_owned()),
        ("/var/lib/kubelet/config.yaml", KUBELET.to_owned()),
        ("/var/lib/kubelet/resolv.conf", resolv),
    ] {
        write(&host.file(path), &content)?;
    }
    let manifests = host.file(MANIFESTS);
    fs::create_dir_all(&manifests).with_context(|| format!("failed to make {}", manifests.display()))
}

/// Writes a file in place, so that a host that has it mounted sees the change.
///
/// One that is right already is not touched: kube-proxy ends when its configuration is written.
pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    if fs::read_to_string(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    fs::write(path, content).with_context(failed)
}

const AUDIT_POLICY: &str = include_str!("config/audit-policy.yaml");
const KUBELET: &str = include_str!("config/kubelet.yaml");

fn containerd() -> String {
    include_str!("config/containerd.toml").replace("SANDBOX_IMAGE", images::PAUSE)
}

fn kube_proxy() -> String {
    include_str!("config/kube-proxy.yaml").replace("POD_NETWORK", POD_NETWORK)
}

fn cni(host: HostName) -> String {
    include_str!("config/cni.conflist").replace("POD_NETWORK", &host.pod_network())
}

fn kubeadm(host: HostName, version: &str) -> String {
    include_str!("config/kubeadm.yaml")
        .replace("NODE_ADDRESS", &host.ipv4().to_string())
        .replace("NODE_NAME", &host.to_string())
        .replace("KUBERNETES_VERSION", version)
        .replace("POD_NETWORK", POD_NETWORK)
        .replace("SERVICE_NETWORK", SERVICE_NETWORK)
}

fn hosts_file(hosts: &[HostName]) -> String {
    let both = |host: &HostName| format!("{} {host}\n{} {host}\n", host.ipv4(), host.ipv6());
    format!(
        "127.0.0.1 localhost\n::1 localhost\n{}",
        hosts.iter().map(both).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[test]
    fn no_placeholder_is_left_in_a_rendered_file() {
        let files = [
            containerd(),
            kube_proxy(),
            cni(name("w1")),
            kubeadm(name("cp2"), "v1.34.4"),
        ];
        for placeholder in ["SANDBOX_IMAGE", "_NETWORK", "NODE_", "KUBERNETES_VERSION"] {
            assert!(
                files.iter().all(|file| !file.contains(placeholder)),
                "{placeholder}"
            );
        }
    }

    #[test]
    fn a_host_gives_its_pods_addresses_of_its_own() {
        assert!(cni(name("w2")).contains("\"subnet\": \"10.214.102.0/24\""));
        serde_json::from_str::<serde_json::Value>(&cni(name("w2"))).unwrap();
    }

    #[test]
    fn a_master_has_kubeadms_defaults_and_its_own_address() {
        let config = kubeadm(name("cp2"), "v1.34.4");
        assert!(config.contains("advertiseAddress: 10.213.0.12"));
        assert!(config.contains("name: cp2"));
        // Extra SANs or a common endpoint would hide what plain kubeadm users meet.
        assert!(!config.contains("certSANs") && !config.contains("controlPlaneEndpoint"));
    }

    #[test]
    fn every_host_knows_every_host_by_name() {
        let file = hosts_file(&[name("cp1"), name("w1")]);
        assert!(file.contains("10.213.0.11 cp1\nfd74:7269:7665::11 cp1\n10.213.0.101 w1\n"));
    }
}
