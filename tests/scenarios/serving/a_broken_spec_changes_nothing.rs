//! What breaks a rule is refused by the API server with the field and the way out; what breaks nothing but would cut
//! everyone off is refused by the operator, and the last good configuration stays. What the API server refuses the operator
//! is shown in the API server's words.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_crds::data_plane_name;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::wire::KEY;
use trivet_instruments::eventually;
use trivet_tests::attempts::{LOOPBACKS, once};
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::proxies::metrics;
use trivet_tests::say::say;

/// What the rules of the CRDs refuse, at least one case for each: those that the offline evaluator gets.
const REFUSED: &str = include_str!("../../../crds/tests/rules/refused.yaml");

/// A pass follows an edit at once.
const TOLD: Duration = Duration::from_secs(30);

/// From an edit to the operator's verdict, or to the document.
const OBEYED: Duration = Duration::from_secs(10);

/// The API server takes a changed CRD within seconds.
const SERVED: Duration = Duration::from_secs(15);

/// A pool with a policy of discovery that no release knows, as a later one may.
const LATER: &str = "later";
const UNKNOWN_POLICY: &str = "Guess";

/// The definition of pools.
const CRD: &str = "apiserverpools.trivet.dev";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_a_broken_spec_and_names_the_field_and_the_way_out() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let tools = installation.tools();
    let cases: Vec<Value> = serde_saphyr::from_str(REFUSED)?;
    for case in cases {
        let mut object = case["fields"].clone();
        object["apiVersion"] = "trivet.dev/v1alpha1".into();
        object["kind"] = case["kind"].clone();
        object["metadata"] = json!({ "name": case["name"] });
        let says = case["says"].as_str().context("a case says nothing")?;
        let refusal = tools.refusal(&object.to_string()).await?;
        ensure!(
            refusal.contains(says),
            "{object} is refused in other words: {refusal}"
        );
    }
    say("every rule of the CRDs refuses what it names, in its own words");
    // What types and bounds say needs no rule of ours.
    for (spec, parts) in [
        (
            json!({ "listeners": [{ "name": "apiserver", "port": 443 }] }),
            [
                "spec.listeners[0].port",
                "should be greater than or equal to 1024",
            ],
        ),
        (
            json!({ "discovery": { "policy": "Guess" } }),
            ["spec.discovery.policy", "supported values"],
        ),
        (
            member(&["127.0.0.1"]),
            ["spec.members[0].addresses", "must be an IP address (not loopback"],
        ),
    ] {
        refused(tools.refusal(&pool("refused", &spec)).await?, &spec, &parts)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_would_leave_no_healthy_member_keeps_the_last_good_configuration() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let revision = installation.config_revision().await?;
    let disabled = ["cp1", "cp2", "cp3"].map(|name| json!({ "name": name, "state": "Disabled" }));
    // An address of the testbed's network that no host has.
    for spec in [
        json!({ "discovery": { "policy": "None" }, "members": [{ "name": "nobody", "addresses": ["10.213.0.250"] }] }),
        json!({ "discovery": { "policy": "Nodes" }, "members": disabled }),
    ] {
        let before = edit(&installation, &spec).await?;
        let message = not_accepted(&installation, before).await?;
        say(format!("Accepted=False: {message}"));
        // Twice what any proxy is allowed to take.
        sleep(Duration::from_secs(4)).await;
        still_serves(&installation, revision).await?;
    }

    installation.reset_pool().await?;
    installation.pool_ready().await?;
    installation.proxies_settled().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_daemon_set_is_told_in_the_words_of_the_api_server() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let pools = installation.pools("cp1").await?;
    let patch = Patch::Merge(json!({ "spec": { "proxy": { "image": "example.com/other:1" } } }));
    pools.patch(POOL, &PatchParams::default(), &patch).await?;
    let words = "an image of the proxies must begin with";
    let told = eventually(TOLD, "the refusal", async || {
        let status = pools.get(POOL).await?.status.unwrap_or_default();
        let found = condition(&status, "ProxiesAvailable")?;
        ensure!(found.reason == "ApplyFailed", "{found:?}");
        Ok(found.message.clone())
    })
    .await?;
    say(format!("ProxiesAvailable=False: {told}"));
    ensure!(told.contains(words), "{told}");
    let events = Api::<Event>::namespaced(installation.kubernetes("cp1").await?, "default");
    eventually(TOLD, "an event", async || {
        let failed = ListParams::default().fields("reason=ApplyFailed");
        let events = events.list(&failed).await?;
        let mut notes = events.iter().filter_map(|event| event.message.as_ref());
        ensure!(notes.any(|note| note.contains(words)), "none");
        Ok(())
    })
    .await?;
    // It is in the namespace `default`, and kubectl finds it by the pool's UID.
    let described = installation.described_events(POOL).await?;
    ensure!(
        described.contains("ApplyFailed") && described.contains(words),
        "{described}"
    );
    installation.reset_pool().await?;
    installation.pool_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_the_operator_cannot_read_holds_up_no_other_and_goes_on_once_it_can() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    let outcome = match admit_unknown_policy(&installation, true).await {
        Ok(()) => pools_are_unreadable(&installation).await,
        failed => failed,
    };
    let pools = untyped_pools(&installation).await?;
    set_policy(&pools, POOL, Value::Null).await?;
    // It may not have been made.
    pools.delete(LATER, &DeleteParams::default()).await.ok();
    admit_unknown_policy(&installation, false).await?;
    installation.reset_pool().await?;
    installation.pool_ready().await?;
    installation.proxies_settled().await?;
    outcome
}

