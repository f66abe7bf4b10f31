//! The proxies of a deleted pool stay while a node uses them. Once somebody asks for it, they go, with their standbys and with
//! all that both had on the nodes.
//!
//! By its name it runs last: no other scenario has to bring the proxies back.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;
use trivet_instruments::eventually;
use trivet_tests::installation::{Installation, NAMESPACE, Server};
use trivet_tests::pods::assert_untouched;
use trivet_tests::say::say;

/// From the deletion of the pool to the words of the operator: it looks every ten seconds.
const TOLD: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_proxies_of_a_deleted_pool_stay_while_used_and_then_go_without_a_trace() -> Result<()> {
    let installation = Installation::standing_by().await?.told().await?;
    let tools = installation.tools();
    let proxies = installation.proxies("cp1").await?;
    let directories = installation.pod_directories().await?;

    tools.kubectl("delete asp default --wait").await?;
    // Of both operators: only the one that leads says it.
    let log = format!("logs deployment/trivet-operator --all-pods --namespace {NAMESPACE} --since=60s");
    eventually(TOLD, "the operator's word on the workers", async || {
        let log = tools.kubectl(&log).await?;
        let line = log.lines().rfind(|line| line.contains("its proxies stay"));
        let is_told = line.is_some_and(|line| line.contains("w1 (") && line.contains("w2 ("));
        ensure!(is_told, "{line:?}");
        Ok(())
    })
    .await?;
    let refused = installation.run_retirement("too-early").await?;
    ensure!(!refused.is_well, "{}", refused.log);
    for words in ["w1 (", "connections)", "trivet.dev/retire=now"] {
        ensure!(refused.log.contains(words), "without {words:?}: {}", refused.log);
    }
    assert_untouched(&proxies, &installation.proxies("cp1").await?)?;

    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    let asked = Instant::now();
    tools
        .kubectl(&format!(
            "annotate daemonset trivet-default --namespace {NAMESPACE} trivet.dev/retire=now"
        ))
        .await?;
    installation.end_leaving_proxies().await?;
    installation.nothing_is_left(&directories).await?;
    say(format!(
        "{} pods and all that they had are gone {:.0} s after the annotation",
        directories.len(),
        asked.elapsed().as_secs_f32()
    ));

    eventually(TOLD, "nothing left in the API", async || {
        for left in [
            "daemonsets",
            "configmaps --selector trivet.dev/pool",
            "proxyreports",
        ] {
            let found = format!("get {left} --namespace {NAMESPACE} --output name");
            let found = tools.kubectl(&found).await?;
            ensure!(found.is_empty(), "{found}");
        }
        let retired = "get events --namespace default --field-selector reason=PoolRetired --output name";
        ensure!(!tools.kubectl(retired).await?.is_empty(), "no event says so");
        Ok(())
    })
    .await
}
