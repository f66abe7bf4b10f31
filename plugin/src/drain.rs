//! Drains and retires members, and waits until it is safe to switch them off.
//!
//! The only writes of the plugin: the state of one entry of `spec.members`, against the resourceVersion that was read.

mod edit;
mod progress;
mod safety;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use trivet_crds::pool::{ApiserverPool, PoolMemberState};
use trivet_crds::report::ProxyReport;

use self::edit::{Change, with_state};
use self::progress::{Progress, progress};
use crate::access::{Cluster, MANAGER};
use crate::cli;
use crate::output::{self, Screen};
use crate::read::Reader;
use crate::{BadUsage, Outcome};

/// The pause between two looks: reports change within seconds.
const LOOK: Duration = Duration::from_secs(1);

/// Each edit is tried so often while others write the pool.
const TRIES: usize = 5;

/// What a command has done, for scripts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    pool: &'a str,
    member: &'a str,
    state: PoolMemberState,
    changed: bool,
    drained: bool,
    connections: u64,
    message: String,
}

/// One member of one pool that is drained or brought back.
struct Task<'a> {
    cluster: &'a Cluster,
    pool: String,
    member: &'a str,
}

/// Drains a member, or makes it Active again.
pub async fn run_drain(cluster: &Cluster, screen: &Screen, flags: cli::Drain) -> Result<Outcome> {
    let task = Task::find(cluster, flags.pool.as_deref(), &flags.member).await?;
    if flags.undo {
        let changed = task.set(PoolMemberState::Active).await?;
        let message = format!("{} is Active", task.member);
        return Task::done(
            *screen,
            flags.output,
            &task.told(PoolMemberState::Active, changed, None, message),
        );
    }
    let changed = task.set(PoolMemberState::Draining).await?;
    if flags.timeout.is_zero() {
        let message = format!(
            "{} drains; this command without --timeout 0s waits for it",
            task.member
        );
        return Task::done(
            *screen,
            flags.output,
            &task.told(PoolMemberState::Draining, changed, None, message),
        );
    }
    let drained = task.wait(flags.timeout, "drain").await?;
    let message = drained.message.clone();
    Task::done(
        *screen,
        flags.output,
        &task.told(PoolMemberState::Draining, changed, Some(&drained), message),
    )
}

/// Drains a member and disables it.
pub async fn run_retire(cluster: &Cluster, screen: &Screen, flags: cli::Retire) -> Result<Outcome> {
    let task = Task::find(cluster, flags.pool.as_deref(), &flags.member).await?;
    let (_, state) = task.state().await?;
    let mut changed = false;
    if state != PoolMemberState::Disabled {
        changed = task.set(PoolMemberState::Draining).await?;
        task.wait(flags.timeout, "retire").await?;
        changed |= task.set(PoolMemberState::Disabled).await?;
    }
    // Also for one that somebody else has disabled: a disabled member may still have connections.
    let drained = task.wait(flags.timeout, "retire").await?;
    let message = format!("{} is Disabled. {}", task.member, drained.message);
    Task::done(
        *screen,
        flags.output,
        &task.told(PoolMemberState::Disabled, changed, Some(&drained), message),
    )
}

impl<'a> Task<'a> {
    /// The task in the pool that is named, or in the only one.
    async fn find(cluster: &'a Cluster, pool: Option<&str>, member: &'a str) -> Result<Self> {
        // Their names only: another pool may be one that this release cannot read.
        let pools: Api<PartialObjectMeta<ApiserverPool>> = Api::all(cluster.reading());
        let all = pools
            .list(&ListParams::default())
            .await
            .context("failed to list the pools")?
            .items;
        let names: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
        let pool = match (pool, names.as_slice()) {
            (Some(pool), names) if names.iter().any(|name| name == pool) => pool.to_owned(),
            (None, [only]) => only.clone(),
            (_, []) => return Err(BadUsage("there is no ApiserverPool".to_owned()).into()),
            (Some(pool), names) => {
                return Err(BadUsage(format!(
                    "there is no pool {pool:?}; there are: {}",
                    names.join(", ")
                ))
                .into());
            }
            (None, names) => {
                return Err(
                    BadUsage(format!("name one of the pools by --pool: {}", names.join(", "))).into(),
                );
            }
        };
        Ok(Self {
            cluster,
            pool,
            member,
        })
    }