async fn pools_are_unreadable(installation: &Installation) -> Result<()> {
    let pools = untyped_pools(installation).await?;
    let spec = json!({
        "discovery": { "policy": UNKNOWN_POLICY }, "listeners": [{ "name": "apiserver", "port": 7543 }],
        "proxy": { "metrics": { "port": 7544 } },
    });
    let later: DynamicObject = serde_json::from_str(&pool(LATER, &spec))?;
    eventually(SERVED, "a pool of a later release", async || {
        pools.create(&PostParams::default(), &later).await?;
        Ok(())
    })
    .await?;
    let message = unreadable(&pools, LATER).await?;
    say(format!("Accepted=False: {message}"));
    for part in ["spec.discovery.policy", UNKNOWN_POLICY, "upgrade the operator"] {
        ensure!(message.contains(part), "{part} is not named: {message}");
    }

    // The other pool is obeyed as ever.
    let begun = Instant::now();
    // What the template of the proxies does not have, so no rollout changes the document later.
    let edited = json!({ "connection": { "hedgeDelayMilliseconds": 251 } });
    edit(installation, &edited).await?;
    let documents = documents(installation).await?;
    eventually(OBEYED, "the document", async || {
        let text = document(&documents).await?;
        ensure!(text.contains("\"hedgeDelayMilliseconds\": 251"), "{text}");
        Ok(())
    })
    .await?;
    say(format!("the other pool is obeyed after {:?}", begun.elapsed()));
    installation.proxies_settled().await?;
    let (revision, text) = (installation.config_revision().await?, document(&documents).await?);

    // Now the one that serves cannot be read.
    set_policy(&pools, POOL, UNKNOWN_POLICY.into()).await?;
    unreadable(&pools, POOL).await?;
    still_serves(installation, revision).await?;
    ensure!(document(&documents).await? == text, "its document has changed");
    set_policy(&pools, POOL, Value::Null).await?;
    installation.pool_ready().await?;
    ensure!(document(&documents).await? == text, "its document has changed");
    Ok(())
}

/// The pools as they come: this release cannot read all of them.
async fn untyped_pools(installation: &Installation) -> Result<Api<DynamicObject>> {
    let kind = ApiResource::erase::<ApiserverPool>(&());
    Ok(Api::all_with(installation.kubernetes("cp1").await?, &kind))
}

