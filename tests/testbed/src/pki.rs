//! Certificates and kubeconfigs, all made by kubeadm with its defaults.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::{output, provision};

/// The files that all masters share. Every other certificate belongs to one master.
const SHARED: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "sa.key",
    "sa.pub",
];

const KUBEADM_CONFIG: &str = "/etc/kubernetes/kubeadm.yaml";
/// The kubeconfig of a kubelet.
pub(crate) const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// Written last: a host that has it has all its credentials.
const KUBE_PROXY_KUBECONFIG: &str = "/etc/kubernetes/kube-proxy.conf";

/// The kubeconfigs through which a node talks to the API, one for each of its programs.
pub(crate) const NODE_KUBECONFIGS: [&str; 2] = [KUBELET_KUBECONFIG, KUBE_PROXY_KUBECONFIG];

/// Whether the host has everything.
pub(crate) fn is_complete(host: &Host) -> bool {
    host.file(KUBE_PROXY_KUBECONFIG).exists()
}

/// The certificates of a master, and the authorities if it is the first.
pub(crate) fn certificates(master: &Host, first: &Host) -> Result<()> {
    if master.name() != first.name() {
        for file in SHARED {
            copy(&first.file(pki(file)), &master.file(pki(file)))?;
        }
    }
    kubeadm(
        master,
        &["init", "phase", "certs", "all", "--config", KUBEADM_CONFIG],
    )
    .map(drop)
}

/// The kubeconfigs of a master: its programs use the apiserver beside them.
pub(crate) fn master_kubeconfigs(master: &Host) -> Result<()> {
    kubeadm(
        master,
        &["init", "phase", "kubeconfig", "all", "--config", KUBEADM_CONFIG],
    )?;
    kube_proxy_kubeconfig(master, master)
}

/// The credentials of a worker: it uses one master's apiserver, as workers of plain kubeadm clusters do.
pub(crate) fn worker(worker: &Host, first: &Host) -> Result<()> {
    copy(&first.file(pki("ca.crt")), &worker.file(pki("ca.crt")))?;
    let user = format!("system:node:{}", worker.name());
    let kubeconfig = user_kubeconfig(first, &["--client-name", &user, "--org", "system:nodes"])?;
    write_secret(&worker.file(KUBELET_KUBECONFIG), &kubeconfig)?;
    kube_proxy_kubeconfig(worker, first)
}

fn kube_proxy_kubeconfig(host: &Host, through: &Host) -> Result<()> {
    let kubeconfig = user_kubeconfig(through, &["--client-name", "system:kube-proxy"])?;
    write_secret(&host.file(KUBE_PROXY_KUBECONFIG), &kubeconfig)
}

fn user_kubeconfig(master: &Host, user: &[&str]) -> Result<String> {
    kubeadm(
        master,
        &[&["kubeconfig", "user", "--config", KUBEADM_CONFIG], user].concat(),
    )
}

fn kubeadm(master: &Host, arguments: &[&str]) -> Result<String> {
    output::of(master.command("kubeadm")?.args(arguments))
        .with_context(|| format!("failed to make credentials on {}", master.name()))
}

fn pki(file: &str) -> String {
    format!("/etc/kubernetes/pki/{file}")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read_to_string(from).with_context(|| format!("failed to read {}", from.display()))?;
    write_secret(to, &content)
}

fn write_secret(path: &Path, content: &str) -> Result<()> {
    provision::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("failed to protect {}", path.display()))
}
