//! How a node reaches the API before its kubelet knows the DaemonSet's pods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a node reaches the API before its kubelet knows the DaemonSet's pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeBootstrap {
    /// StaticPod: every node also gets a standby, a static pod that kubelet starts without the API and that goes on with the
    /// node's clients when no other proxy runs, such as after a reboot. The chart value nodeBootstrap.enabled must allow
    /// it. None: no node gets one, and a standby that was written before is removed once every node has an available proxy
    /// of the DaemonSet.
    pub policy: BootstrapPolicy,
    /// The directory from which the nodes' kubelets read static pods (staticPodPath). Allowed are
    /// /etc/kubernetes/manifests (kubeadm and most others), /var/lib/rancher/rke2/agent/pod-manifests (RKE2),
    /// /var/lib/rancher/k3s/agent/pod-manifests (k3s), /etc/kubelet.d, and those of the chart value
    /// nodeBootstrap.manifestPaths.
    #[schemars(length(min = 4, max = 128))]
    pub manifest_path: String,
}

/// What runs on a node before its kubelet knows the DaemonSet's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BootstrapPolicy {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    None,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    StaticPod,
}

impl Default for NodeBootstrap {
    fn default() -> Self {
        Self {
            policy: BootstrapPolicy::None,
            manifest_path: "/etc/kubernetes/manifests".to_owned(),
        }
    }
}
