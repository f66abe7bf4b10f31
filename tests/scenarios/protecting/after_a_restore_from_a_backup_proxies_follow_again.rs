//! etcd is restored from a backup, and then the pool's objects alone. What comes back is older than what proxies follow; no
//! proxy goes back, and all follow the operator again within a minute.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use trivet_crds::wire::{Document, MemberState};
use trivet_instruments::{Attempts, eventually};
use trivet_testbed::Cluster;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, NAMESPACE, POOL};
use trivet_tests::pods::assert_untouched;
use trivet_tests::proxies::all_follow;
use trivet_tests::say::say;

/// New connections a second from each worker.
const RATE: u32 = 20;

/// docs/testbed.md, O17.
const FOLLOWS: Duration = Duration::from_secs(60);

/// From an edit to every proxy. The operator's watches must work for that, and no look every half minute is so quick.
const IN_STEP: Duration = Duration::from_secs(10);

/// docs/testbed.md, F14.
const USABLE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_etcd_or_of_the_pools_objects_leaves_no_proxy_behind() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let proxies = installation.proxies("cp1").await?;
    let dump = Dump::take(&installation).await?;
    installation.disturb(Cluster::backup_etcd).await?;
    installation.masters_ready().await?;
    let clients = start(&installation)?;

    let drain = |names: &[&str]| {
        let draining = names.iter();
        let draining = draining.map(|name| json!({ "name": name, "state": "Draining" }));
        json!({ "members": draining.collect::<Vec<_>>() })
    };
    edit(&installation, drain(&["cp3"])).await?;
    let reached = edit(&installation, drain(&["cp2", "cp3"])).await?;

    let begun = Instant::now();
    installation.disturb(Cluster::restore_etcd).await?;
    let ready = Instant::now();
    follow_again(&installation, reached, ready, "etcd was restored").await?;
    let after = json!({ "connection": { "hedgeDelayMilliseconds": 300 } });
    let reached = edit(&installation, after).await?;

    let restored = Instant::now();
    dump.restore(&installation).await?;
    follow_again(
        &installation,
        reached,
        restored,
        "the pool's objects were restored",
    )
    .await?;

    installation.nodes_ready().await?;
    installation.pool_ready().await?;
    sleep_until(ready + USABLE * 2).await;
    for (worker, attempts) in clients {
        let record = attempts.finish().await?;
        let (before, afterwards) = (record.until(begun), record.since(ready + USABLE));
        say(format!(
            "{worker}: of {} connections before and {} after the restore {} and {} got no answer",
            before.attempts().len(),
            afterwards.attempts().len(),
            before.unanswered().len(),
            afterwards.unanswered().len(),
        ));
        for part in [before, afterwards] {
            if let Some(unanswered) = part.unanswered().first() {
                bail!("{worker}: {unanswered}");
            }
            ensure!(!part.attempts().is_empty(), "{worker} made no attempt");
        }
    }
    assert_untouched(&proxies, &installation.proxies("cp1").await?)
}

fn start(installation: &Installation) -> Result<Vec<(String, Attempts)>> {
    let client = installation.client()?;
    let workers = installation.workers().into_iter().zip(LOOPBACKS);
    let started = workers.map(|(worker, to)| {
        let attempts = attempts::start(&worker, &client, to, RATE);
        (worker.name().to_string(), attempts)
    });
    Ok(started.collect())
}

/// Edits the pool, waits until every proxy follows, and returns the revision.
async fn edit(installation: &Installation, spec: Value) -> Result<u64> {
    let before = installation.config_revision().await?;
    let begun = Instant::now();
    installation.edit_pool(spec).await?;
    let revision = eventually(IN_STEP, "the edit in the pool's status", async || {
        let revision = installation.config_revision().await?;
        ensure!(revision > before, "it is still {revision}");
        Ok(revision)
    })
    .await?;
    all_follow(
        &installation.hosts(),
        revision,
        IN_STEP.saturating_sub(begun.elapsed()),
    )
    .await?;
    Ok(revision)
}

/// Waits until every proxy follows a document with what the backup asks for, whose revision is above `reached`.
async fn follow_again(installation: &Installation, reached: u64, since: Instant, what: &str) -> Result<()> {
    let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
    let is_next = |document: &Document| document.revision > reached && is_of_backup(document);
    let next = documents.until(FOLLOWS, is_next).await.context(what.to_owned())?;
    let revision = next.document.revision;
    all_follow(&installation.hosts(), revision, FOLLOWS).await?;
    let took = since.elapsed();
    say(format!(
        "{what}: every proxy followed after {:.1} s; from {reached} to {revision}",
        took.as_secs_f32()
    ));
    ensure!(took <= FOLLOWS, "{what}: {took:?}");
    eventually(IN_STEP, "the pool's status", async || {
        let told = installation.config_revision().await?;
        ensure!(told >= revision, "it tells {told}");
        Ok(())
    })
    .await
}

/// Whether a document asks what the pool asked for when the backup was made.
fn is_of_backup(document: &Document) -> bool {
    let mut members = document.members.iter();
    members.all(|member| member.state == MemberState::Active)
        && document.connection.hedge_delay_milliseconds == 250
}

/// What a tool for backups keeps of a pool: all of its objects but their identity.
struct Dump {
    /// The reports and the document, and the pool at the end.
    objects: Vec<Value>,
}

impl Dump {
    async fn take(installation: &Installation) -> Result<Self> {
        let mut objects = Vec::new();
        for what in [
            "proxyreports",
            "configmaps --selector trivet.dev/pool",
            "apiserverpools",
        ] {
            let list = format!("get {what} --namespace {NAMESPACE} --output json");
            let list: Value = serde_json::from_str(&installation.tools().kubectl(&list).await?)?;
            let items = list
                .get("items")
                .and_then(Value::as_array)
                .context("a list has items")?;
            objects.extend(items.iter().cloned().map(without_identity));
        }
        Ok(Self { objects })
    }

    /// Deletes the objects, and makes them anew.
    async fn restore(self, installation: &Installation) -> Result<()> {
        let tools = installation.tools();
        tools.kubectl("delete apiserverpools --all --wait").await?;
        let documents = "delete configmaps --selector trivet.dev/pool --wait";
        tools
            .kubectl(&format!("{documents} --namespace {NAMESPACE}"))
            .await?;
        tools.kubectl("delete proxyreports --all --wait").await?;
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": self.objects });
        tools.apply_at_the_server(&list.to_string()).await?;
        let pool = self.objects.last().context("the pool is the last object")?;
        let status = Patch::Merge(json!({ "status": pool.get("status") }));
        let pools = installation.pools("cp1").await?;
        pools.patch_status(POOL, &PatchParams::default(), &status).await?;
        Ok(())
    }
}

/// An object as another cluster would get it.
fn without_identity(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
        ] {
            metadata.remove(field);
        }
    }
    object
}
