//! The API server refuses to delete the namespace and the DaemonSets that nodes depend on until an annotation says that
//! it is meant, and lets only the operator write them; and it finishes every deletion that it allows.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use tokio::try_join;
use trivet_crds::report::{ProxyReport, name};
use trivet_instruments::eventually;
use trivet_tests::installation::{EMPTY_POOL, Installation, NAMESPACE, POOL, RELEASE, Server};
use trivet_tests::names::{TOLD, policies, targets};
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
    proxies_are_not_deleted_by_hand(&installation).await?;
    a_report_is_that_of_its_own_node(&installation).await?;

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

    // What says in DNS where the apiservers are goes with the proxies.
    installation.install_dns_endpoints().await?;
    installation.edit_pool(policies("Enabled")).await?;
    eventually(TOLD, "the names of the pool", async || {
        targets(&tools).await.map(drop)
    })
    .await?;
    tools.helm(&uninstall).await?;
    the_one_command_finishes(&installation).await?;
    installation.no_names_are_left().await?;
    installation.remove_dns_endpoints().await?;
    installation.install().await?;
    tools.apply(EMPTY_POOL).await?;
    installation.pool_ready().await?;

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

/// Without an operator: what the chart's notes name refuses while the pool exists, and then leaves nothing.
async fn the_one_command_finishes(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let directories = installation.pod_directories().await?;
    let refused = installation.run_retirement("retire-too-early").await?;
    let words = "kubectl delete asp default";
    ensure!(
        !refused.is_well && refused.log.contains(words),
        "without {words:?}: {refused:?}"
    );
    tools.kubectl("delete asp default --wait").await?;
    let asks = format!("annotate daemonset trivet-default --namespace {NAMESPACE} trivet.dev/retire=now");
    tools.kubectl(&asks).await?;
    let start = Instant::now();
    let (ended, ()) = try_join!(
        installation.run_retirement("retire-trivet"),
        installation.end_leaving_proxies()
    )?;
    ensure!(ended.is_well, "{}", ended.log);
    installation.nothing_is_left(&directories).await?;
    say(format!(
        "without an operator nothing is left after {:.1} s",
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

/// A proxy that serves a node without a standby. Those that replace and collect pods, and the node's kubelet, are not refused.
async fn proxies_are_not_deleted_by_hand(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let pods = installation.proxy_pods().await?;
    let pod = pods.iter().find(|pod| pod.node == "w1" && pod.is_ready);
    let name = &pod.context("w1 has no ready proxy")?.name;
    let delete = format!("delete pod {name} --namespace {NAMESPACE} --dry-run=server");
    let all = format!("delete pods --selector trivet.dev/pool --namespace {NAMESPACE} --dry-run=server");
    for command in [&delete, &all] {
        let refusal = tools.kubectl(command).await.err();
        let refusal = refusal.with_context(|| format!("`{command}` is not refused"))?;
        named(command, &format!("{refusal:#}"), WAY_OUT)?;
    }
    let api = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let refusal = api.evict(name, &EvictParams::default()).await.err();
    let refusal = refusal.context("an eviction is not refused")?;
    named("an eviction", &refusal.to_string(), "nobody evicts a proxy")?;
    for user in [
        "--as=system:serviceaccount:kube-system:daemon-set-controller",
        "--as=system:serviceaccount:kube-system:generic-garbage-collector",
        "--as=system:serviceaccount:kube-system:pod-garbage-collector",
        "--as=system:serviceaccount:kube-system:namespace-controller",
        "--as=system:node:w1 --as-group=system:nodes",
    ] {
        tools.kubectl(&format!("{delete} {user}")).await?;
    }
    let other = format!("{delete} --as=system:node:w2 --as-group=system:nodes");
    ensure!(tools.kubectl(&other).await.is_err(), "`{other}` is not refused");
    installation
        .allow_pods_to_go(&format!("--field-selector metadata.name={name}"))
        .await?;
    tools.kubectl(&delete).await?;
    let again = format!("annotate pod {name} --namespace {NAMESPACE} trivet.dev/allow-delete-");
    tools.kubectl(&again).await.map(drop)
}

/// The token of w1's proxy writes no report of w2, and a token that no kubelet has mounted writes none at all.
async fn a_report_is_that_of_its_own_node(installation: &Installation) -> Result<()> {
    let host = installation
        .workers()
        .into_iter()
        .find(|host| host.name().to_string() == "w1");
    let host = host.context("there is no w1")?;
    let pid = host.pid(PROXY)?.context("w1 has no proxy")?;
    let file = format!("/proc/{pid}/root/var/run/secrets/kubernetes.io/serviceaccount/token");
    let of_w1 = fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
    let unbound = format!("create token trivet-proxy --namespace {NAMESPACE}");
    let unbound = installation.tools().kubectl(&unbound).await?;
    let patch = async |token: &str, node: &str| {
        let reports = Api::<ProxyReport>::all(installation.kubernetes_with("cp1", token).await?);
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let same = Patch::Merge(json!({ "role": "Serving" }));
        let patched = reports.patch(&name(POOL, node), &params, &same).await;
        Ok::<_, anyhow::Error>(patched.err().map(|error| error.to_string()))
    };
    let refused = patch(&of_w1, "w1").await?;
    ensure!(refused.is_none(), "w1's own report: {refused:?}");
    for (token, node, words) in [
        (of_w1.as_str(), "w2", "only the report of its own node"),
        (unbound.trim(), "w1", "bound to no node"),
    ] {
        let refused = patch(token, node).await?;
        let refused = refused.with_context(|| format!("the report of {node} is not refused"))?;
        named("a report", &refused, words)?;
    }
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
    for (command, words) in [
        (
            format!("delete daemonset trivet-default --namespace {NAMESPACE}"),
            "whose retirement has begun",
        ),
        (
            format!("delete configmap trivet-default --namespace {NAMESPACE}"),
            "that it has retired",
        ),
        (
            format!("label pods --selector trivet.dev/pool --namespace {NAMESPACE} example.com/a=b"),
            "only the annotation trivet.dev/standby",
        ),
    ] {
        let refusal = tools
            .kubectl(&format!("{command} --as={OPERATOR} --dry-run=server"))
            .await;
        let refusal = refusal
            .err()
            .with_context(|| format!("`{command}` is not refused"))?;
        named(&command, &format!("{refusal:#}"), words)?;
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
