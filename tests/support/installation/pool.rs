//! The pool of the scenarios: `default`, with an empty spec.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, ApiserverPoolStatus};

use super::{FIRST_MASTER, Installation};
use crate::say::say;
use trivet_instruments::eventually;

/// A pool that gets Ready later than this says why it was not.
const WORTH_A_WORD: Duration = Duration::from_secs(5);

/// The pool's name, as in the documentation.
pub const POOL: &str = "default";

impl Installation {
    /// The pools, through a master that is not at fault.
    pub async fn pools(&self, master: &str) -> Result<Api<ApiserverPool>> {
        Ok(Api::all(self.kubernetes(master).await?))
    }

    /// Resets the pool to an empty spec. Returns whether it had another spec or did not exist.
    pub async fn reset_pool(&self) -> Result<bool> {
        self.reset_pool_to(ApiserverPoolSpec::default()).await
    }

    /// Resets the pool to this spec. Returns whether it had another one or did not exist.
    pub(super) async fn reset_pool_to(&self, spec: ApiserverPoolSpec) -> Result<bool> {
        let pools = self.pools(FIRST_MASTER).await?;
        let reset = async || {
            let mut pool = ApiserverPool::new(POOL, spec.clone());
            match pools.get_opt(POOL).await? {
                None => drop(pools.create(&PostParams::default(), &pool).await?),
                Some(found) if is_plain(&found, &spec)? => return Ok(false),
                Some(found) => {
                    pool.metadata.resource_version = found.resource_version();
                    drop(pools.replace(POOL, &PostParams::default(), &pool).await?);
                }
            }
            Ok(true)
        };
        // A CRD that was just made is not served at once, and the operator writes status meanwhile.
        eventually(Duration::from_secs(30), "the pool reset", reset).await
    }

    /// Waits until the pool is Ready by what the operator says of its present spec.
    pub async fn pool_ready(&self) -> Result<()> {
        let pools = self.pools(FIRST_MASTER).await?;
        let begun = Instant::now();
        let mut why = None;
        // A rollout that an edit has started before takes two minutes with the soak on its first node, and longer on a busy
        // machine.
        eventually(Duration::from_secs(240), "the pool Ready", async || {
            let pool = pools.get(POOL).await?;
            let generation = pool.metadata.generation;
            let status = pool.status.unwrap_or_default();
            let ready = condition(&status, "Ready")?;
            let is_ready = ready.status == "True" && ready.observed_generation >= generation;
            if !is_ready {
                why = Some(ready.message.clone());
            }
            ensure!(is_ready, "{ready:?}");
            Ok(())
        })
        .await?;
        let (waited, why) = (begun.elapsed(), why.unwrap_or_default());
        if waited > WORTH_A_WORD {
            say(format!(
                "the pool was Ready after {:.0} s: {why}",
                waited.as_secs_f32()
            ));
        }
        Ok(())
    }

    /// Waits as [`Self::pool_ready`] does, while a rollout may use all nodes at once: they differ from each other in nothing
    /// that a scenario looks at. The pool's spec is the same before and afterwards.
    pub(super) async fn rolled_out_at_once(&self) -> Result<()> {
        let usual = ApiserverPoolSpec::default().rollout.max_parallel;
        self.edit_pool(json!({ "rollout": { "maxParallel": "100%" } }))
            .await?;
        self.pool_ready().await?;
        self.edit_pool(json!({ "rollout": { "maxParallel": usual } }))
            .await?;
        self.pool_ready().await
    }

    /// Changes fields of the pool's spec.
    pub async fn edit_pool(&self, spec: Value) -> Result<()> {
        let pools = self.pools(FIRST_MASTER).await?;
        let patch = Patch::Merge(json!({ "spec": spec }));
        pools.patch(POOL, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// What the operator says of the pool.
    pub async fn pool_status(&self) -> Result<ApiserverPoolStatus> {
        let pool = self.pools(FIRST_MASTER).await?.get(POOL).await?;
        pool.status.context("the pool has no status")
    }

    /// The revision that the operator says it wrote last.
    pub async fn config_revision(&self) -> Result<u64> {
        let pool = self.pools(FIRST_MASTER).await?.get(POOL).await;
        revision_of(&pool.context("failed to read the pool")?)
    }
}

/// A condition of a pool.
pub fn condition<'a>(status: &'a ApiserverPoolStatus, type_: &str) -> Result<&'a Condition> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.type_ == type_);
    found.with_context(|| format!("there is no condition {type_}"))
}

/// Whether nothing of a pool differs from one that was just made of this spec.
fn is_plain(pool: &ApiserverPool, spec: &ApiserverPoolSpec) -> Result<bool> {
    let metadata = &pool.metadata;
    Ok(serde_json::to_value(&pool.spec)? == serde_json::to_value(spec)?
        && metadata.annotations.is_none()
        && metadata.labels.is_none()
        && metadata.deletion_timestamp.is_none())
}

/// The revision that the operator says it wrote last.
pub(super) fn revision_of(pool: &ApiserverPool) -> Result<u64> {
    let revision = pool.status.as_ref().and_then(|status| status.config_revision);
    let revision = revision.context("the pool's status has no configRevision")?;
    u64::try_from(revision).context("the pool's configRevision is negative")
}
