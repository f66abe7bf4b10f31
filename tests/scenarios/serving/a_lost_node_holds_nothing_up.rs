//! A node that is gone is named and does not make the pool unready, does not hold up a rollout on the others; and an
//! object that the API server refuses is shown with the API server's words.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_crds::POOL_LABEL;
use trivet_crds::pool::ApiserverPoolStatus;
use trivet_instruments::eventually;
use trivet_testbed::Component;
use trivet_tests::installation::{Installation, NAMESPACE, POOL};
use trivet_tests::say::say;

/// The grace before a silent node is NotReady is 50 s, and the machine may be busy.
const NOT_READY: Duration = Duration::from_secs(90);

/// The node's pods become NotReady with it; what the pool makes of that must hold for a while.
const HOLDS: Duration = Duration::from_secs(10);

/// Four nodes, one after another.
const ROLLED_OUT: Duration = Duration::from_secs(120);

/// A pass follows an edit at once.
const TOLD: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_named_and_a_rollout_reaches_the_others() -> Result<()> {
    // The kubelets stay as they are: one that restarts reports its pods unready until their next probe.
    let installation = Installation::serving().await?.told().await?;
    // The set-up restarts proxies that remember a fall, and their pods are ready some seconds after they serve.
    all_pods_ready(&installation).await?;
    installation
        .disturb(|cluster| cluster.kill("w2", Component::Kubelet.program()))
        .await?;
    let outcome = the_others_go_on(&installation).await;
    installation
        .disturb(|cluster| cluster.start_component("w2", Component::Kubelet))
        .await?;
    installation.reset_pool().await?;
    installation.nodes_ready().await?;
    installation.pool_ready().await?;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_daemon_set_is_told_in_the_words_of_the_api_server() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    edit(
        &installation,
        json!({ "proxy": { "image": "example.com/other:1" } }),
    )
    .await?;
    let message = eventually(TOLD, "the refusal", async || {
        let status = status(&installation).await?;
        let found = condition(&status, "ProxiesAvailable")?;
        ensure!(found.1 == "ApplyFailed", "{found:?}");
        Ok(found.2)
    })
    .await?;
    say(format!("ProxiesAvailable=False: {message}"));
    ensure!(
        message.contains("an image of the proxies must begin with"),
        "{message}"
    );
    let events = Api::<Event>::namespaced(installation.kubernetes("cp1").await?, "default");
    eventually(TOLD, "an event", async || {
        let failed = ListParams::default().fields("reason=ApplyFailed");
        let events = events.list(&failed).await?;
        let is_told = |event: &Event| {
            event
                .message
                .as_ref()
                .is_some_and(|note| note.contains("an image of"))
        };
        ensure!(events.iter().any(is_told), "none");
        Ok(())
    })
    .await?;
    installation.reset_pool().await?;
    installation.pool_ready().await
}

async fn the_others_go_on(installation: &Installation) -> Result<()> {
    let nodes = Api::<Node>::all(installation.kubernetes("cp1").await?);
    let (start, mut lost) = (Instant::now(), None);
    while lost.is_none_or(|at: Instant| at.elapsed() < HOLDS) {
        ensure!(start.elapsed() < NOT_READY + HOLDS, "w2 is still Ready");
        let found = condition(&status(installation).await?, "Ready")?;
        ensure!(found.0 == "True", "the pool left Ready: {found:?}");
        if lost.is_none() && !is_ready(&nodes.get("w2").await?) {
            lost = Some(Instant::now());
        }
        sleep(Duration::from_millis(500)).await;
    }
    let now = status(installation).await?;
    let message = condition(&now, "Ready")?.2;
    say(format!("w2 is lost, {}: {message}", now.proxies_summary));
    ensure!(now.proxies_summary == "4/4", "PROXIES is {}", now.proxies_summary);
    ensure!(message.contains("w2 (not Ready)"), "w2 is not named: {message}");

    edit(installation, json!({ "proxy": { "logLevel": "debug" } })).await?;
    let start = Instant::now();
    let pods = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let all = ListParams::default().labels(&format!("{POOL_LABEL}={POOL}"));
    eventually(ROLLED_OUT, "the new template on four nodes", async || {
        let pods = pods.list(&all).await?;
        let new = pods
            .iter()
            .filter(|pod| has_new_template(pod) && pod_is_ready(pod));
        let nodes: Vec<_> = new
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .collect();
        ensure!(nodes.len() == 4, "it is on {nodes:?}");
        Ok(())
    })
    .await?;
    installation.pool_ready().await?;
    say(format!(
        "the new template is on the other four after {:.1} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

async fn all_pods_ready(installation: &Installation) -> Result<()> {
    let pods = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let all = ListParams::default().labels(&format!("{POOL_LABEL}={POOL}"));
    eventually(TOLD, "all proxies' pods ready", async || {
        let pods = pods.list(&all).await?;
        let ready = pods.iter().filter(|pod| pod_is_ready(pod)).count();
        ensure!(ready == installation.hosts().len(), "{ready} are");
        Ok(())
    })
    .await
}

async fn edit(installation: &Installation, spec: Value) -> Result<()> {
    let pools = installation.pools("cp1").await?;
    let patch = Patch::Merge(json!({ "spec": spec }));
    pools.patch(POOL, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn status(installation: &Installation) -> Result<ApiserverPoolStatus> {
    let pool = installation.pools("cp1").await?.get(POOL).await?;
    pool.status.context("the pool has no status")
}

/// Status, reason and message of a condition.
fn condition(status: &ApiserverPoolStatus, type_: &str) -> Result<(String, String, String)> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.type_ == type_);
    let found = found.with_context(|| format!("there is no condition {type_}"))?;
    Ok((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_new_template(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
    pod.metadata.deletion_timestamp.is_none() && arguments.any(|word| word == "debug")
}

fn pod_is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
