//! The standbys of the nodes: static pods that the pool's `nodeBootstrap` asks for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use trivet_instruments::eventually;
use trivet_testbed::Host;

use super::{Installation, PROXY};

/// A writer's pod starts on each node, kubelet starts the static pod that it writes, and the operator waits between the two.
const STANDS_BY: Duration = Duration::from_secs(90);

impl Installation {
    /// Gives every node a standby, and waits until it runs.
    pub async fn give_standbys(&self) -> Result<()> {
        self.allow_bootstrap().await?;
        self.edit_pool(json!({ "nodeBootstrap": { "policy": "StaticPod" } }))
            .await?;
        self.standbys(|host| Ok(!standbys(host)?.is_empty())).await
    }

    /// Waits until no node has a standby any more.
    pub async fn no_standbys(&self) -> Result<()> {
        self.standbys(|host| Ok(standbys(host)?.is_empty())).await
    }

    async fn standbys(&self, is_as_wanted: impl Fn(&Host) -> Result<bool>) -> Result<()> {
        eventually(STANDS_BY, "the standbys", async || {
            for host in self.hosts() {
                ensure!(
                    is_as_wanted(&host)?,
                    "{} has standbys {:?}",
                    host.name(),
                    standbys(&host)?
                );
            }
            Ok(())
        })
        .await
    }
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
