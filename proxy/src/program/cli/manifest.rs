//! The flags of `manifest`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::manifest::{
    Platform,
    members::NamedMember,
    names::{Image, Namespace, PoolName},
};

pub(super) const EXAMPLES: &str = "Examples:
  trivet-proxy manifest --image registry.example/trivet-proxy:0.1.0 --ca-file ca.crt \\
      --member master-1=10.0.0.11 --member master-2=10.0.0.12 --member master-3=10.0.0.13
      before there is a cluster; the members have the names of their nodes, as the operator will call them
  trivet-proxy manifest --image registry.example/trivet-proxy:0.1.0 --document pool.json
      for the nodes that join a cluster; pool.json is what its proxies follow:
      kubectl -n trivet-system get configmap trivet-default -o jsonpath='{.data.pool\\.json}' > pool.json
  trivet-proxy manifest ... > /etc/kubernetes/manifests/$(trivet-proxy manifest ... --print name).yaml
      the same arguments give the same name; another content has another name

docs/bootstrap.md shows how to bring it to nodes with Ansible, Ignition, cloud-init, kubeadm and Talos.";

/// Flags of `manifest`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArguments {
    /// The proxy's image, with a tag other than latest or with a digest. It must be on the node already, or be pulled
    /// without a secret of the cluster.
    #[arg(long)]
    pub(crate) image: Image,

    /// An apiserver: its IP addresses, the preferred first, with or without the port (6443). NAME is that of its node, by
    /// which the operator will call it; without it the member is called by its address, and the first document of the
    /// cluster closes the connections that were opened under that name. Give one --member for each apiserver.
    #[arg(
        long = "member",
        value_name = "[NAME=]ADDRESS[:PORT][,ADDRESS[:PORT]...]",
        required_unless_present = "document",
        conflicts_with = "document"
    )]
    pub(crate) members: Vec<NamedMember>,

    /// File with the CA certificates of the apiservers, PEM: /etc/kubernetes/pki/ca.crt of kubeadm. They become a part of
    /// the manifest.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "document",
        conflicts_with = "document"
    )]
    pub(crate) ca_file: Option<PathBuf>,

    /// Where the proxy listens: loopback addresses with one port. ::1 is skipped on a node without IPv6.
    #[arg(
        long = "listen",
        value_name = "IP:PORT",
        default_values = ["127.0.0.1:7443", "[::1]:7443"],
        conflicts_with = "document"
    )]
    pub(crate) listen: Vec<SocketAddr>,

    /// The name of the ApiserverPool that the cluster has or will have.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        conflicts_with = "document"
    )]
    pub(crate) pool: PoolName,

    /// The name that the apiservers' certificates have.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "kubernetes",
        conflicts_with = "document"
    )]
    pub(crate) tls_server_name: String,

    /// About how many nodes the cluster has: from 500 on each proxy probes less often.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 100,
        conflicts_with = "document"
    )]
    pub(crate) nodes: u32,

    /// A wire document to use instead of the flags above. It keeps its revision.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,

    /// The namespace in which the pod is shown once there is a cluster: that of Trivet.
    #[arg(long, value_name = "NAME", default_value = "trivet-system")]
    pub(crate) namespace: Namespace,

    /// What reads the manifest.
    #[arg(long, value_enum, default_value = "kubelet")]
    pub(crate) platform: PlatformName,

    /// What to print.
    #[arg(long, value_enum, default_value = "manifest")]
    pub(crate) print: Print,
}

/// What reads the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlatformName {
    /// Kubelet, from its directory of static pods.
    Kubelet,
    /// Talos: prints a patch of the machine configuration, with the pod in machine.pods.
    Talos,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Print {
    /// The YAML.
    Manifest,
    /// The name of the pod, and of its file without .yaml: trivet-POOL-HASH.
    Name,
}

impl From<PlatformName> for Platform {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::Kubelet => Self::Kubelet,
            PlatformName::Talos => Self::Talos,
        }
    }
}
