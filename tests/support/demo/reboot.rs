//! The demo's power cut: kubelets that have no way but their proxy come back from it.

use std::time::Duration;

use anyhow::Result;

use crate::installation::{CHART, Installation, NAMESPACE, POOL, RELEASE, Server};
use crate::power_cut::power_cut;
use crate::say::{chapter, output, say, shell};

/// More than the promised two minutes, so that a slow machine shows its number instead of an error.
const LIMIT: Duration = Duration::from_secs(300);

/// Gives every node a standby, points every kubelet at its proxy, and cuts the power of all hosts.
pub(super) async fn all(installation: &Installation) -> Result<()> {
    chapter("A power cut: all five hosts reboot at once");
    say(
        "After a boot kubelet learns its pods from an apiserver, which it reaches through a pod. So each node gets a standby,",
    );
    say("a static pod that kubelet starts by itself; it serves until the DaemonSet's proxy is back.");
    shell(format!(
        "helm upgrade {RELEASE} {CHART} --namespace {NAMESPACE} --set nodeBootstrap.enabled=true"
    ));
    shell(format!(
        "kubectl patch asp {POOL} --type merge --patch '{{\"spec\":{{\"nodeBootstrap\":{{\"policy\":\"StaticPod\"}}}}}}'"
    ));
    installation.give_standbys().await?;
    shell("kubectl get apr");
    output(&installation.tools().kubectl("get apr").await?);
    say(
        "Every kubelet and kube-proxy, those of the masters too, gets `server: https://127.0.0.1:7443`. Then the power goes.",
    );
    installation.point_all(&Server::Loopback).await?;
    installation.nodes_ready().await?;
    let took = power_cut(installation, LIMIT).await?;
    output(&installation.tools().kubectl("get nodes").await?);
    say(format!(
        "→ all {} nodes are Ready and served again {:.0} s after their hosts booted",
        installation.hosts().len(),
        took.as_secs_f32()
    ));
    Ok(())
}
