//! The demo's power cut: kubelets that have no way but their proxy come back from it.

use std::time::Duration;

use anyhow::{Result, ensure};
use trivet_instruments::eventually;

use crate::installation::{Installation, POOL, Server};
use crate::power_cut::power_cut;
use crate::say::{chapter, output, say, shell};

/// More than the promised two minutes, so that a slow machine shows its number instead of an error.
const LIMIT: Duration = Duration::from_secs(300);

/// A proxy looks every two seconds for a change to report.
const REPORTED: Duration = Duration::from_secs(30);

/// Gives every node a standby, points every kubelet at its proxy, and cuts the power of all hosts.
pub(super) async fn all(installation: &Installation) -> Result<()> {
    chapter("A power cut: all five hosts reboot at once");
    say(
        "After a boot kubelet learns its pods from an apiserver, which it reaches through a pod. So each node gets a standby,",
    );
    say("a static pod that kubelet starts by itself; it serves until the DaemonSet's proxy is back.");
    shell("helm upgrade trivet charts/trivet --namespace trivet-system --set nodeBootstrap.enabled=true");
    shell(format!(
        "kubectl patch asp {POOL} --type merge --patch '{{\"spec\":{{\"nodeBootstrap\":{{\"policy\":\"StaticPod\"}}}}}}'"
    ));
    installation.give_standbys().await?;
    shell("kubectl get apr");
    output(&reports_with_standbys(installation).await?);
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

/// The reports once each says that its node's standby is ready.
async fn reports_with_standbys(installation: &Installation) -> Result<String> {
    let tools = installation.tools();
    eventually(REPORTED, "reports of standbys", async || {
        let states = "get apr --output jsonpath={.items[*].standby}";
        let states = tools.kubectl(states).await?;
        let ready = states
            .split_whitespace()
            .filter(|state| *state == "Ready")
            .count();
        ensure!(ready == installation.hosts().len(), "{states}");
        Ok(())
    })
    .await?;
    tools.kubectl("get apr").await
}