    /// The pool, and what its owner wants of the member now.
    async fn state(&self) -> Result<(ApiserverPool, PoolMemberState)> {
        let pools: Api<ApiserverPool> = Api::all(self.cluster.reading());
        let pool = pools.get(&self.pool).await;
        let pool = pool.with_context(|| format!("failed to read pool {}", self.pool))?;
        let state = edit::state(&pool, self.member)?;
        Ok((pool, state))
    }

    /// Writes the state. Returns whether that was a change.
    async fn set(&self, state: PoolMemberState) -> Result<bool> {
        let pools: Api<ApiserverPool> = Api::all(self.cluster.writing());
        for _ in 0..TRIES {
            let (pool, _) = self.state().await?;
            if state != PoolMemberState::Active {
                safety::check(&pool, self.member, &self.reports().await?)?;
            }
            let members = match with_state(&pool, self.member, state)? {
                Change::None => return Ok(false),
                Change::Members(members) => members,
            };
            let patch = Patch::Merge(serde_json::json!({
                "metadata": { "resourceVersion": pool.resource_version() },
                "spec": { "members": members },
            }));
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            match pools.patch(&self.pool, &params, &patch).await {
                Ok(_) => {
                    output::progress(&format!("{} of pool {} is {state:?}", self.member, self.pool));
                    return Ok(true);
                }
                // The operator writes the status, others the spec: the next look sees what they wrote.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("failed to write spec.members of pool {}", self.pool));
                }
            }
        }
        bail!(
            "pool {} changes too often to be written: {TRIES} tries met another write",
            self.pool
        )
    }

    /// All reports. One that cannot be read fails the command: what it would say may forbid the edit.
    async fn reports(&self) -> Result<Vec<ProxyReport>> {
        let reports: Api<ProxyReport> = Api::all(self.cluster.reading());
        let all = reports
            .list(&ListParams::default())
            .await
            .context("failed to list the reports")?;
        let mut of_pool = all.items;
        of_pool.retain(|report| report.content.pool_name == self.pool);
        Ok(of_pool)
    }

    /// Waits until no client of Trivet is connected to the member, and tells on stderr how far it is.
    async fn wait(&self, timeout: Duration, command: &str) -> Result<Progress> {
        let deadline = Instant::now() + timeout;
        let mut told = String::new();
        loop {
            let reader = Reader::new(self.cluster.reading(), &self.cluster.namespace);
            let facts = reader.pools().await;
            // An API server that does not answer for a moment is no reason to give up.
            if let Some(progress) = progress(&facts, &self.pool, self.member) {
                if progress.is_done {
                    return Ok(progress);
                }
                if progress.message != told {
                    output::progress(&progress.message);
                    told = progress.message;
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = tokio::signal::ctrl_c() => bail!(self.interrupted("interrupted", command)),
            }
            if Instant::now() >= deadline {
                let seconds = timeout.as_secs();
                bail!(self.interrupted(&format!("not within {seconds} s: {told}"), command));
            }
        }
    }

    /// What the member's state is after an interrupted wait, and which commands go on or go back.
    fn interrupted(&self, why: &str, command: &str) -> String {
        let Self { pool, member, .. } = self;
        format!(
            "{why}; {member} stays as it is in spec.members of pool {pool}: `kubectl trivet {command} {member} --pool {pool}` waits \
             again, `kubectl trivet drain {member} --pool {pool} --undo` makes it Active"
        )
    }

    fn told<'b>(
        &'b self,
        state: PoolMemberState,
        changed: bool,
        progress: Option<&Progress>,
        message: String,
    ) -> Done<'b> {
        Done {
            pool: &self.pool,
            member: self.member,
            state,
            changed,
            drained: progress.is_some_and(|progress| progress.is_done),
            connections: progress.map_or(0, |progress| progress.connections),
            message,
        }
    }

    fn done(screen: Screen, output: cli::Output, done: &Done<'_>) -> Result<Outcome> {
        match output.format {
            cli::Format::Table => screen.print(&format!("{}\n", done.message))?,
            cli::Format::Json => screen.print_json(done)?,
        }
        Ok(Outcome::Fine)
    }
}
