//! The standbys of the nodes: static pods that the pool's `nodeBootstrap` asks for.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trivet_crds::pool::{ApiserverPoolSpec, BootstrapPolicy, MetricsExposure};
use trivet_instruments::eventually;
use trivet_testbed::Host;

use super::pool::condition;
use super::{FIRST_MASTER, Installation, NAMESPACE, POOL, PROXY};

/// A writer's pod starts on each node, kubelet starts the static pod that it writes, and the operator waits between the two.
const STANDS_BY: Duration = Duration::from_secs(90);

/// The DaemonSet that writes the manifests of the standbys.
const WRITER: &str = "trivet-default-bootstrap";

/// Which nodes have a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standbys {
    None,
    EveryNode,
}

impl Standbys {
    /// The chart's values that are not its own. A scenario has little time for a soak: the first node of a rollout gets five
    /// seconds, and standbys follow at once.
    pub(super) fn values(self) -> &'static str {
        match self {
            Self::None => "--set rollout.soakSeconds=5",
            Self::EveryNode => {
                "--set rollout.soakSeconds=5 --set nodeBootstrap.enabled=true --set nodeBootstrap.soakSeconds=0 \
                 --set monitoring.nodeExposure.enabled=true"
            }
        }
    }

    /// The spec of a pool with them, which is empty otherwise. Its metrics are at the nodes' addresses too: what users have
    /// who look at their nodes.
    pub(super) fn spec(self) -> ApiserverPoolSpec {
        let mut spec = ApiserverPoolSpec::default();
        if self == Self::EveryNode {
            spec.node_bootstrap.policy = BootstrapPolicy::StaticPod;
            spec.proxy.metrics.exposure = MetricsExposure::Node;
        }
        spec
    }
}

impl Installation {
    /// Gives every node a standby, and waits until each could serve at once.
    pub async fn give_standbys(&self) -> Result<()> {
        self.install_for(Standbys::EveryNode).await?;
        self.edit_pool(json!({ "nodeBootstrap": { "policy": "StaticPod" } }))
            .await?;
        self.warm_standbys().await
    }

    /// Waits until every node has a standby that could serve at once.
    pub async fn warm_standbys(&self) -> Result<()> {
        eventually(STANDS_BY, "warm standbys", async || {
            self.hosts().iter().try_for_each(has_warm_standby)
        })
        .await
    }

    /// Takes the standbys away again, and what placed them; nothing happens where there is none.
    pub async fn take_standbys(&self) -> Result<()> {
        let writer =
            format!("get daemonset {WRITER} --namespace {NAMESPACE} --ignore-not-found --output name");
        if self.tools().kubectl(&writer).await?.is_empty() {
            return Ok(());
        }
        self.install_for(Standbys::EveryNode).await?;
        self.edit_pool(json!({ "nodeBootstrap": { "policy": "None" } }))
            .await?;
        let pools = self.pools(FIRST_MASTER).await?;
        eventually(STANDS_BY, "nodes without standbys", async || {
            let status = pools.get(POOL).await?.status.unwrap_or_default();
            let progressing = condition(&status, "Progressing")?;
            ensure!(progressing.reason == "Complete", "{progressing:?}");
            for host in self.hosts() {
                let left = standbys(&host)?;
                ensure!(left.is_empty(), "{} has standbys {left:?}", host.name());
            }
            Ok(())
        })
        .await?;
        let delete =
            format!("delete daemonset {WRITER} --namespace {NAMESPACE} --ignore-not-found --timeout=60s");
        // The chart lets nobody delete it before it rests, which is a pass after the last removal.
        let tools = self.tools();
        eventually(STANDS_BY, "the writer deleted", async || {
            tools.kubectl(&delete).await.map(drop)
        })
        .await
    }
}

/// Fails unless a standby of this host is warm: it was lent the listeners, and has what the process that serves knows.
fn has_warm_standby(host: &Host) -> Result<()> {
    let pid = standbys(host)?.into_iter().next();
    let pid = pid.with_context(|| format!("{} has no standby", host.name()))?;
    // In its mounts and its network, where its own program asks the process that serves.
    let output = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--mount", "--net"])
        .args(["/trivet-proxy", "status", "--output", "json"])
        .args(["--handover-dir", "/run/trivet-handover"])
        .output()
        .context("failed to start nsenter")?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}", host.name(), String::from_utf8_lossy(&output.stderr)))?;
    let peers = status.pointer("/handover/peers").and_then(Value::as_array);
    let is_warm = peers.into_iter().flatten().any(|peer| {
        peer.pointer("/rank/class").and_then(Value::as_str) == Some("Static")
            && peer.get("isWarm").and_then(Value::as_bool) == Some(true)
    });
    ensure!(
        is_warm,
        "{} has no warm standby: {:?}",
        host.name(),
        status.get("handover")
    );
    Ok(())
}

/// The pids of a host's standbys.
pub fn standbys(host: &Host) -> Result<Vec<i32>> {
    let mut pids = host.pids(PROXY)?;
    pids.retain(|pid| is_standby(*pid));
    Ok(pids)
}

/// Whether a proxy is a static pod's.
pub fn is_standby(pid: i32) -> bool {
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    environment.is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == b"TRIVET_CLASS=Static")
    })
}
