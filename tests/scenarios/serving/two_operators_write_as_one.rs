//! Of several operators one writes: one of another release, with another image for the proxies, changes nothing while it
//! leads.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;
use trivet_crds::data_plane_name;
use trivet_instruments::eventually;
use trivet_tests::audit;
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, NAMESPACE, POOL};
use trivet_tests::operators::PROGRAM;
use trivet_tests::say::say;

/// The operator of another release, as a Deployment beside that of the chart.
const RIVAL: &str = "another-operator";

/// The image that it would give the proxies. The chart's policy allows it.
const ITS_IMAGE: &str = "--proxy-image=trivet.dev/trivet-proxy:another";

/// A pod is placed and started, and has read everything.
const READY: Duration = Duration::from_secs(30);

/// From an edit to the ConfigMap, on a busy machine.
const OBEYED: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_another_release_changes_nothing_while_it_does_not_lead() -> Result<()> {
    let installation = Installation::serving().await?;
    installation.operator_works().await?;
    let generation = generation(&installation).await?;
    let outcome = a_rival_changes_nothing(&installation).await;
    remove_rival(&installation).await?;
    outcome?;
    let now = self::generation(&installation).await?;
    ensure!(
        now == generation,
        "the proxies' DaemonSet had {} other templates",
        now - generation
    );
    Ok(())
}

async fn a_rival_changes_nothing(installation: &Installation) -> Result<()> {
    let from = Timestamp::now();
    let rival = start_rival(installation).await?;
    let (before, leader) = (generation(installation).await?, installation.leader().await?);
    let took = obeys_an_edit(installation, 300).await?;
    let now = installation.leader().await?;
    ensure!(now == leader, "{} led, and {} leads", leader.pod, now.pod);
    let writes = audit::writes_of_pod(
        &rival,
        &(from..Timestamp::now()),
        &installation.cluster().masters(),
    )?;
    ensure!(writes.is_empty(), "{rival} does not lead, and writes: {writes:?}");
    let after = generation(installation).await?;
    ensure!(after == before, "the DaemonSet was written");
    say(format!(
        "beside {rival} with another image {} leads: an edit is obeyed after {:.1} s, the template stays",
        leader.pod,
        took.as_secs_f32()
    ));
    Ok(())
}

/// Edits what restarts no proxy. Returns the time until the document has it.
async fn obeys_an_edit(installation: &Installation, hedge_delay: u32) -> Result<Duration> {
    let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
    let begun = Instant::now();
    installation
        .edit_pool(json!({ "connection": { "hedgeDelayMilliseconds": hedge_delay } }))
        .await?;
    documents
        .until(OBEYED, |document| {
            document.connection.hedge_delay_milliseconds == hedge_delay
        })
        .await?;
    Ok(begun.elapsed())
}

/// The Deployment of the rival, made of that of the operator.
fn rival_of(operator: Deployment) -> Result<Deployment> {
    let mut spec = operator.spec.context("the Deployment has no spec")?;
    let labels: BTreeMap<_, _> = [("app.kubernetes.io/name".to_owned(), RIVAL.to_owned())].into();
    spec.replicas = Some(1);
    spec.selector.match_labels = Some(labels.clone());
    spec.template.metadata = Some(ObjectMeta {
        labels: Some(labels),
        ..ObjectMeta::default()
    });
    let pod = spec.template.spec.as_mut().context("the Deployment has no pod")?;
    let container = pod
        .containers
        .first_mut()
        .context("the operator has no container")?;
    let flags = container.args.iter_mut().flatten();
    let image = flags.into_iter().find(|flag| flag.starts_with("--proxy-image="));
    ITS_IMAGE.clone_into(image.context("the operator has no flag --proxy-image")?);
    Ok(Deployment {
        metadata: ObjectMeta {
            name: Some(RIVAL.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

/// Starts the rival and waits until it has read everything; returns its pod.
async fn start_rival(installation: &Installation) -> Result<String> {
    let kubernetes = installation.kubernetes("cp1").await?;
    let deployments = Api::<Deployment>::namespaced(kubernetes.clone(), NAMESPACE);
    let operator = deployments.get(PROGRAM).await?;
    deployments
        .create(&PostParams::default(), &rival_of(operator)?)
        .await?;
    let pods = Api::<Pod>::namespaced(kubernetes, NAMESPACE);
    let of_rival = ListParams::default().labels(&format!("app.kubernetes.io/name={RIVAL}"));
    eventually(READY, "the other operator ready", async || {
        let pods = pods.list(&of_rival).await?;
        let pod = pods.items.first().context("it has no pod")?;
        let conditions = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ensure!(is_ready, "{} is not ready", pod.name_any());
        Ok(pod.name_any())
    })
    .await
}

/// Removes the rival for good: it must not lead once the leader is stopped.
async fn remove_rival(installation: &Installation) -> Result<()> {
    let kubernetes = installation.kubernetes("cp1").await?;
    let deployments = Api::<Deployment>::namespaced(kubernetes.clone(), NAMESPACE);
    match deployments.delete(RIVAL, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        deleted => drop(deleted?),
    }
    let pods = Api::<Pod>::namespaced(kubernetes, NAMESPACE);
    let of_rival = ListParams::default().labels(&format!("app.kubernetes.io/name={RIVAL}"));
    eventually(READY, "the end of the other operator", async || {
        let pods = pods.list(&of_rival).await?;
        ensure!(pods.items.is_empty(), "it has a pod");
        Ok(())
    })
    .await
}

/// The generation of the proxies' DaemonSet: it grows with each change of its spec.
async fn generation(installation: &Installation) -> Result<i64> {
    let sets = Api::<DaemonSet>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let set = sets.get(&data_plane_name(POOL)).await?;
    set.metadata.generation.context("the DaemonSet has no generation")
}
