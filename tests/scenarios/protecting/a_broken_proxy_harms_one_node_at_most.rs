//! A broken release of the proxy reaches one node at most, is named with its cause, and is taken back within three minutes.
//! No client is refused, and the same release again is not tried.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_instruments::eventually;
use trivet_testbed::Progress;
use trivet_testbed::images::{self, Broken};
use trivet_tests::installation::{Installation, condition};
use trivet_tests::say::say;
use trivet_tests::steady_clients::SteadyClients;

/// From the edit until the last good template is back everywhere.
const ROLLED_BACK: Duration = Duration::from_secs(180);

/// An edit that brings a failed template again is answered in the operator's next passes.
const ANSWERED: Duration = Duration::from_secs(20);

/// A failed template that came again would have begun within this time.
const STANDS: Duration = Duration::from_secs(15);

/// No client waits longer.
const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_proxy_is_taken_back_from_its_first_node_and_not_tried_again() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let outcome = all(&installation).await;
    edit_image(&installation, &Value::Null).await?;
    outcome
}

async fn all(installation: &Installation) -> Result<()> {
    let good = installation.template().await?;
    for broken in [Broken::Ends, Broken::Idles, Broken::IsForeign] {
        installation
            .disturb(move |cluster| cluster.load_image(&images::broken(&Progress::new(), broken)?))
            .await?;
        let clients = SteadyClients::start(installation)?;
        let image = Value::from(broken.image());
        edit_image(installation, &image).await?;
        is_taken_back(installation, &good, broken).await?;
        clients
            .none_was_refused(&format!("a release that is broken: {broken:?}"), LIMIT)
            .await?;
    }
    let again = Value::from(Broken::IsForeign.image());
    edit_image(installation, &Value::Null).await?;
    progresses(installation, |reason, _| reason != "RolloutHalted").await?;
    edit_image(installation, &again).await?;
    progresses(installation, |reason, _| reason == "RolloutHalted").await?;
    let begun = Instant::now();
    while begun.elapsed() < STANDS {
        ensure!(installation.template().await? == good, "it is tried again");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
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

/// Waits until the condition Progressing has such a reason and message.
async fn progresses(installation: &Installation, is_such: impl Fn(&str, &str) -> bool) -> Result<()> {
    eventually(ANSWERED, "another reason of Progressing", async || {
        let status = installation.pool_status().await?;
        let found = condition(&status, "Progressing")?;
        ensure!(is_such(&found.reason, &found.message), "{found:?}");
        Ok(())
    })
    .await
}

async fn edit_image(installation: &Installation, image: &Value) -> Result<()> {
    installation
        .edit_pool(json!({ "proxy": { "image": image } }))
        .await
}
