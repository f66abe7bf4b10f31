//! The operator's watches. Each has its own back-off, and its errors are counted and dropped here, because kube's
//! `Controller` makes all watches wait for the one that fails.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::{
    ContainerStatus, Node, NodeCondition, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus, Taint,
};
use kube::api::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use trivet_crds::STANDBY;

use crate::api::backoff::Backoff;
use crate::plan::scope::is_decisive;
use crate::serve::readiness::Readiness;

/// The API server ends a watch after this time and kube starts the next one, so a dead watch is noticed at most a few
/// seconds later.
const WATCH_SECONDS: u32 = 30;

/// Objects in one page of a list. A page is in memory as a whole before its objects are trimmed, and an untrimmed node
/// takes about 20 KB.
const PAGE: u32 = 100;

/// A watch that has failed for this long begins anew with a list: etcd may have been restored meanwhile. An apiserver takes a
/// resourceVersion of the future, and then tells nothing until its own is above, and never what was before.
const OUTAGE: Duration = Duration::from_secs(3);

/// The resource with the number of pods that a node can run.
const PODS: &str = "pods";

/// The annotation of the mirror pod of a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// An item of a watch. The error never occurs, but kube's `Controller` wants the type.
pub type Item<K> = Result<Event<K>, watcher::Error>;

/// Watches all objects, or only those with `label`.
pub fn watch<K>(
    api: Api<K>,
    label: Option<&str>,
    kind: &'static str,
    readiness: Arc<Readiness>,
) -> impl Stream<Item = Item<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let config = label.into_iter().fold(config, watcher::Config::labels);
    let looked_at = Arc::clone(&readiness);
    let items = anew_after_outages(move || watcher(api.clone(), config.clone())).backoff(Backoff::default());
    let items = noted(items, kind, readiness).filter_map(|item| std::future::ready(item.ok().map(Ok)));
    polled(items, move || looked_at.polled(kind))
}

/// The same items, each noted as it comes. The end of a list is noted with the next look: by then the cache behind this stream has
/// what was listed. A pass that finds a kind read and its cache empty would take what it does not know for absent.
fn noted<K>(
    items: impl Stream<Item = Item<K>> + Send,
    kind: &'static str,
    readiness: Arc<Readiness>,
) -> impl Stream<Item = Item<K>> + Send {
    let mut items = Box::pin(items);
    let mut is_listed = false;
    futures::stream::poll_fn(move |task| {
        if std::mem::take(&mut is_listed) {
            readiness.observe::<K>(kind, &Ok(Event::InitDone));
        }
        let item = ready!(items.poll_next_unpin(task));
        match &item {
            Some(Ok(Event::InitDone)) => is_listed = true,
            Some(item) => readiness.observe(kind, item),
            None => {}
        }
        Poll::Ready(item)
    })
}

/// The same items. `beat` is called whenever the stream is looked at, which for a watch is at least when the API server ends it
/// or its back-off is over: a watch that nobody looks at makes no progress, however often the API server answers.
pub fn polled<S>(items: S, beat: impl Fn() + Send) -> impl Stream<Item = S::Item> + Send
where
    S: Stream + Send,
{
    let mut items = Box::pin(items);
    futures::stream::poll_fn(move |task| {
        beat();
        items.poll_next_unpin(task)
    })
}

