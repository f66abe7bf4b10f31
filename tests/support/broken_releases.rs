//! Broken releases of the proxy, one after another: each reaches one node at most, is named with its cause, and is taken back
//! within three minutes, and no client is refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_testbed::Progress;
use trivet_testbed::images::{self, Broken};

use crate::installation::{Installation, condition};
use crate::say::say;
use crate::steady_clients::SteadyClients;

/// From the edit until the last good template is back everywhere.
const ROLLED_BACK: Duration = Duration::from_secs(180);

/// No client waits longer.
const LIMIT: Duration = Duration::from_secs(1);

/// Nor where a proxy serves that cannot accept any more: the one before it finds that within 1.3 s. The rest is the machine's.
const LIMIT_WITHOUT_FILES: Duration = Duration::from_secs(2);

/// How long a new proxy must run well: a leak takes a few seconds, and the testbed's soak is shorter than that.
const SOAK_SECONDS: u32 = 15;

/// Brings one after another. `faulty` is the proxy with a fault.
pub async fn are_taken_back(installation: &Installation, kinds: &[Broken], faulty: &Path) -> Result<()> {
    let good = installation.template().await?;
    load(installation, kinds, faulty).await?;
    for broken in kinds {
        let clients = SteadyClients::start(installation)?;
        installation.edit_pool(edit_of(*broken)).await?;
        is_taken_back(installation, &good, *broken).await?;
        let limit = match broken {
            Broken::LeaksFiles => LIMIT_WITHOUT_FILES,
            Broken::Ends
            | Broken::Idles
            | Broken::DoesNotForward
            | Broken::LeaksMemory
            | Broken::IsForeign => LIMIT,
        };
        clients
            .none_was_refused(&format!("a release that is broken: {broken:?}"), limit)
            .await?;
    }
    Ok(())
}

/// Loads their images on all nodes. `faulty` is the proxy with a fault.
pub async fn load(installation: &Installation, kinds: &[Broken], faulty: &Path) -> Result<()> {
    let (kinds, faulty) = (kinds.to_vec(), faulty.to_owned());
    installation
        .disturb(move |cluster| {
            kinds.into_iter().try_for_each(|broken| {
                cluster.load_image(&images::broken(&Progress::new(), broken, &faulty)?)
            })
        })
        .await
}

/// What brings a broken release. One that takes memory has a limit that it does not come to.
pub fn edit_of(broken: Broken) -> Value {
    let limits = match broken {
        Broken::LeaksMemory => json!({ "memory": "256Mi" }),
        Broken::Ends | Broken::Idles | Broken::DoesNotForward | Broken::LeaksFiles | Broken::IsForeign => {
            Value::Null
        }
    };
    json!({
        "proxy": { "image": broken.image(), "resources": { "limits": limits } },
        "rollout": { "minReadySeconds": SOAK_SECONDS },
    })
}

/// What brings the good one back.
pub fn edit_of_none() -> Value {
    json!({ "proxy": { "image": null, "resources": null }, "rollout": null })
}

/// Waits until the rollout is halted, with its node, and every node has the good proxy. No second node has the broken one.
async fn is_taken_back(installation: &Installation, good: &str, broken: Broken) -> Result<()> {
    let (begun, mut harmed) = (Instant::now(), BTreeSet::new());
    loop {
        ensure!(
            begun.elapsed() < ROLLED_BACK,
            "{broken:?} is not taken back; it was on {harmed:?}"
        );
        let pods = installation.proxy_pods().await?;
        let bad = pods.iter().filter(|pod| pod.image == broken.image());
        harmed.extend(bad.clone().map(|pod| pod.node.clone()));
        ensure!(harmed.len() <= 1, "{broken:?} is on {harmed:?}");
        let is_gone = bad.count() == 0 && !harmed.is_empty();
        let are_good = pods
            .iter()
            .all(|pod| pod.template.as_deref() == Some(good) && pod.is_ready);
        let status = installation.pool_status().await?;
        let progressing = condition(&status, "Progressing")?;
        if is_gone && are_good && progressing.reason == "RolloutHalted" {
            let named = harmed.iter().all(|node| progressing.message.contains(node));
            ensure!(named, "{harmed:?} is not named: {}", progressing.message);
            say(format!(
                "{broken:?}: taken back from {harmed:?} after {:.0} s: {}",
                begun.elapsed().as_secs_f32(),
                progressing.message
            ));
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
}