async fn set_policy(pools: &Api<DynamicObject>, name: &str, policy: Value) -> Result<()> {
    let patch = json!({ "spec": { "discovery": { "policy": policy } } });
    let patched = pools
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched
        .map(drop)
        .with_context(|| format!("failed to edit pool {name}"))
}

/// Waits until a pool says that it cannot be read; returns its message.
async fn unreadable(pools: &Api<DynamicObject>, name: &str) -> Result<String> {
    eventually(OBEYED, "Accepted=False", async || {
        let pool = pools.get(name).await?;
        let conditions = pool.data.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let accepted = conditions.find(|condition| condition["type"] == "Accepted");
        let accepted = accepted.context("nothing is said")?;
        ensure!(
            accepted["status"] == "False" && accepted["reason"] == "Unreadable",
            "{accepted}"
        );
        Ok(accepted["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Lets the schema of pools admit a policy that no release knows, or no longer.
async fn admit_unknown_policy(installation: &Installation, is_admitted: bool) -> Result<()> {
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let crds: Api<DynamicObject> = Api::all_with(installation.kubernetes("cp1").await?, &kind);
    let mut crd = crds.get(CRD).await?;
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/discovery/properties/policy/enum";
    let policies = crd.data.pointer_mut(path).and_then(Value::as_array_mut);
    let policies = policies.context("the CRD has no policies of discovery")?;
    policies.retain(|policy| policy != UNKNOWN_POLICY);
    if is_admitted {
        policies.push(UNKNOWN_POLICY.into());
    }
    crds.replace(CRD, &PostParams::default(), &crd).await?;
    Ok(())
}

async fn documents(installation: &Installation) -> Result<Api<ConfigMap>> {
    Ok(Api::namespaced(installation.kubernetes("cp1").await?, NAMESPACE))
}

async fn document(documents: &Api<ConfigMap>) -> Result<String> {
    let map = documents.get(&data_plane_name(POOL)).await?;
    let text = map.data.unwrap_or_default().remove(KEY);
    text.context("the ConfigMap has no document")
}

fn member(addresses: &[&str]) -> Value {
    json!({ "members": [{ "name": "a", "addresses": addresses }] })
}

fn pool(name: &str, spec: &Value) -> String {
    json!({ "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

fn refused(refusal: String, spec: &Value, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(
            refusal.contains(part),
            "{spec} is refused without {part:?}: {refusal}"
        );
    }
    Ok(())
}

/// Replaces what the spec says of members; returns the generation that must be judged.
async fn edit(installation: &Installation, spec: &Value) -> Result<i64> {
    let pools = installation.pools("cp1").await?;
    let patched = pools
        .patch(
            POOL,
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": spec })),
        )
        .await?;
    patched.metadata.generation.context("the pool has no generation")
}

/// Waits for the operator's verdict on a generation; returns its message.
async fn not_accepted(installation: &Installation, generation: i64) -> Result<String> {
    let pools = installation.pools("cp1").await?;
    eventually(TOLD, "Accepted=False", async || {
        let status = pools.get(POOL).await?.status.unwrap_or_default();
        let accepted = condition(&status, "Accepted")?;
        ensure!(
            accepted.status == "False" && accepted.observed_generation >= Some(generation),
            "{accepted:?}"
        );
        ensure!(
            !accepted.reason.is_empty() && !accepted.message.is_empty(),
            "no reason is given: {accepted:?}"
        );
        Ok(format!("{}: {}", accepted.reason, accepted.message))
    })
    .await
}

async fn still_serves(installation: &Installation, revision: u64) -> Result<()> {
    let client = installation.client()?;
    for host in installation.hosts() {
        let (name, metrics) = (host.name(), metrics(&host).await?);
        ensure!(
            metrics.revision() == Some(revision),
            "{name} went from revision {revision} to {:?}",
            metrics.revision()
        );
        for loopback in LOOPBACKS {
            let attempt = once(&host, &client, loopback).await?;
            ensure!(attempt.succeeded(), "{name}, {loopback}: {attempt}");
        }
    }
    Ok(())
}