/// The items of the stream that `begin` makes. After an outage the next one takes its place.
pub fn anew_after_outages<T, E, S>(begin: impl Fn() -> S + Send) -> impl Stream<Item = Result<T, E>> + Send
where
    S: Stream<Item = Result<T, E>> + Send,
{
    let mut items = Box::pin(begin());
    let mut failing_since = None;
    futures::stream::poll_fn(move |task| {
        let item = ready!(items.poll_next_unpin(task));
        let now = Instant::now();
        match &item {
            Some(Ok(_)) => failing_since = None,
            Some(Err(_)) if now >= *failing_since.get_or_insert(now) + OUTAGE => {
                items = Box::pin(begin());
                failing_since = None;
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(item)
    })
}

/// Drops the parts of a node that no code reads, so that the cache of a large cluster stays small.
pub fn trim_node(node: &mut Node) {
    trim_metadata(&mut node.metadata);
    let taints = decisive_taints(node).map(|taint| Taint {
        time_added: None,
        ..taint.clone()
    });
    let taints: Vec<_> = taints.collect();
    node.spec = (!taints.is_empty()).then(|| NodeSpec {
        taints: Some(taints),
        ..NodeSpec::default()
    });
    if let Some(status) = &mut node.status {
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|condition| condition.type_ == "Ready");
        for condition in &mut conditions {
            *condition = NodeCondition {
                type_: std::mem::take(&mut condition.type_),
                status: std::mem::take(&mut condition.status),
                ..NodeCondition::default()
            };
        }
        let mut allocatable = status.allocatable.take().unwrap_or_default();
        allocatable.retain(|resource, _| resource == PODS);
        *status = NodeStatus {
            addresses: status.addresses.take(),
            allocatable: Some(allocatable),
            conditions: Some(conditions),
            ..NodeStatus::default()
        };
    }
}

/// Drops the parts of a proxy's pod that no code reads. A pod that is not scheduled yet keeps the name of its intended node.
pub fn trim_pod(pod: &mut Pod) {
    let read = [MIRROR, STANDBY].map(|key| pod.annotations_mut().remove_entry(key));
    trim_metadata(&mut pod.metadata);
    let read: BTreeMap<_, _> = read.into_iter().flatten().collect();
    pod.metadata.annotations = (!read.is_empty()).then_some(read);
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: node_of(&spec),
        ..PodSpec::default()
    });
    if let Some(status) = &mut pod.status {
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|condition| matches!(condition.type_.as_str(), "Ready" | "PodScheduled"));
        // A pod that kubelet has refused has no containers, and says why in these.
        *status = PodStatus {
            phase: status.phase.take(),
            reason: status.reason.take(),
            message: status.message.take(),
            conditions: Some(conditions),
            container_statuses: status.container_statuses.take(),
            ..PodStatus::default()
        };
        for container in status.container_statuses.iter_mut().flatten() {
            *container = ContainerStatus {
                ready: container.ready,
                restart_count: container.restart_count,
                state: container.state.take(),
                last_state: container.last_state.take(),
                ..ContainerStatus::default()
            };
        }
    }
}

fn trim_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.owner_references = None;
    metadata.generate_name = None;
}

/// The node of a DaemonSet's pod. Until the pod is scheduled, only its affinity names the node.
fn node_of(spec: &PodSpec) -> Option<String> {
    let named = || {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        let fields = required
            .node_selector_terms
            .iter()
            .flat_map(|term| term.match_fields.iter().flatten());
        let mut names = fields.filter(|field| field.key == "metadata.name");
        names.next()?.values.as_ref()?.first().cloned()
    };
    spec.node_name.clone().or_else(named)
}

/// Whether a node reports that it is Ready.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a node can run pods at all.
pub fn runs_pods(node: &Node) -> bool {
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    // A node that has not reported its allocatable pods yet counts as able to run some.
    allocatable
        .and_then(|allocatable| allocatable.get(PODS))
        .is_none_or(|pods| pods.0 != "0")
}

/// The first item at once, then at most one item in each `gap`, however many `changes` there are.
pub fn paced(
    changes: impl Stream<Item = ()> + Send + 'static,
    gap: Duration,
) -> impl Stream<Item = ()> + Send + 'static {
    let mut changes = Box::pin(changes);
    let mut rest = Box::pin(tokio::time::sleep(Duration::ZERO));
    let (mut is_due, mut has_ended) = (false, false);
    futures::stream::poll_fn(move |task| {
        // Polls during the gap too, because polling fills the cache behind the changes.
        while !has_ended && let Poll::Ready(change) = changes.poll_next_unpin(task) {
            is_due |= change.is_some();
            has_ended = change.is_none();
        }
        if !is_due {
            return if has_ended {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        ready!(rest.poll_unpin(task));
        rest.as_mut().reset(Instant::now() + gap);
        is_due = false;
        Poll::Ready(Some(()))
    })
}

/// The parts of all nodes that matter to pools. They distinguish a change from a heartbeat. Pure.
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

/// The taints that can keep proxies from the node. Taints that Kubernetes sets for the node's state do not count: they
/// come and go.
fn decisive_taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| is_decisive(taint))
}

