//! The operator's watches. Each has its own back-off, and its errors are counted and end here: kube's `Controller`
//! would make all watches wait for the one that fails.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::logging::chain;
use crate::metrics::Metrics;

/// The API server ends a watch after this long, and kube begins the next: a watch that has silently died is noticed
/// within it and a few seconds more.
const WATCH_SECONDS: u32 = 30;

/// An item of a watch. Its error never happens; kube's `Controller` wants the type.
pub type Good<K> = Result<Event<K>, watcher::Error>;

/// The kinds that are watched.
pub const KINDS: [&str; 4] = ["ApiserverPool", "Node", "ConfigMap", "DaemonSet"];

/// What the watches have to say of themselves: counts, and which kinds have been read once.
///
/// (kube's own `Store::wait_until_ready` wakes one of its waiters only, and `Controller` is the one for pools.)
#[derive(Debug)]
pub struct Ledger {
    metrics: Arc<Metrics>,
    unread: channel::Sender<BTreeSet<&'static str>>,
}

impl Ledger {
    /// A ledger in which no kind has been read.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            unread: channel::Sender::new(KINDS.into()),
        }
    }

    /// Whether every kind has been read once.
    pub fn is_complete(&self) -> bool {
        self.unread.borrow().is_empty()
    }

    /// Waits until this kind has been read once.
    pub async fn read(&self, kind: &'static str) {
        // The sender lives as long as `self`: the wait cannot fail.
        self.unread
            .subscribe()
            .wait_for(|unread| !unread.contains(kind))
            .await
            .ok();
    }

    fn note<K>(&self, kind: &'static str, item: &Good<K>) {
        match item {
            Ok(event) => {
                self.metrics.watch_moved(kind, Instant::now());
                if matches!(event, Event::InitDone) {
                    self.unread.send_if_modified(|unread| unread.remove(kind));
                }
            }
            Err(error) => {
                self.metrics.watch_failed(kind);
                tracing::warn!(kind, error = chain(error), "watch failed and begins again");
            }
        }
    }
}

/// Watches objects, those with `label` if there is one.
pub fn watch<K>(
    api: Api<K>,
    label: Option<&str>,
    kind: &'static str,
    ledger: Arc<Ledger>,
) -> impl Stream<Item = Good<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let config = label.into_iter().fold(config, watcher::Config::labels);
    watcher(api, config)
        .backoff(Backoff::default())
        .filter_map(move |item| {
            ledger.note(kind, &item);
            std::future::ready(item.ok().map(Ok))
        })
}

/// Drops from a node what nobody reads, so that the cache of a large cluster stays small.
pub fn trim(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    node.spec = None;
    if let Some(status) = &mut node.status {
        let addresses = status.addresses.take();
        *status = k8s_openapi::api::core::v1::NodeStatus {
            addresses,
            ..Default::default()
        };
    }
}

/// What of the nodes matters to a pool, to tell a change from a heartbeat. Pure.
#[derive(Debug, Default)]
pub struct NodesSeen {
    known: BTreeMap<String, u64>,
    relisted: BTreeMap<String, u64>,
}

impl NodesSeen {
    /// Folds one event in; true if pools must look at the nodes again.
    pub fn observe(&mut self, event: &Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.relisted.clear();
                false
            }
            Event::InitApply(node) => {
                self.relisted.insert(node.name_any(), fingerprint(node));
                false
            }
            Event::InitDone => {
                let relisted = std::mem::take(&mut self.relisted);
                let changed = relisted != self.known;
                self.known = relisted;
                changed
            }
            Event::Apply(node) => {
                let print = fingerprint(node);
                self.known.insert(node.name_any(), print) != Some(print)
            }
            Event::Delete(node) => self.known.remove(&node.name_any()).is_some(),
        }
    }
}

/// Addresses and labels, the zone among them. Readiness and heartbeats do not matter: members are judged by probes.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.labels().hash(&mut hasher);
    for address in node
        .status
        .iter()
        .filter_map(|status| status.addresses.as_ref())
        .flatten()
    {
        (&address.type_, &address.address).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, address: &str, heartbeat: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "a": "b" }, "resourceVersion": heartbeat },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": address }],
                "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat }],
            },
        }))
        .unwrap()
    }

    fn seen() -> NodesSeen {
        let mut seen = NodesSeen::default();
        seen.observe(&Event::Init);
        seen.observe(&Event::InitApply(node("cp1", "10.0.0.1", "2026-01-01T00:00:00Z")));
        assert!(seen.observe(&Event::InitDone));
        seen
    }

    #[tokio::test]
    async fn the_ledger_is_complete_once_every_kind_has_been_read() {
        let ledger = Ledger::new(Arc::default());
        for kind in KINDS {
            assert!(!ledger.is_complete());
            ledger.note::<Node>(kind, &Ok(Event::Init));
            ledger.note::<Node>(kind, &Ok(Event::InitDone));
            ledger.read(kind).await;
        }
        assert!(ledger.is_complete());
    }

    #[test]
    fn a_heartbeat_is_no_change_but_an_address_is() {
        let mut seen = seen();
        assert!(!seen.observe(&Event::Apply(node("cp1", "10.0.0.1", "2026-01-01T00:05:00Z"))));
        assert!(seen.observe(&Event::Apply(node("cp1", "10.0.0.2", "2026-01-01T00:05:00Z"))));
    }

    #[test]
    fn a_deletion_is_a_change() {
        assert!(seen().observe(&Event::Delete(node("cp1", "10.0.0.1", "2026-01-01T00:00:00Z"))));
    }

    #[test]
    fn a_deletion_that_was_missed_shows_in_the_next_list() {
        let mut seen = seen();
        seen.observe(&Event::Init);
        assert!(seen.observe(&Event::InitDone));
        seen.observe(&Event::Init);
        assert!(!seen.observe(&Event::InitDone));
    }

    #[test]
    fn a_trimmed_node_keeps_what_matters() {
        let full = node("cp1", "10.0.0.1", "2026-01-01T00:00:00Z");
        let mut trimmed = full.clone();
        trim(&mut trimmed);
        assert_eq!(fingerprint(&trimmed), fingerprint(&full));
        assert!(trimmed.status.unwrap().conditions.is_none());
    }
}
