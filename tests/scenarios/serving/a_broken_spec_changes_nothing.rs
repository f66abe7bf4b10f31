//! What breaks a rule is refused by the API server with the field and the way out; what breaks nothing but would cut
//! everyone off is refused by the operator, and the last good configuration stays. What the API server refuses the operator
//! is shown in the API server's words.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use trivet_instruments::eventually;
use trivet_tests::attempts::{LOOPBACKS, once};
use trivet_tests::installation::{Installation, POOL, condition};
use trivet_tests::proxies::metrics;
use trivet_tests::say::say;

/// What the rules of the CRDs refuse, at least one case for each: those that the offline evaluator gets.
const REFUSED: &str = include_str!("../../../crds/tests/rules/refused.yaml");

/// A pass follows an edit at once.
const TOLD: Duration = Duration::from_secs(30);

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