/// A hash of addresses, labels, taints, and whether a proxy on the node can be available. Heartbeats do not change it.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.labels().hash(&mut hasher);
    (is_ready(node), runs_pods(node)).hash(&mut hasher);
    for taint in decisive_taints(node) {
        (&taint.key, &taint.value, &taint.effect).hash(&mut hasher);
    }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        trim_node(&mut trimmed);
        assert_eq!(fingerprint(&trimmed), fingerprint(&full));
        let ready = trimmed.status.unwrap().conditions.unwrap();
        assert!(ready[0].last_heartbeat_time.is_none());
    }

    #[test]
    fn a_node_that_stops_being_ready_is_a_change() {
        let mut lost = node("cp1", "10.0.0.1", "2026-01-01T00:05:00Z");
        lost.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".to_owned();
        assert!(seen().observe(&Event::Apply(lost)));
    }

    fn tainted(key: &str, effect: &str) -> Node {
        let mut node = node("cp1", "10.0.0.1", "2026-01-01T00:05:00Z");
        let spec =
            json!({ "taints": [{ "key": key, "effect": effect, "timeAdded": "2026-01-01T00:05:00Z" }] });
        node.spec = serde_json::from_value(spec).unwrap();
        node
    }

    #[test]
    fn a_taint_that_keeps_proxies_away_is_a_change_and_one_of_an_outage_is_none() {
        for (key, effect, is_change) in [
            ("example.com/own", "NoSchedule", true),
            ("example.com/own", "NoExecute", true),
            ("example.com/own", "PreferNoSchedule", false),
            ("node.kubernetes.io/not-ready", "NoExecute", false),
            ("node.kubernetes.io/unreachable", "NoSchedule", false),
            ("node.kubernetes.io/unschedulable", "NoSchedule", false),
        ] {
            let node = tainted(key, effect);
            assert_eq!(seen().observe(&Event::Apply(node.clone())), is_change, "{key}");
            let mut trimmed = node.clone();
            trim_node(&mut trimmed);
            assert_eq!(fingerprint(&trimmed), fingerprint(&node), "{key}");
            assert_eq!(trimmed.spec.is_some(), is_change, "{key}");
        }
    }

    #[test]
    fn a_trimmed_pod_names_its_node_before_it_is_scheduled() {
        let mut pod: Pod = serde_json::from_value(
            json!({ "spec": { "containers": [], "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["w1"] }] },
            ] },
        } } } }),
        )
        .unwrap();
        trim_pod(&mut pod);
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("w1"));
    }

    #[tokio::test]
    async fn a_kind_counts_as_read_once_the_cache_has_what_was_listed() {
        let readiness = Arc::new(Readiness::default());
        let (cache, writer) = kube::runtime::reflector::store();
        let listed = [
            Event::Init,
            Event::InitApply(node("w1", "10.0.0.1", "2026-01-01T00:00:00Z")),
            Event::InitDone,
        ];
        let items = futures::stream::iter(listed.map(Ok)).chain(futures::stream::pending());
        let mut items = Box::pin(noted(items, "Node", Arc::clone(&readiness)).reflect(writer));
        for _ in 0..3 {
            assert!(!readiness.has_read("Node"));
            assert!(items.next().await.is_some());
        }
        assert_eq!(cache.len(), 1);
        assert!(
            !readiness.has_read("Node"),
            "other threads may look before the cache is filled"
        );
        assert!(items.next().now_or_never().is_none());
        assert!(readiness.has_read("Node"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_failed_for_seconds_begins_anew_and_one_that_broke_goes_on() {
        for (seconds, wanted) in [(0, 1), (2, 1), (3, 2), (60, 2)] {
            let streams = AtomicUsize::new(0);
            let begin = || {
                streams.fetch_add(1, Ordering::Relaxed);
                let pause = |second| tokio::time::sleep(Duration::from_secs(second));
                let items = [(Err(()), 0), (Err(()), seconds), (Ok(()), 0)].into_iter();
                futures::stream::iter(items).then(move |(item, second)| async move {
                    pause(second).await;
                    item
                })
            };
            // The row of failures ends with the first item.
            let mut items = Box::pin(anew_after_outages(begin));
            while items.next().await.is_some_and(|item| item.is_err()) && streams.load(Ordering::Relaxed) < 2
            {
            }
            assert_eq!(streams.load(Ordering::Relaxed), wanted, "{seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_looked_at_also_while_it_brings_nothing() {
        let polls = AtomicUsize::new(0);
        let ends = futures::stream::iter(0..3).then(|_| tokio::time::sleep(Duration::from_secs(30)));
        let quiet = ends.filter(|()| std::future::ready(false));
        let mut items = Box::pin(polled(quiet, || {
            polls.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(items.next().await.is_none());
        assert!(polls.load(Ordering::Relaxed) >= 3, "{polls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_changes_is_one_item_at_once_and_one_later() {
        let gap = Duration::from_secs(1);
        let start = Instant::now();
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let mut items = Box::pin(paced(receiver, gap));
        sender.unbounded_send(()).unwrap();
        items.next().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..1000 {
            sender.unbounded_send(()).unwrap();
        }
        items.next().await.unwrap();
        assert_eq!(start.elapsed(), gap);
        drop(sender);
        assert!(items.next().await.is_none());
    }
}
