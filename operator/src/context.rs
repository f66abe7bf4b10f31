//! What all passes share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use trivet_crds::pool::ApiserverPoolStatus;

use crate::api::backoff::Backoff;
use crate::api::client::Access;
use crate::api::events::Notice;
use crate::apply::LastApply;
use crate::dns;
use crate::leader::Leadership;
use crate::observe::recent::{Look, Unstarted};
use crate::observe::rows::Rows;
use crate::plan::Memory;
use crate::plan::stalls::Stalls;
use crate::pools::StoredPool;
use crate::prober::{Prober, in_force_key};
use crate::render::Settings;
use crate::report::stored::Stored;
use crate::reports::Reports;
use crate::resolve::Names;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;
use crate::serve::watchdog::Watchdog;

/// What all passes share.
pub struct Context {
    /// The operator's own client. It writes only while this operator leads.
    pub client: Client,
    /// Whether this operator leads.
    pub leadership: Arc<Leadership>,
    /// How to reach the cluster, and which authorities to trust.
    pub access: Access,
    /// All nodes that have been read.
    pub nodes: Store<Node>,
    /// All pods of proxies.
    pub pods: Store<Pod>,
    /// All pools, those included that this release cannot read.
    pub pools: Store<StoredPool>,
    /// What the proxies report.
    pub reports: Reports,
    /// Probes the members.
    pub prober: Prober,
    /// What the operator was started with.
    pub settings: Settings,
    /// Publishes events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Which kinds have been read.
    pub readiness: Arc<Readiness>,
    /// Whether the loops make progress.
    pub watchdog: Arc<Watchdog>,
    /// What is remembered of each pool.
    pub pool_states: PoolStates,
}

/// What is remembered of one pool between its passes.
#[derive(Clone, Debug, Default)]
pub struct PoolState {
    /// The pool's UID: another pool may get the same name later.
    pub uid: Option<String>,
    /// What the next plan must know.
    pub memory: Memory,
    /// What the DNS names of its spec resolved to.
    pub names: Names,
    /// The status that the last pass wrote. The pool in the cache may be older.
    pub status: Option<ApiserverPoolStatus>,
    /// What the API server has kept of the last status that was written.
    pub stored: Option<Stored>,
    /// The version of the pool in the cache at the last write of the status, and the version after it.
    pub versions: Option<(Option<String>, Option<String>)>,
    /// Whether the objects of the pool are taken in this term.
    pub is_taken: bool,
    /// The refusals that have an event already: each gets one.
    pub reported: Vec<String>,
    /// The names of the members in force at the last events about members.
    pub told_members: Option<BTreeSet<String>>,
    /// The events that the API server has not taken yet.
    pub unsent: Vec<Notice>,
    /// The last write of the DaemonSet.
    pub last_apply: Option<LastApply>,
    /// The last write of the writer of manifests.
    pub last_writer: Option<LastApply>,
    /// When the events of the DaemonSet were last looked at, and what they said.
    pub refused_pod: Option<(Instant, Option<String>)>,
    /// When kubelet's events about pods that do not start were last looked at, and what they said.
    pub unstarted: Option<(Instant, Unstarted)>,
    /// The last look at the writer's pods.
    pub writer_pods: Option<Look>,
    /// The last good template that was read, with its hash.
    pub good_template: Option<(String, Arc<PodTemplateSpec>)>,
    /// The new pods whose predecessors are still there.
    pub stalls: Stalls,
    /// What its passes know of nodes and pods.
    pub rows: Rows,
    /// How many passes in a row have ended because an object had changed since they read it.
    pub conflicts: u32,
    /// Its names in DNS.
    pub dns: dns::Exchange,
    /// The delay after a failed pass.
    pub backoff: Backoff,
}

/// What is remembered of all pools.
#[derive(Debug, Default)]
pub struct PoolStates(Mutex<BTreeMap<String, PoolState>>);

impl PoolStates {
    /// What is remembered of `pool`.
    pub fn of(&self, pool: &str) -> PoolState {
        self.change(pool, |state| state.clone())
    }

    /// Changes what is remembered of `pool`.
    pub fn change<T>(&self, pool: &str, change: impl FnOnce(&mut PoolState) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(pool.to_owned()).or_default())
    }

    /// Forgets all pools but `existing`, and returns the names of the forgotten ones.
    fn retain(&self, existing: &BTreeSet<String>) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = all
            .keys()
            .filter(|name| !existing.contains(*name))
            .cloned()
            .collect();
        all.retain(|name, _| existing.contains(name));
        gone
    }
}

/// The word for the passes over `pool` in `/livez`.
pub fn pass_of(pool: &str) -> String {
    format!("pool {pool}")
}

impl Context {
    /// Forgets pools that no longer exist. Their proxies keep running.
    pub fn forget_deleted(&self) {
        let existing = self.pools.state().iter().map(|pool| pool.name_any()).collect();
        self.forget_all_but(&existing);
    }

    /// Forgets what this operator remembers of all pools: another one may have led since.
    pub fn forget_all(&self) {
        self.forget_all_but(&BTreeSet::new());
    }

    fn forget_all_but(&self, existing: &BTreeSet<String>) {
        for name in self.pool_states.retain(existing) {
            self.prober.forget(&name);
            self.prober.forget(&in_force_key(&name));
            self.metrics.forget(&name);
            self.reports.forget(&name);
            self.watchdog.forget(&pass_of(&name));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
