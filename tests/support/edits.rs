//! Random edits of the pool while clients of two nodes connect: checks the fate of each edit, and that no edit costs a
//! connection.

mod draft;
mod edit;
mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client as Kubernetes};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, ApiserverPoolStatus};
use trivet_crds::wire::Document;

use self::edit::{Change, Edit, Fate, Master};
pub use self::random::by_ipv6;
use self::random::edits;
use crate::attempts::{self, LOOPBACKS};
use crate::documents::Documents;
use crate::installation::{Installation, POOL};
use crate::pods::assert_untouched;
use crate::proxies::{Metrics, first};
use crate::say::say;

/// The environment variable with the seed of the edits, to repeat a run.
const SEED: &str = "TRIVET_SEED";

/// New connections a second from each of two nodes.
const RATE: u32 = 50;

/// How long the operator and all proxies may take for an edit. Not a promise, only the limit of this test.
const SETTLED: Duration = Duration::from_secs(30);

/// The label by which discovery finds masters.
const LABEL: &str = "node-role.kubernetes.io/control-plane";

/// The pool that wants another pool's port.
const RIVAL: &str = "rival";

/// Each of these fates must occur in a run; otherwise the run has not tested it.
const FATES: [&str; 5] = [
    "Accepted",
    "Invalid",
    "ListenerConflict",
    "NoHealthyMember",
    "ScopeWouldShrink",
];

/// Makes `count` random edits, each as soon as the one before is settled, and fails if they cost a connection.
pub async fn cost_no_connection(count: usize) -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let seed = seed()?;
    say(format!(
        "{count} edits from the seed {seed}: {SEED}={seed} makes them again"
    ));
    let masters = installation.cluster().masters();
    let masters = masters.iter().map(|master| Master {
        name: master.name().to_string(),
        addresses: [master.ipv4().into(), master.ipv6().into()],
    });
    let workers = installation.workers();
    let worker = workers.first().context("there is no worker")?.ipv4();
    let edits = edits(seed, count, &masters.collect::<Vec<_>>(), worker.into());

    let mut editor = Editor::new(&installation).await?;
    let first = editor.documents.until(SETTLED, |_| true).await?.document;
    let before = installation.proxies("cp1").await?;
    let client = installation.client()?;
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, to)| attempts::start(worker, &client, to, RATE))
        .collect();
    let begun = Instant::now();
    let outcome = editor.make_all(&edits).await;
    let took = begun.elapsed();
    // Also after a failure, because the next scenario needs the pool and the labels.
    let restored = editor.restore(&first).await;
    let mut records = Vec::new();
    for (worker, attempts) in workers.iter().zip(attempts) {
        records.push((worker.name().to_string(), attempts.finish().await?));
    }

    say(format!(
        "{} edits in {:.0} s: {:?}; the slowest was on every node after {:.2} s ({})",
        editor.made,
        took.as_secs_f32(),
        editor.fates,
        editor.slowest.0.as_secs_f32(),
        editor.slowest.1,
    ));
    for (worker, record) in &records {
        say(format!(
            "{worker}: {} of {} connections failed, {} slower than 1 s",
            record.failed().len(),
            record.attempts().len(),
            record.slow().len()
        ));
    }
    outcome.with_context(|| format!("after {} edits of the seed {seed}", editor.made))?;
    for (worker, record) in &records {
        record.all_succeeded(worker)?;
    }
    restored?;
    assert_untouched(&before, &installation.proxies("cp1").await?)?;
    for fate in FATES {
        ensure!(
            editor.fates.contains_key(fate),
            "no edit was {fate}: {:?}",
            editor.fates
        );
    }
    installation.proxies_settled().await
}

/// The seed in the environment, or a random one.
#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(seed) => seed
            .parse()
            .with_context(|| format!("{SEED}={seed} is no number")),
        Err(_) => Ok(rand::random::<u32>().into()),
    }
}

/// Edits the pool, and checks the result.
struct Editor<'a> {
    installation: &'a Installation,
    pools: Api<ApiserverPool>,
    nodes: Api<Node>,
    documents: Documents,
    made: usize,
    /// How many edits were accepted, and how many were refused for which reason.
    fates: BTreeMap<String, usize>,
    /// The longest from an edit until every proxy was seen to follow it.
    slowest: (Duration, String),
}

impl<'a> Editor<'a> {
    async fn new(installation: &'a Installation) -> Result<Self> {
        let client: Kubernetes = installation.kubernetes("cp1").await?;
        Ok(Self {
            installation,
            pools: Api::all(client.clone()),
            nodes: Api::all(client.clone()),
            documents: Documents::watch(client),
            made: 0,
            fates: BTreeMap::new(),
            slowest: (Duration::ZERO, "none".to_owned()),
        })
    }

