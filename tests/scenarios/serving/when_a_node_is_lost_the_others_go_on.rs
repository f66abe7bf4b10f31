//! A node that is lost is named, does not make the pool unready, and does not hold up a rollout on the others. Until the
//! API knows of the loss nothing changes, and the operator writes nothing.
//!
//! The last scenario by its name: nobody waits until the rollout is undone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trivet_crds::POOL_LABEL;
use trivet_instruments::eventually;
use trivet_testbed::Component;
use trivet_tests::audit;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::say::say;

/// The grace before a silent node is NotReady is 50 s, and the machine may be busy.
const NOT_READY: Duration = Duration::from_secs(90);

/// The node's pods become NotReady with it; what the pool makes of that must hold for a while.
const HOLDS: Duration = Duration::from_secs(10);

/// Four nodes, one after another, and the soak on the first.
const ROLLED_OUT: Duration = Duration::from_secs(180);

/// The user of the operator.
const OPERATOR: &str = "system:serviceaccount:trivet-system:trivet-operator";

/// The operator's resync, which is half a minute, and some seconds.
const RESYNCED: SignedDuration = SignedDuration::from_secs(35);

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_named_and_a_rollout_reaches_the_others() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    installation
        .disturb(|cluster| cluster.kill("w2", Component::Kubelet.program()))
        .await?;
    let outcome = the_others_go_on(&installation).await;
    installation
        .disturb(|cluster| cluster.start_component("w2", Component::Kubelet))
        .await?;
    outcome
}

async fn the_others_go_on(installation: &Installation) -> Result<()> {
    let nodes = Api::<Node>::all(installation.kubernetes("cp1").await?);
    let (from, start, mut lost) = (Timestamp::now(), Instant::now(), None);
    while lost.is_none_or(|(at, _): (Instant, Timestamp)| at.elapsed() < HOLDS) {
        ensure!(start.elapsed() < NOT_READY + HOLDS, "w2 is still Ready");
        let status = installation.pool_status().await?;
        let found = condition(&status, "Ready")?;
        ensure!(found.status == "True", "the pool left Ready: {found:?}");
        lost = match lost {
            None => not_ready_since(&nodes.get("w2").await?)?.map(|since| (Instant::now(), since)),
            known => known,
        };
        sleep(Duration::from_millis(500)).await;
    }
    let (_, until) = lost.context("w2 is still Ready")?;
    nothing_was_written(installation, from, until)?;
    let now = installation.pool_status().await?;
    let message = &condition(&now, "Ready")?.message;
    say(format!("w2 is lost, {}: {message}", now.proxies_summary));
    ensure!(now.proxies_summary == "4/4", "PROXIES is {}", now.proxies_summary);
    ensure!(message.contains("w2 (not Ready)"), "w2 is not named: {message}");

    installation
        .edit_pool(json!({ "proxy": { "logLevel": "debug" } }))
        .await?;
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

/// At rest the operator writes nothing.
fn nothing_was_written(installation: &Installation, from: Timestamp, until: Timestamp) -> Result<()> {
    let rest = until.duration_since(from);
    ensure!(rest >= RESYNCED, "the pool was at rest for {rest:#} only");
    let writes = audit::writes_by(OPERATOR, from..until, &installation.cluster().masters())?;
    ensure!(
        writes.is_empty(),
        "a settled pool makes the operator write: {writes:?}"
    );
    say(format!("the operator wrote nothing for {} s", rest.as_secs()));
    Ok(())
}

/// Since when a node is not Ready, by the API; none if it is Ready.
fn not_ready_since(node: &Node) -> Result<Option<Timestamp>> {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    let ready = ready.next().context("w2 has no condition Ready")?;
    if ready.status == "True" {
        return Ok(None);
    }
    let since = ready.last_transition_time.as_ref();
    Ok(Some(since.context("w2 is not Ready since no time")?.0))
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
