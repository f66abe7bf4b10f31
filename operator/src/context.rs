//! What all passes share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus};

use crate::backoff::Backoff;
use crate::client::Access;
use crate::metrics::Metrics;
use crate::plan::Memory;
use crate::prober::Prober;
use crate::render::Settings;
use crate::watch::Ledger;

/// A pass that takes longer is stuck: every single call in it is bounded by seconds.
const STUCK: Duration = Duration::from_secs(120);

/// What all passes share.
pub struct Context {
    /// The operator's own client.
    pub client: Client,
    /// How to reach the cluster, and whom to trust.
    pub access: Access,
    /// All nodes, as far as they are known.
    pub nodes: Store<Node>,
    /// All pools.
    pub pools: Store<ApiserverPool>,
    /// Probes the members.
    pub prober: Prober,
    /// What the operator was started with.
    pub settings: Settings,
    /// Publishes events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What has been read.
    pub ledger: Arc<Ledger>,
    /// Says whether the loops move.
    pub pulse: Arc<Pulse>,
    /// What is remembered of each pool.
    pub memories: Memories,
}

/// What is remembered of one pool between its passes.
#[derive(Clone, Debug, Default)]
pub struct PoolState {
    /// The pool that this is about: another one may get its name.
    pub uid: Option<String>,
    /// For the next plan.
    pub memory: Memory,
    /// The status of the last pass: the pool in the cache may be older.
    pub status: Option<ApiserverPoolStatus>,
    /// Refusals that have been told, so that each is told once.
    pub told: Vec<String>,
    /// Failures of its passes.
    pub backoff: Backoff,
}

/// What is remembered of all pools.
#[derive(Debug, Default)]
pub struct Memories(Mutex<BTreeMap<String, PoolState>>);

impl Memories {
    /// What is remembered of `pool`.
    pub fn of(&self, pool: &str) -> PoolState {
        self.change(pool, |state| state.clone())
    }

    /// Changes what is remembered of `pool`.
    pub fn change<T>(&self, pool: &str, change: impl FnOnce(&mut PoolState) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(pool.to_owned()).or_default())
    }

    /// Forgets the pools that are none of `stay`, and names them.
    fn forget_others(&self, stay: &BTreeSet<String>) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = all.keys().filter(|name| !stay.contains(*name)).cloned().collect();
        all.retain(|name, _| stay.contains(name));
        gone
    }
}

impl Context {
    /// Forgets pools that are gone. Their proxies go on.
    pub fn forget_gone(&self) {
        let exist = self.pools.state().iter().map(|pool| pool.name_any()).collect();
        for name in self.memories.forget_others(&exist) {
            self.prober.forget(&name);
            self.metrics.forget(&name);
        }
    }
}

/// Says whether the loops move. An API server that does not answer is no reason to be restarted; a stuck loop is.
#[derive(Debug, Default)]
pub struct Pulse {
    running: Mutex<BTreeMap<String, Instant>>,
}

impl Pulse {
    /// Notes that the loop called `name` moves; it must do so again before it counts as stuck.
    pub fn beat(&self, name: &str) {
        self.with(|running| running.insert(name.to_owned(), Instant::now()));
    }

    /// Notes that a piece of work called `name` has begun; it must end before it counts as stuck.
    pub fn begin(self: &Arc<Self>, name: &str) -> Work {
        self.beat(name);
        Work {
            pulse: Arc::clone(self),
            name: name.to_owned(),
        }
    }

    /// The loops that are stuck at `now`.
    pub fn stuck(&self, now: Instant) -> Vec<String> {
        let is_stuck = |begun: &Instant| now.saturating_duration_since(*begun) > STUCK;
        self.with(|running| {
            running
                .iter()
                .filter(|(_, begun)| is_stuck(begun))
                .map(|(name, _)| name.clone())
                .collect()
        })
    }

    fn with<T>(&self, use_running: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        use_running(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Work that is under way; it is over when this is dropped.
#[derive(Debug)]
pub struct Work {
    pulse: Arc<Pulse>,
    name: String,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.pulse.with(|running| running.remove(&self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_round_that_does_not_end_is_stuck() {
        let pulse = Arc::new(Pulse::default());
        let work = pulse.begin("pool default");
        assert!(pulse.stuck(Instant::now()).is_empty());
        tokio::time::advance(STUCK + Duration::from_secs(1)).await;
        assert_eq!(pulse.stuck(Instant::now()), ["pool default"]);
        drop(work);
        assert!(pulse.stuck(Instant::now()).is_empty());
    }
}
