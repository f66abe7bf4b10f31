//! The pool of the scenarios: `default`, with an empty spec.

use anyhow::{Context, Result};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec};

use super::{FIRST_MASTER, Installation};
use crate::eventually::eventually;

/// The pool's name, as in the documentation.
pub const POOL: &str = "default";

impl Installation {
    /// The pools, through a master that is not at fault.
    pub async fn pools(&self, master: &str) -> Result<Api<ApiserverPool>> {
        Ok(Api::all(self.kubernetes(master).await?))
    }

    /// Gives the pool its empty spec back, whatever it was edited to.
    pub async fn reset_pool(&self) -> Result<()> {
        let pools = self.pools(FIRST_MASTER).await?;
        let replace = async || {
            let found = pools.get_opt(POOL).await?;
            let mut pool = ApiserverPool::new(POOL, ApiserverPoolSpec::default());
            let Some(found) = found else {
                return Ok(pools.create(&PostParams::default(), &pool).await.map(drop)?);
            };
            pool.metadata = ObjectMeta {
                resource_version: found.resource_version(),
                ..pool.metadata
            };
            Ok(pools
                .replace(POOL, &PostParams::default(), &pool)
                .await
                .map(drop)?)
        };
        // A CRD that was just made is not served at once, and the operator writes status meanwhile.
        eventually(std::time::Duration::from_secs(30), "an empty pool", replace).await
    }

    /// Waits for the pool as users are told to.
    pub async fn pool_ready(&self) -> Result<()> {
        self.tools()
            .kubectl(&format!("wait --for=condition=Ready asp/{POOL} --timeout=60s"))
            .await?;
        Ok(())
    }

    /// The revision that the operator says it wrote last.
    pub async fn config_revision(&self) -> Result<u64> {
        let pool = self
            .pools(FIRST_MASTER)
            .await?
            .get(POOL)
            .await
            .context("failed to read the pool")?;
        let revision = pool.status.and_then(|status| status.config_revision);
        let revision = revision.context("the pool's status has no configRevision")?;
        u64::try_from(revision).context("the pool's configRevision is negative")
    }
}
