//! Mistakes that an administrator makes, one after the other, while clients are at work: each is made, told by the operator in
//! its own words, judged by what the proxies do, and undone. Each prints its number.

mod members;
mod rights;
mod sources;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::wire::Document;
use trivet_instruments::eventually;

use crate::documents::{Documents, Published};
use crate::installation::{Installation, POOL, condition};
use crate::rights_revoked;

/// From a mistake to the operator's words about it, beside the delay of removals.
const TOLD: Duration = Duration::from_secs(15);

/// From an edit to the ConfigMap, on a busy machine.
const OBEYED: Duration = Duration::from_secs(10);

/// The shortest that a pool may have: within it nothing is said of a member that is gone from its source.
const REMOVAL_DELAY: u32 = 5;

/// The label by which discovery finds masters.
const LABEL: &str = "node-role.kubernetes.io/control-plane";

/// A pool, and what is known of it before the mistakes.
#[derive(Debug)]
pub struct Mistakes<'a> {
    installation: &'a Installation,
    pools: Api<ApiserverPool>,
    documents: Documents,
    /// How many revisions the edits that were obeyed explain, the first one included.
    explained: usize,
}

impl<'a> Mistakes<'a> {
    /// Makes none yet.
    pub async fn begin(installation: &'a Installation) -> Result<Self> {
        let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
        documents.until(TOLD, |_| true).await?;
        Ok(Self {
            installation,
            pools: installation.pools("cp1").await?,
            documents,
            explained: 1,
        })
    }

    /// Those that need no operator.
    pub async fn without_an_operator(&mut self) -> Result<()> {
        self.wrong_authorities().await
    }

    /// All others, one after the other.
    pub async fn all(&mut self) -> Result<()> {
        self.obeyed(
            json!({
                "discovery": { "removalDelaySeconds": REMOVAL_DELAY },
                "connection": { "hedgeDelayMilliseconds": 300 },
            }),
            |document| document.connection.hedge_delay_milliseconds == 300,
        )
        .await?;
        self.labels_wiped().await?;
        self.selector_without_nodes().await?;
        self.wrong_port_of_discovery().await?;
        self.wrong_members().await?;
        self.wrong_server_name().await?;
        self.another_pool_on_the_port().await?;
        self.rights_revoked().await?;
        self.explains_every_revision()
    }

    /// Undoes all of them, also those that were not made.
    pub async fn undo(&self) -> Result<()> {
        rights_revoked::OF_OPERATOR.give_back(self.installation).await?;
        for master in self.installation.masters() {
            self.label(&master, true).await?;
        }
        self.remove_other_pool().await?;
        self.installation.reset_pool().await?;
        self.installation.pool_ready().await
    }

    /// Edits the pool. Returns the generation that must be judged.
    async fn edit(&self, spec: Value) -> Result<i64> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let pool = self.pools.patch(POOL, &PatchParams::default(), &patch).await?;
        pool.metadata.generation.context("the pool has no generation")
    }

    /// Edits the pool with what is no mistake, and waits for the next document. Returns how long that took.
    async fn obeyed(&mut self, spec: Value, wanted: impl Fn(&Document) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        self.edit(spec).await?;
        self.documents.until(OBEYED, wanted).await?;
        self.explained += 1;
        Ok(begun.elapsed())
    }

    /// Waits for status and reason of Accepted for this generation of the pool, or a later one, and for these words in its
    /// message. Returns how long that took.
    async fn told(&self, generation: i64, expected: (&str, &str), words: &[&str]) -> Result<Duration> {
        self.told_of(POOL, generation, expected, words).await
    }

    async fn told_of(
        &self,
        pool: &str,
        generation: i64,
        expected: (&str, &str),
        words: &[&str],
    ) -> Result<Duration> {
        let begun = Instant::now();
        let what = format!("Accepted={} ({})", expected.0, expected.1);
        eventually(TOLD, &what, async || {
            let status = self.pools.get(pool).await?.status.unwrap_or_default();
            let accepted = condition(&status, "Accepted")?;
            let found = (accepted.status.as_str(), accepted.reason.as_str());
            ensure!(
                accepted.observed_generation >= Some(generation) && found == expected,
                "{accepted:?}"
            );
            for word in words {
                ensure!(accepted.message.contains(word), "{word:?}: {accepted:?}");
            }
            Ok(begun.elapsed())
        })
        .await
    }

    /// How often the operator that leads has refused something of the pool for this reason.
    async fn refusals(&self, reason: &str) -> Result<u64> {
        let leader = self.installation.leader().await?;
        let (_, metrics) = self.installation.ask_operator(&leader.pod, "/metrics").await?;
        let labels = format!("trivet_operator_refusals_total{{pool=\"{POOL}\",reason=\"{reason}\"}} ");
        let series = metrics.lines().find_map(|line| line.strip_prefix(&labels));
        Ok(series.map(str::parse).transpose()?.unwrap_or_default())
    }

    /// Fails unless the document in force is this one.
    async fn still(&mut self, before: &Published) -> Result<()> {
        let now = self.documents.until(TOLD, |_| true).await?;
        let (before, now) = (&before.document, &now.document);
        ensure!(
            now.revision == before.revision,
            "revision {} became {}: {:?} became {:?}",
            before.revision,
            now.revision,
            before.members,
            now.members
        );
        Ok(())
    }

    async fn in_force(&mut self) -> Result<Published> {
        self.documents.until(TOLD, |_| true).await
    }

    /// Fails unless each revision that was published is explained by an edit that was obeyed.
    fn explains_every_revision(&self) -> Result<()> {
        let (seen, explained) = (self.documents.revisions(), self.explained);
        ensure!(
            seen == explained,
            "{seen} revisions were published, and {explained} are explained"
        );
        Ok(())
    }

    async fn label(&self, node: &str, is_there: bool) -> Result<()> {
        let nodes = Api::<Node>::all(self.installation.kubernetes("cp1").await?);
        let value = is_there.then_some("");
        let patch = Patch::Merge(json!({ "metadata": { "labels": { LABEL: value } } }));
        let labelled = nodes.patch(node, &PatchParams::default(), &patch).await;
        labelled
            .map(drop)
            .with_context(|| format!("failed to label {node}"))
    }
}
