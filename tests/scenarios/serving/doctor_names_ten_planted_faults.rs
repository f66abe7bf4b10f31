//! `kubectl trivet` finds nothing wrong in a cluster that is in order, tells what an edit would do without writing anything, and
//! names each of eleven faults that are there at once with its place, with the rights that the chart gives to its users and no others.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::{self, ProxyReport};
use trivet_instruments::eventually;
use trivet_testbed::Fault;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, RELEASE, Server};
use trivet_tests::plugin::Plugin;
use trivet_tests::say::say;

/// The plugin as cargo has built it for this test.
const PLUGIN: &str = env!("CARGO_BIN_EXE_trivet-plugin");

/// Proxies and operator report a change within seconds.
const TOLD: Duration = Duration::from_secs(40);

/// Another pool that claims the port of the first one.
const RIVAL: &str = "rival";

/// A finding, its place, and words of its message: where the fault is, and what it is there.
type Named = (&'static str, &'static str, &'static [&'static str]);

/// What the faults show while proxies and operator run and have their rights.
const FIRST: [Named; 8] = [
    ("NoStandby", "pool default, 2 nodes", &["w1 (", "w2 ("]),
    ("PortConflict", "pool rival", &["ListenerConflict", CONFLICT]),
    ("MemberDown", "pool default, member nobody", &[" nodes: "]),
    (
        "MemberUnreached",
        "pool default, member cp3",
        // The only one: nodes are sorted by name, and all others come before it.
        &["it is not Up on w2 ("],
    ),
    (
        "KubeProxyBypasses",
        "ConfigMap kube-proxy in kube-system",
        &["https://10.213.0.11:6443", "https://127.0.0.1:7443"],
    ),
    ("PodSecurity", "namespace trivet-system", &["baseline"]),
    (
        "PolicyMissing",
        "trivet-namespace",
        &["does not have the action Deny"],
    ),
    ("CrdOlder", "CRD proxyreports.trivet.dev", &["it lacks openFiles"]),
];

/// What it shows besides once they do not.
const THEN: [Named; 3] = [
    (
        "ProxyRights",
        "ClusterRole trivet-proxy",
        &["ServiceAccount trivet-proxy"],
    ),
    ("NotReporting", "pool default, 1 node", &["cp2 (no report)"]),
    (
        "OperatorAbsent",
        "Deployment trivet-operator in trivet-system",
        &["0 of 0 replicas"],
    ),
];

/// What the operator says of the second pool.
const CONFLICT: &str = "port 7443 is already used by pool default";

