//! A broken release of the proxy reaches one node at most, is named with its cause, and is taken back within three minutes,
//! which events tell. No client is refused, and the same release again is not tried.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use trivet_instruments::eventually;
use trivet_testbed::images::Broken;
use trivet_tests::broken_releases::{are_taken_back, edit_of, edit_of_none};
use trivet_tests::installation::{Installation, condition};

use crate::FAULTY;

/// An edit that brings a failed template again is answered in the operator's next passes.
const ANSWERED: Duration = Duration::from_secs(20);

/// A failed template that came again would have begun within this time.
const STANDS: Duration = Duration::from_secs(10);

/// The last one comes again. One that does nothing at all looks to the operator like one that does not forward, and a minute
/// for each is too much for every day: `soak` has it.
const KINDS: [Broken; 5] = [
    Broken::Ends,
    Broken::DoesNotForward,
    Broken::LeaksFiles,
    Broken::LeaksMemory,
    Broken::IsForeign,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_proxy_is_taken_back_from_its_first_node_and_not_tried_again() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let outcome = all(&installation).await;
    installation.edit_pool(edit_of_none()).await?;
    outcome
}

async fn all(installation: &Installation) -> Result<()> {
    let (good, since) = (installation.template().await?, Timestamp::now());
    are_taken_back(installation, &KINDS, FAULTY.as_ref()).await?;
    for (reason, words) in [
        ("RolloutStarted", "one node first"),
        ("RolloutHalted", "has failed"),
    ] {
        installation.told_by_event(reason, words, since).await?;
    }
    installation.edit_pool(edit_of_none()).await?;
    progresses(installation, |reason, _| reason != "RolloutHalted").await?;
    installation.edit_pool(edit_of(Broken::IsForeign)).await?;
    progresses(installation, |reason, _| reason == "RolloutHalted").await?;
    let begun = Instant::now();
    while begun.elapsed() < STANDS {
        ensure!(installation.template().await? == good, "it is tried again");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
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
