//! The operator's watches. Each has its own back-off, and its errors are counted and dropped here, because kube's
//! `Controller` makes all watches wait for the one that fails.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::backoff::Backoff;
use crate::serve::readiness::Readiness;

/// The API server ends a watch after this long and kube starts the next one, so a silently dead watch is noticed a few
/// seconds later at the latest.
const WATCH_SECONDS: u32 = 30;

/// An item of a watch. The error never occurs, but kube's `Controller` wants the type.
pub type Item<K> = Result<Event<K>, watcher::Error>;

/// Watches objects, those with `label` if there is one.
pub fn watch<K>(
    api: Api<K>,
    label: Option<&str>,
    kind: &'static str,
    readiness: Arc<Readiness>,
) -> impl Stream<Item = Item<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let config = label.into_iter().fold(config, watcher::Config::labels);
    watcher(api, config)
        .backoff(Backoff::default())
        .filter_map(move |item| {
            readiness.observe(kind, &item);
            std::future::ready(item.ok().map(Ok))
        })
}

/// Drops the parts of a node that no code reads, so that the cache of a large cluster stays small.
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

/// The parts of all nodes that matter to pools, by which a change is told from a heartbeat. Pure.
#[derive(Debug, Default)]
pub struct NodesSeen {
    known: BTreeMap<String, u64>,
    relisted: BTreeMap<String, u64>,
}

impl NodesSeen {
    /// Folds one event in. True means that something changed that matters to pools.
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

/// Addresses and labels, the zone among them. Readiness and heartbeats do not count: probes judge members.
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