/// A change of an object of the chart, as `kubectl patch` makes it.
const PATCHES: [(&str, &str); 2] = [
    (
        "validatingadmissionpolicybinding trivet-namespace",
        r#"[{"op":"replace","path":"/spec/validationActions","value":["Audit"]}]"#,
    ),
    (
        "crd proxyreports.trivet.dev",
        r#"[{"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/properties/openFiles"}]"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_ten_planted_faults() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    // Nobody uses the proxies yet, so nobody needs a standby.
    installation
        .point_workers(&Server::Master("cp1".to_owned()))
        .await?;
    let plugin = Plugin::with_rights(&installation, PLUGIN).await?;
    let outcome = commands(&installation, &plugin).await;
    // Whatever the outcome is, and all of it although a part may fail.
    let undone = undo(&installation).await;
    let removed = plugin.remove().await;
    outcome?;
    undone?;
    removed?;
    installation.proxies_settled().await?;
    installation.pool_ready().await
}

async fn commands(installation: &Installation, plugin: &Plugin) -> Result<()> {
    nothing_is_wrong(plugin).await?;
    an_edit_is_planned_and_nothing_is_written(installation, plugin).await?;
    a_member_drains_and_comes_back(plugin).await?;
    let since = Timestamp::now();
    plant(installation).await?;
    named(plugin, &FIRST).await?;
    installation
        .told_by_event("ListenerConflict", CONFLICT, since)
        .await?;
    let events = installation.described_events(RIVAL).await?;
    ensure!(
        events.contains("ListenerConflict") && events.contains(CONFLICT),
        "{events}"
    );
    the_matrix_shows_the_partition(plugin).await?;
    plant_the_rest(installation).await?;
    let all: Vec<_> = FIRST.into_iter().chain(THEN).collect();
    let found = named(plugin, &all).await?;
    say(format!("doctor names all of {} faults: {found:?}", all.len()));
    a_report_has_all_that_may_be_read(plugin).await
}

/// Waits until doctor finds no error and no warning.
async fn nothing_is_wrong(plugin: &Plugin) -> Result<()> {
    eventually(TOLD, "a cluster in order", async || {
        let (code, found) = plugin.json("doctor").await?;
        ensure!(code == 0, "{found}");
        Ok(())
    })
    .await?;
    plugin.run("status").await?.with(0)?;
    Ok(())
}

async fn an_edit_is_planned_and_nothing_is_written(
    installation: &Installation,
    plugin: &Plugin,
) -> Result<()> {
    let pools = installation.pools("cp1").await?;
    let before = pools.get(POOL).await?;
    let edit = |name: &str, pool: &str, spec: Value| {
        let pool = json!({
            "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "metadata": { "name": pool }, "spec": spec,
        });
        plugin.write(name, &pool.to_string())
    };
    let drains = edit(
        "drains.json",
        POOL,
        json!({ "members": [{ "name": "cp2", "state": "Draining" }] }),
    )?;
    let planned = plugin
        .run(&format!("plan -f {}", drains.display()))
        .await?
        .with(0)?;
    ensure!(planned.stdout.contains("cp2   drains"), "{planned:?}");
    ensure!(!planned.stdout.contains("were not checked"), "{planned:?}");
    say(planned.stdout.trim());
    for (pool, spec, reason) in [
        (
            POOL,
            json!({ "proxy": { "nodeSelector": { "no": "node" } } }),
            "ScopeWouldShrink",
        ),
        (
            POOL,
            json!({ "healthCheck": { "failureThreshold": 99 } }),
            "Invalid",
        ),
        (
            POOL,
            json!({ "healthCheck": { "failureTreshold": 3 } }),
            "unknown field",
        ),
        // One that would be created.
        (
            RIVAL,
            json!({ "proxy": { "metrics": { "port": 7544 } } }),
            "ListenerConflict",
        ),
    ] {
        let file = edit("refused.json", pool, spec)?;
        let refused = plugin
            .run(&format!("plan -f {}", file.display()))
            .await?
            .with(2)?;
        ensure!(refused.stdout.contains(reason), "{reason} is not in {refused:?}");
    }
    let after = pools.get(POOL).await?;
    ensure!(
        before.metadata.generation == after.metadata.generation,
        "{after:?}"
    );
    Ok(())
}

/// The only writes of the plugin.
async fn a_member_drains_and_comes_back(plugin: &Plugin) -> Result<()> {
    for command in ["drain cp2 --timeout 0s", "drain cp2 --undo"] {
        plugin.run(command).await?.with(0)?;
    }
    Ok(())
}

/// All faults that need the operator, or that the proxies must be able to report.
async fn plant(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let rival: ApiserverPool = serde_json::from_value(json!({
        "metadata": { "name": RIVAL }, "spec": { "proxy": { "metrics": { "port": 7544 } } },
    }))?;
    installation
        .pools("cp1")
        .await?
        .create(&PostParams::default(), &rival)
        .await?;
    installation
        .edit_pool(json!({ "members": [{ "name": "nobody", "addresses": ["10.213.0.250"] }] }))
        .await?;
    installation
        .disturb(|cluster| cluster.inject("w2", Fault::Sever(cluster.host("cp3")?.name())))
        .await?;
    let kubeconfig = "clusters:\n- name: default\n  cluster:\n    server: https://10.213.0.11:6443\n";
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        "data": { "kubeconfig.conf": kubeconfig },
    });
    tools.apply(&map.to_string()).await?;
    tools
        .kubectl(&format!(
            "label --overwrite namespace {NAMESPACE} pod-security.kubernetes.io/enforce=baseline"
        ))
        .await?;
    for (object, patch) in PATCHES {
        tools
            .kubectl(&format!("patch {object} --type=json --patch={patch}"))
            .await?;
    }
    installation.point_workers(&Server::Loopback).await
}

/// The faults after which proxies and operator say nothing new.
async fn plant_the_rest(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    tools
        .kubectl(&format!(
            "scale deployment trivet-operator --namespace {NAMESPACE} --replicas=0"
        ))
        .await?;
    tools.kubectl("delete clusterrolebinding trivet-proxy").await?;
    let reports = Api::<ProxyReport>::all(installation.kubernetes("cp1").await?);
    // A write that was under way may bring it back once.
    eventually(TOLD, "a report that stays away", async || {
        let name = report::name(POOL, "cp2");
        reports.delete(&name, &DeleteParams::default()).await.ok();
        let left = reports.list(&kube::api::ListParams::default()).await?;
        let is_there = left.items.iter().any(|report| report.name_any() == name);
        ensure!(!is_there, "it is there");
        Ok(())
    })
    .await
}

