//! An edit of the scope, by labels or by the affinity, that would take proxies away is rejected until its owner allows it for its
//! generation, and a port of the apiservers is rejected.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_crds::POOL_LABEL;
use trivet_crds::pool::ApiserverPool;
use trivet_instruments::eventually;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::pods::assert_untouched;
use trivet_tests::say::say;

/// A pass follows an edit at once.
const TOLD: Duration = Duration::from_secs(10);

/// The DaemonSet controller follows an edit within a second.
const HOLDS: Duration = Duration::from_secs(5);

/// A proxy drains, or is pulled up on every node.
const FOLLOWED: Duration = Duration::from_secs(60);

/// The name of a second pool.
const SECOND: &str = "second";

#[tokio::test(flavor = "multi_thread")]
async fn a_typo_in_the_scope_costs_nothing_and_the_annotation_allows_it() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let outcome = the_scope_is_guarded(&installation).await;
    installation.reset_pool().await?;
    installation.pool_ready().await?;
    installation.proxies_settled().await?;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_apiservers_is_rejected() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let pools = installation.pools("cp1").await?;
    let spec = json!({
        "listeners": [{ "name": "apiserver", "port": 6443 }], "proxy": { "metrics": { "port": 7555 } },
    });
    let second = ApiserverPool::new(SECOND, serde_json::from_value(spec)?);
    pools.create(&PostParams::default(), &second).await?;
    let message = told(&pools, SECOND, 1, ("False", "PortOfApiserver")).await;
    let pods = pods_of(&installation, SECOND).await;
    pools.delete(SECOND, &DeleteParams::default()).await?;
    let message = message?;
    say(format!("Accepted=False: {message}"));
    for part in ["6443", "cp1", "WorkersOnly"] {
        ensure!(message.contains(part), "{part} is not named: {message}");
    }
    ensure!(pods?.is_empty(), "the pool has proxies");
    Ok(())
}

async fn the_scope_is_guarded(installation: &Installation) -> Result<()> {
    let pools = installation.pools("cp1").await?;
    let before = installation.proxies("cp1").await?;
    let worker = installation
        .workers()
        .into_iter()
        .next()
        .context("there is no worker")?;
    let attempts = attempts::start(&worker, &installation.client()?, LOOPBACKS[0], 20);

    let (labels, affinity) = typos();
    let generation = edit(&pools, &labels).await?;
    told(&pools, POOL, generation, ("False", "ScopeWouldShrink")).await?;
    let generation = edit(&pools, &affinity).await?;
    let start = Instant::now();
    let message = told(&pools, POOL, generation, ("False", "ScopeWouldShrink")).await?;
    say(format!("Accepted=False after {:?}: {message}", start.elapsed()));
    let count = format!("{} nodes", installation.hosts().len());
    for part in [count.as_str(), "cp1", "trivet.dev/allow-scope-shrink"] {
        ensure!(message.contains(part), "{part} is not named: {message}");
    }
    // The annotation of another generation allows nothing.
    allow(&pools, generation - 1).await?;
    sleep(HOLDS).await;
    told(&pools, POOL, generation, ("False", "ScopeWouldShrink")).await?;
    assert_untouched(&before, &installation.proxies("cp1").await?)?;
    ensure!(leaving(installation).await?.is_empty(), "a proxy ends");
    let record = attempts.finish().await?;
    record.all_succeeded("the client")?;
    say(format!(
        "→ 0 of {} new connections failed",
        record.attempts().len()
    ));

    allow(&pools, generation).await?;
    told(&pools, POOL, generation, ("True", "Accepted")).await?;
    eventually(FOLLOWED, "the proxies' end", async || {
        let all = pods_of(installation, POOL).await?;
        let left = all.len() - leaving(installation).await?.len();
        ensure!(left == 0, "{left} proxies stay");
        Ok(())
    })
    .await?;

    let repaired = json!({ "spec": { "proxy": { "affinity": null } } });
    let generation = edit(&pools, &repaired).await?;
    told(&pools, POOL, generation, ("True", "Accepted")).await?;
    installation.pool_ready().await?;
    let names = |proxies: &trivet_tests::pods::Proxies| proxies.keys().cloned().collect::<Vec<_>>();
    eventually(FOLLOWED, "a proxy on each node", async || {
        let now = installation.proxies("cp1").await?;
        ensure!(names(&now) == names(&before), "they are on {:?}", names(&now));
        Ok(())
    })
    .await
}

/// A label that no node has: in the nodeSelector, then in the affinity instead.
fn typos() -> (Value, Value) {
    let no_node = json!({ "key": "kubernetes.io/oss", "operator": "Exists" });
    let required = json!({ "nodeSelectorTerms": [{ "matchExpressions": [no_node] }] });
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
    let labels = json!({ "kubernetes.io/oss": "linux" });
    (
        json!({ "spec": { "proxy": { "nodeSelector": labels } } }),
        json!({ "spec": { "proxy": { "nodeSelector": null, "affinity": affinity } } }),
    )
}

/// Edits the pool; returns the generation that must be judged.
async fn edit(pools: &Api<ApiserverPool>, patch: &Value) -> Result<i64> {
    let patched = pools
        .patch(POOL, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    patched.metadata.generation.context("the pool has no generation")
}

async fn allow(pools: &Api<ApiserverPool>, generation: i64) -> Result<()> {
    let annotation = json!({ "trivet.dev/allow-scope-shrink": generation.to_string() });
    edit(pools, &json!({ "metadata": { "annotations": annotation } })).await?;
    Ok(())
}

/// Waits until the operator says this of a generation, by status and reason of Accepted; returns the message.
async fn told(
    pools: &Api<ApiserverPool>,
    pool: &str,
    generation: i64,
    expected: (&str, &str),
) -> Result<String> {
    eventually(
        TOLD,
        &format!("Accepted={} ({})", expected.0, expected.1),
        async || {
            let status = pools.get(pool).await?.status.unwrap_or_default();
            let accepted = condition(&status, "Accepted")?;
            let is_of_edit = accepted.observed_generation >= Some(generation);
            ensure!(
                is_of_edit && (accepted.status.as_str(), accepted.reason.as_str()) == expected,
                "{accepted:?}"
            );
            Ok(accepted.message.clone())
        },
    )
    .await
}

async fn pods_of(installation: &Installation, pool: &str) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
    Ok(pods.list(&of_pool).await?.items)
}

/// The names of the proxies that end.
async fn leaving(installation: &Installation) -> Result<Vec<String>> {
    let pods = pods_of(installation, POOL).await?;
    let ending = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some());
    Ok(ending.map(ResourceExt::name_any).collect())
}
