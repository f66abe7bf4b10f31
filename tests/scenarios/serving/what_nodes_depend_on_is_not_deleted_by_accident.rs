//! The API server refuses to delete the namespace and the DaemonSets that nodes depend on until an annotation says that
//! it is meant, and lets only the operator write them; and it finishes every deletion that it allows.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tokio::time::Instant;
use tokio::try_join;
use trivet_tests::installation::{Installation, NAMESPACE, RELEASE, Server};
use trivet_tests::pods::assert_untouched;
use trivet_tests::say::say;

/// The user of the operator.
const OPERATOR: &str = "system:serviceaccount:trivet-system:trivet-operator";

/// The program of the proxies.
const PROXY: &str = "trivet-proxy";

/// What the refusal of a deletion names as the way out.
const WAY_OUT: &str = "trivet.dev/allow-delete=true";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_by_accident() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let tools = installation.tools();
    let before = installation.proxies("cp1").await?;

    let warnings = "get validatingadmissionpolicies --selector app.kubernetes.io/name=trivet \
                    --output jsonpath={.items[*].status.typeChecking.expressionWarnings}";
    let warnings = tools.kubectl(warnings).await?;
    ensure!(warnings.is_empty(), "the policies have warnings: {warnings}");
    deletions_are_refused(&installation).await?;
    writes_are_refused(&installation).await?;
    operators_token_is_fenced(&installation).await?;

    tools
        .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE} --wait"))
        .await?;
    deletions_are_refused(&installation).await?;
    installation.install().await?;
    installation.pool_ready().await?;
    assert_untouched(&before, &installation.proxies("cp1").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_deletion_that_is_meant_finishes() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    let tools = installation.tools();
    // The operator puts back what it misses, so it goes first.
    let uninstall = format!("uninstall {RELEASE} --namespace {NAMESPACE} --wait");

    tools.helm(&uninstall).await?;
    tools
        .kubectl(&format!(
            "annotate daemonset trivet-default --namespace {NAMESPACE} trivet.dev/allow-delete=true"
        ))
        .await?;
    let delete = format!(
        "delete daemonset trivet-default --namespace {NAMESPACE} --cascade=foreground --timeout=120s"
    );
    try_join!(tools.kubectl(&delete), end_leaving(&installation))?;
    say("the annotated DaemonSet is gone, its pods first");

    // A namespace that still has pods is looked at again only after half of the time that they may take to end.
    installation
        .edit_pool(json!({ "connection": { "drainTimeoutSeconds": 0 } }))
        .await?;
    installation.install().await?;
    installation.pool_ready().await?;
    tools.helm(&uninstall).await?;
    let start = Instant::now();
    try_join!(installation.delete_namespace(), end_leaving(&installation))?;
    say(format!(
        "the annotated namespace is gone with its DaemonSet after {:.1} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Kills the proxies once all of them are being deleted: each would wait for a successor for half a minute.
async fn end_leaving(installation: &Installation) -> Result<()> {
    let nodes: Vec<_> = installation
        .hosts()
        .iter()
        .map(|host| host.name().to_string())
        .collect();
    installation
        .pods_of_nodes(&nodes, "proxies that are being deleted", |pods| {
            pods.iter().all(|pod| pod.is_leaving)
        })
        .await?;
    installation
        .disturb(move |cluster| nodes.iter().try_for_each(|node| cluster.kill(node, PROXY)))
        .await
}

/// The namespace, and the DaemonSet by name, with its pods first, and as one of a collection.
async fn deletions_are_refused(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    for command in [
        format!("delete namespace {NAMESPACE} --wait=false"),
        format!("delete daemonset trivet-default --namespace {NAMESPACE} --wait=false"),
        format!("delete daemonset trivet-default --namespace {NAMESPACE} --cascade=foreground --wait=false"),
    ] {
        let refusal = tools.kubectl(&command).await.err();
        let refusal = refusal.with_context(|| format!("`{command}` is not refused"))?;
        named(&command, &format!("{refusal:#}"), WAY_OUT)?;
    }
    let sets = Api::<DaemonSet>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let (how, all) = (DeleteParams::default(), ListParams::default());
    let refusal = sets
        .delete_collection(&how, &all)
        .await
        .err()
        .context("the collection is not refused")?;
    named("deletecollection", &refusal.to_string(), WAY_OUT)?;
    let left = sets.get("trivet-default").await?;
    ensure!(
        left.metadata.deletion_timestamp.is_none(),
        "a refused deletion has begun"
    );
    Ok(())
}

/// Nobody but the operator changes what runs on the nodes; annotations stay open.
async fn writes_are_refused(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let set = format!("daemonset/trivet-default --namespace {NAMESPACE}");
    for command in [
        format!("set image {set} proxy=trivet.dev/trivet-proxy:other"),
        format!("label {set} trivet.dev/pool-"),
        format!("rollout restart {set}"),
    ] {
        let refusal = tools.kubectl(&command).await.err();
        let refusal = refusal.with_context(|| format!("`{command}` is not refused"))?;
        named(&command, &format!("{refusal:#}"), "only Trivet's operator")?;
    }
    tools
        .kubectl(&format!("annotate {set} example.com/note=seen"))
        .await?;
    tools
        .kubectl(&format!("annotate {set} example.com/note-"))
        .await?;
    Ok(())
}

/// With the operator's own rights: what it never does is refused.
async fn operators_token_is_fenced(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let container = |changes: serde_json::Value| {
        let mut container = json!({ "name": "proxy" });
        merge(&mut container, changes);
        json!({ "spec": { "template": { "spec": { "containers": [container] } } } })
    };
    let volume = json!({ "name": "root", "hostPath": { "path": "/etc" } });
    let cases = [
        (
            container(json!({ "image": "example.com/other:1" })),
            "image of the proxies",
        ),
        (
            container(json!({ "securityContext": { "privileged": true, "allowPrivilegeEscalation": true } })),
            "without privileges",
        ),
        (
            container(json!({ "envFrom": [{ "secretRef": { "name": "secret" } }] })),
            "environment",
        ),
        (
            json!({ "spec": { "template": { "spec": { "volumes": [volume] } } } }),
            "paths of the node",
        ),
        (
            json!({ "spec": { "template": { "spec": { "hostPID": true } } } }),
            "processes of the host",
        ),
    ];
    for (patch, words) in cases {
        let patch = patch.to_string();
        let command = format!(
            "patch daemonset trivet-default --namespace {NAMESPACE} --as={OPERATOR} --dry-run=server --patch {patch}"
        );
        let refusal = tools.kubectl(&command).await.err();
        let refusal = refusal.with_context(|| format!("{patch} is not refused"))?;
        named(&patch, &format!("{refusal:#}"), words)?;
    }
    let unlabelled = format!(
        "create --namespace {NAMESPACE} --as={OPERATOR} --dry-run=server --filename {}",
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/support/installation/unlabelled.yaml"
        )
    );
    let refusal = tools
        .kubectl(&unlabelled)
        .await
        .err()
        .context("it is not refused")?;
    named(
        "a DaemonSet without the label",
        &format!("{refusal:#}"),
        "with the label trivet.dev/pool",
    )
}

fn merge(into: &mut serde_json::Value, changes: serde_json::Value) {
    if let (Some(into), serde_json::Value::Object(changes)) = (into.as_object_mut(), changes) {
        into.extend(changes);
    }
}

fn named(what: &str, refusal: &str, words: &str) -> Result<()> {
    ensure!(
        refusal.contains(words),
        "{what} is refused without {words:?}: {refusal}"
    );
    Ok(())
}
