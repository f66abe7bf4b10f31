//! The release before, whose proxies share their port, is replaced by this one and restored, and no client is refused.
//! Edits reach the proxies of either release from the operator of the other.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trivet_instruments::eventually;
use trivet_testbed::{Progress, images, skew};
use trivet_tests::installation::{CHART, Installation, NAMESPACE, RELEASE, Server};
use trivet_tests::proxies::all_follow;
use trivet_tests::rollout::ProxyPod;
use trivet_tests::steady_clients::SteadyClients;

/// Two nodes are enough: they are replaced one after the other.
const POOL: &str = "
apiVersion: trivet.dev/v1alpha1
kind: ApiserverPool
metadata:
  name: default
spec:
  proxy: {nodeScope: WorkersOnly}
  connection: {drainTimeoutSeconds: 5}
";

/// No client waits longer: the older release binds a port that has become free within a second.
const LIMIT: Duration = Duration::from_secs(3);

/// A rollout that does not move by itself has been given this time.
const STANDS: Duration = Duration::from_secs(20);

/// The pods of this release have the label of their template, and those of the release before have not.
const PODS_OF_THIS_RELEASE: &str = "--selector trivet.dev/pool=default,trivet.dev/template";

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_is_replaced_and_restored_and_nobody_is_refused() -> Result<()> {
    let installation = Installation::bare().await?;
    let before = tokio::task::spawn_blocking(|| skew::before(&Progress::new())).await??;
    let archives = before.archives.clone();
    installation
        .disturb(move |cluster| {
            archives
                .iter()
                .try_for_each(|archive| cluster.load_image(archive))
        })
        .await?;
    install(&installation, Path::new(CHART), images::VERSION).await?;
    installation.tools().apply(POOL).await?;
    runs(&installation, images::VERSION).await?;
    installation.point_workers(&Server::Loopback).await?;
    let outcome = there_and_back(&installation, &before).await;
    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    installation.purge().await?;
    outcome
}

async fn there_and_back(installation: &Installation, before: &skew::Release) -> Result<()> {
    // The sockets are this release's own, and shared with nobody: the older proxies wait for them.
    let clients = SteadyClients::start(installation)?;
    install(installation, &before.chart, skew::TAG).await?;
    let delete = format!("delete pods --namespace {NAMESPACE} {PODS_OF_THIS_RELEASE} --wait=false");
    operates(installation, skew::TAG).await?;
    reaches(installation, images::VERSION, 300).await?;
    installation.allow_pods_to_go(PODS_OF_THIS_RELEASE).await?;
    installation.tools().kubectl(&delete).await?;
    runs(installation, skew::TAG).await?;
    clients
        .none_was_refused("back to the release before, by deleting the pods", LIMIT)
        .await?;

    let clients = SteadyClients::start(installation)?;
    install(installation, Path::new(CHART), images::VERSION).await?;
    reaches(installation, skew::TAG, 350).await?;
    runs(installation, images::VERSION).await?;
    clients.none_was_refused("from the release before", LIMIT).await?;

    // Now the sockets are those that the release before has shared.
    let clients = SteadyClients::start(installation)?;
    install(installation, &before.chart, skew::TAG).await?;
    runs(installation, skew::TAG).await?;
    clients
        .none_was_refused("back to the release before, by itself", LIMIT)
        .await
}

/// Installs a chart with images of this tag over what is there.
async fn install(installation: &Installation, chart: &Path, tag: &str) -> Result<()> {
    let chart = chart.display();
    installation
        .tools()
        .helm(&format!(
            "upgrade --install {RELEASE} {chart} --namespace {NAMESPACE} --create-namespace --reset-values \
             --set operator.image.tag={tag} --set proxy.image.tag={tag} --wait --timeout 120s"
        ))
        .await
        .map(drop)
}

/// Waits until the operator has told the DaemonSet controller to run proxies of this tag.
async fn operates(installation: &Installation, tag: &str) -> Result<()> {
    let image = "get daemonset trivet-default --output jsonpath={.spec.template.spec.containers[0].image}";
    eventually(STANDS, "the DaemonSet of the other release", async || {
        let image = installation
            .tools()
            .kubectl(&format!("{image} --namespace {NAMESPACE}"))
            .await?;
        ensure!(image.ends_with(&format!(":{tag}")), "it runs {image}");
        Ok(())
    })
    .await
}

/// Edits the pool while proxies of this tag serve, and waits until they follow the other release's operator.
async fn reaches(installation: &Installation, tag: &str, hedge_delay: u32) -> Result<()> {
    let before = installation.config_revision().await?;
    let edit = json!({ "connection": { "hedgeDelayMilliseconds": hedge_delay } });
    installation.edit_pool(edit).await?;
    let revision = eventually(STANDS, "the edit in the pool's status", async || {
        let revision = installation.config_revision().await?;
        ensure!(revision > before, "it is still {revision}");
        Ok(revision)
    })
    .await?;
    all_follow(&installation.workers(), revision, STANDS).await?;
    let images =
        "get pods --selector trivet.dev/pool=default --output jsonpath={.items[*].spec.containers[0].image}";
    let images = installation
        .tools()
        .kubectl(&format!("{images} --namespace {NAMESPACE}"))
        .await?;
    ensure!(images.contains(&format!(":{tag}")), "the proxies are {images}");
    Ok(())
}

/// Waits until each worker has one proxy of this tag.
async fn runs(installation: &Installation, tag: &str) -> Result<()> {
    let tag = format!(":{tag}");
    let workers: Vec<_> = installation
        .workers()
        .iter()
        .map(|host| host.name().to_string())
        .collect();
    let is_new = |pod: &ProxyPod| pod.image.ends_with(&tag);
    installation
        .rolled_out(&workers, is_new)
        .await
        .with_context(|| format!("proxies with images {tag}"))
}