/// Waits until doctor names all of these, each with its place; it may read all that it looks at. Returns what it has found.
async fn named(plugin: &Plugin, wanted: &[Named]) -> Result<BTreeSet<String>> {
    eventually(TOLD, "all faults named", async || {
        let (code, diagnosis) = plugin.json("doctor").await?;
        let findings = diagnosis
            .get("findings")
            .and_then(Value::as_array)
            .context("no findings")?;
        let found: BTreeSet<_> = findings
            .iter()
            .map(|finding| format!("{}, {}", text(finding, "finding"), text(finding, "where")))
            .collect();
        let is_unread = |finding: &Value| text(finding, "finding") == "CannotRead";
        ensure!(!findings.iter().any(is_unread), "{diagnosis}");
        for named in wanted {
            let is_it = findings.iter().any(|finding| is_named(finding, named));
            ensure!(is_it, "{named:?} is not in {findings:?}");
        }
        ensure!(code == 2, "it ended with {code}");
        Ok(found)
    })
    .await
}

fn is_named(finding: &Value, (name, place, words): &Named) -> bool {
    let message = text(finding, "message");
    text(finding, "finding") == *name
        && text(finding, "where") == *place
        && words.iter().all(|word| message.contains(word))
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding.get(key).and_then(Value::as_str).unwrap_or_default()
}

async fn the_matrix_shows_the_partition(plugin: &Plugin) -> Result<()> {
    let (code, status) = plugin.json("status default").await?;
    ensure!(code == 2, "{status}");
    let nodes = status
        .pointer("/pools/0/nodes")
        .and_then(Value::as_array)
        .context("no nodes")?;
    let reaches = |node: &str| {
        let row = nodes
            .iter()
            .find(|row| row.get("node").and_then(Value::as_str) == Some(node))?;
        let mut members = row.get("members")?.as_array()?.iter();
        let member = members.find(|member| member.get("name").and_then(Value::as_str) == Some("cp3"))?;
        Some(member.get("health")?.as_str()? == "Up")
    };
    ensure!(reaches("w2") == Some(false), "{status}");
    ensure!(
        reaches("w1") == Some(true) && reaches("cp1") == Some(true),
        "{status}"
    );
    Ok(())
}

async fn a_report_has_all_that_may_be_read(plugin: &Plugin) -> Result<()> {
    let file = plugin.file("report.tar.gz");
    plugin
        .run(&format!("report --log-lines 20 --file {}", file.display()))
        .await?
        .with(0)?;
    let tar = |verb: &str, member: &[&str]| -> Result<String> {
        let output = Command::new("tar").arg(verb).arg(&file).args(member).output();
        let output = output.context("failed to run tar")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = tar("-tzf", &[])?;
    for name in [
        "apiserverpools.json",
        "proxyreports.json",
        "doctor.json",
        "logs/trivet-default-",
    ] {
        ensure!(listed.contains(name), "{name} is not in {listed}");
    }
    if let Some(unread) = listed.lines().find(|name| name.ends_with("unread.txt")) {
        bail!("something could not be read:\n{}", tar("-xzOf", &[unread])?);
    }
    Ok(())
}

/// Takes every fault back, as far as it was made.
async fn repair_release(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let listed = tools
        .helm(&format!(
            "list --namespace {NAMESPACE} --filter {RELEASE} --output json"
        ))
        .await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let revision = listed.pointer("/0/revision").and_then(Value::as_str);
    let revision = revision.with_context(|| format!("no release {RELEASE} in {listed}"))?;
    let rollback = format!(
        "rollback {RELEASE} {revision} --namespace {NAMESPACE} --force-conflicts --wait --timeout 90s"
    );
    tools.helm(&rollback).await.map(drop)
}

async fn undo(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let commands = [
        format!("label namespace {NAMESPACE} pod-security.kubernetes.io/enforce-"),
        "delete configmap kube-proxy --namespace kube-system --ignore-not-found".to_owned(),
        format!("delete apiserverpool {RIVAL} --ignore-not-found"),
    ];
    let done = try_join_all(commands.iter().map(|command| tools.kubectl(command))).await;
    // The faults of the chart's objects go as Helm repairs them: its release once more.
    let repaired = repair_release(installation).await;
    let healed = installation.disturb(|cluster| cluster.heal("w2")).await;
    let reset = installation.edit_pool(json!({ "members": null })).await;
    done?;
    repaired?;
    healed?;
    reset?;
    tools
        .kubectl(&format!(
            "rollout status deployment trivet-operator --namespace {NAMESPACE} --timeout=60s"
        ))
        .await
        .map(drop)
}