    async fn make_all(&mut self, edits: &[Edit]) -> Result<()> {
        for edit in edits {
            let begun = Instant::now();
            let fate = self.make(edit).await.with_context(|| format!("{edit:?}"))?;
            self.usable_everywhere()
                .await
                .with_context(|| format!("after {edit:?}, which was {fate}"))?;
            self.made += 1;
            self.slowest = self.slowest.clone().max((begun.elapsed(), edit.what.clone()));
            *self.fates.entry(fate).or_default() += 1;
        }
        Ok(())
    }

    /// Makes an edit, and waits until it is judged; returns how, in a word.
    async fn make(&self, edit: &Edit) -> Result<String> {
        match &edit.change {
            Change::Pool(patch) => self.patch(patch, &edit.fate).await,
            Change::Label { node, present } => {
                self.label(node, *present).await?;
                Ok("Labelled".to_owned())
            }
            Change::Rival(port) => self.rival(*port, &edit.fate).await,
        }
    }

    async fn patch(&self, patch: &Value, fate: &Fate) -> Result<String> {
        let patched = self
            .pools
            .patch(POOL, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match (patched, fate) {
            (Err(kube::Error::Api(status)), Fate::Invalid) if status.is_invalid() => Ok("Invalid".to_owned()),
            (Err(error), _) => Err(error).context("the API server does not take it"),
            (Ok(_), Fate::Invalid) => bail!("the API server takes it, but must refuse it"),
            (Ok(_), Fate::Elsewhere) => Ok("Annotated".to_owned()),
            (Ok(pool), Fate::Judged | Fate::Refused(_)) => {
                self.verdict(POOL, pool.metadata.generation, fate).await
            }
        }
    }

    /// Waits until the operator has judged this generation of a pool; fails if it must be refused and is not.
    async fn verdict(&self, pool: &str, generation: Option<i64>, fate: &Fate) -> Result<String> {
        let judged = move |pool: Option<&ApiserverPool>| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                status.observed_generation >= generation
                    && accepted(status).is_some_and(|accepted| accepted.observed_generation >= generation)
            })
        };
        let pool = timeout(SETTLED, await_condition(self.pools.clone(), pool, judged))
            .await
            .context("the operator does not judge it")??;
        let status = pool.and_then(|pool| pool.status).context("the pool is gone")?;
        let accepted = accepted(&status).context("no condition Accepted")?;
        if accepted.status == "True" {
            ensure!(
                !matches!(fate, Fate::Refused(_)),
                "it is obeyed, but must be refused"
            );
            return Ok("Accepted".to_owned());
        }
        let reason = accepted.reason.clone();
        if let Fate::Refused(reasons) = fate {
            ensure!(
                reasons.contains(&reason.as_str()),
                "it is refused for {reason}: {}",
                accepted.message
            );
        }
        Ok(reason)
    }

    async fn label(&self, node: &str, present: bool) -> Result<()> {
        let value = present.then_some("");
        let patch = json!({ "metadata": { "labels": { LABEL: value } } });
        self.nodes
            .patch(node, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .context("failed to label a node")
    }

    async fn rival(&self, port: Option<u16>, fate: &Fate) -> Result<String> {
        let Some(port) = port else {
            self.pools.delete(RIVAL, &DeleteParams::default()).await?;
            return Ok("Deleted".to_owned());
        };
        let spec: ApiserverPoolSpec =
            serde_json::from_value(json!({ "listeners": [{ "name": "apiserver", "port": port }] }))?;
        let pool = ApiserverPool::new(RIVAL, spec);
        let made = self.pools.create(&PostParams::default(), &pool).await?;
        self.verdict(RIVAL, made.metadata.generation, fate).await
    }

    /// Waits until every node's proxy follows the newest document; fails if one of them then has no usable member.
    async fn usable_everywhere(&mut self) -> Result<()> {
        let pool = self.pools.get(POOL).await?;
        let revision = pool.status.and_then(|status| status.config_revision);
        let revision = revision.context("the pool has no revision")?.try_into()?;
        let in_step = move |metrics: &Metrics| metrics.revision() >= Some(revision);
        let hosts = self.installation.hosts();
        let looks = hosts.iter().map(|host| first(host, SETTLED, in_step));
        for (host, (_, metrics)) in hosts.iter().zip(try_join_all(looks).await?) {
            let states = metrics.states();
            // A Draining member counts as usable, because the others may not have been probed yet.
            ensure!(
                states.values().any(|state| state == "Up"),
                "{}'s proxy has no usable member: {states:?}",
                host.name()
            );
        }
        Ok(())
    }

    /// Restores the pool's spec, its members, and the nodes' labels.
    async fn restore(&mut self, first: &Document) -> Result<()> {
        for master in self.installation.masters() {
            self.label(&master, true).await?;
        }
        if self.pools.get_opt(RIVAL).await?.is_some() {
            self.rival(None, &Fate::Elsewhere).await?;
        }
        self.installation.reset_pool().await?;
        self.documents
            .until(SETTLED, |document| document.same_content(first))
            .await
            .context("the pool does not end as it began")?;
        self.installation.pool_ready().await
    }
}

fn accepted(status: &ApiserverPoolStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == "Accepted")
}
