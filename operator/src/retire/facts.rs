//! What is known of a fleet: the objects that run for one pool, and its nodes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use trivet_crds::{
    POOL_LABEL, RETIRE, RETIRE_NOW, RETIREMENT, bootstrap_name, data_plane_name, retirement_name,
};

use crate::plan::bootstrap::Task;
use crate::render::bootstrap::in_place;
use crate::reports::NodeReport;

/// Whether a fleet has a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It has one.
    Exists,
    /// The API server has no pool of this name.
    Absent,
    /// The API server does not know pools: their CRD is gone, perhaps by accident.
    KindAbsent,
}

/// The objects of one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// The name of the pool.
    pub pool: String,
    /// The DaemonSet of the proxies.
    pub proxies: Option<DaemonSet>,
    /// The writer of the standbys' manifests.
    pub writer: Option<DaemonSet>,
    /// The remover: the DaemonSet whose pods remove what is left on a node.
    pub remover: Option<DaemonSet>,
}

/// A retirement that has begun, as it is noted in the annotation [`RETIREMENT`]. A new operator goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// When, in Unix seconds.
    pub since: i64,
    /// Whether the annotation has asked for it; otherwise it has begun because the proxies have no clients.
    #[serde(default)]
    pub is_asked: bool,
    /// Kubelet's directory in which there may be manifests of standbys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// A node of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether its kubelet says that it is Ready.
    pub is_ready: bool,
    /// Whether a pod of the proxies' DaemonSet is there, also one that ends.
    pub has_proxy: bool,
    /// What its proxy has reported lately; none if it has not.
    pub report: Option<Use>,
    /// How far the remover is there.
    pub remover: Remover,
}

/// How the clients of a node use its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The connections of its clients.
    pub connections: u32,
    /// How long there has been none, in seconds.
    pub idle_seconds: u32,
}

/// How far the remover is on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Remover {
    /// It has no pod there.
    #[default]
    Absent,
    /// It removes the manifests and waits for the end of the standbys, or it does not start, for this reason.
    Starts(Option<String>),
    /// It waits for the end of the proxies. It needs no API server for the rest.
    Waits,
    /// Nothing is left on the node.
    Done,
}

impl Fleet {
    /// Whether the annotation asks to retire it at once.
    pub fn is_asked(&self) -> bool {
        let asks = |set: &DaemonSet| {
            set.annotations()
                .get(RETIRE)
                .is_some_and(|value| value == RETIRE_NOW)
        };
        self.proxies.iter().chain(&self.remover).any(asks)
    }

    /// The retirement that has begun.
    pub fn begun(&self) -> Option<Begun> {
        let sets = self.proxies.iter().chain(&self.remover);
        let mut notes = sets.filter_map(|set| set.annotations().get(RETIREMENT));
        notes.find_map(|note| serde_json::from_str(note).ok())
    }

    /// Kubelet's directory in which the writer may have written.
    pub fn directory(&self) -> Option<String> {
        let (target, _template) = in_place(self.writer.as_ref()?)?;
        (target.task != Task::Rest).then_some(target.directory)
    }
}

/// The fleets that these DaemonSets belong to, by the names of their pools.
pub fn fleets(sets: Vec<DaemonSet>) -> BTreeMap<String, Fleet> {
    let mut fleets = BTreeMap::<String, Fleet>::new();
    for set in sets {
        let Some(pool) = set.labels().get(POOL_LABEL).cloned() else {
            continue;
        };
        let name = set.name_any();
        let fleet = fleets.entry(pool.clone()).or_default();
        fleet.pool.clone_from(&pool);
        if name == data_plane_name(&pool) {
            fleet.proxies = Some(set);
        } else if name == bootstrap_name(&pool) {
            fleet.writer = Some(set);
        } else if name == retirement_name(&pool) {
            fleet.remover = Some(set);
        }
    }
    fleets
}

/// What a fresh report says of the clients.
pub fn use_of(report: &NodeReport, node_count: u32, now: Timestamp) -> Option<Use> {
    report.is_fresh(node_count, now).then_some(Use {
        connections: report.connections,
        idle_seconds: report.idle_seconds,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(name: &str, pool: &str, annotations: &Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { POOL_LABEL: pool }, "annotations": annotations },
        }))
        .unwrap()
    }

    #[test]
    fn a_fleet_is_found_by_label_and_name_and_nothing_else_is_of_it() {
        let found = fleets(vec![
            set("trivet-a", "a", &json!({})),
            set("trivet-a-bootstrap", "a", &json!({})),
            set("retire-trivet-a", "a", &json!({})),
            set("trivet-b", "a", &json!({})),
            set("trivet-b", "b", &json!({})),
        ]);
        let names = |set: &Option<DaemonSet>| set.as_ref().map(ResourceExt::name_any);
        let a = &found["a"];
        assert_eq!(names(&a.proxies).as_deref(), Some("trivet-a"));
        assert_eq!(names(&a.writer).as_deref(), Some("trivet-a-bootstrap"));
        assert_eq!(names(&a.remover).as_deref(), Some("retire-trivet-a"));
        assert_eq!(names(&found["b"].proxies).as_deref(), Some("trivet-b"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn only_the_value_now_asks_for_a_retirement() {
        for (value, asks) in [("now", true), ("", false), ("later", false), ("Now", false)] {
            let fleet = Fleet {
                proxies: Some(set("trivet-a", "a", &json!({ RETIRE: value }))),
                ..Fleet::default()
            };
            assert_eq!(fleet.is_asked(), asks, "{value:?}");
        }
    }

    #[test]
    fn what_has_begun_is_read_from_the_proxies_and_once_they_are_gone_from_the_remover() {
        let begun = Begun {
            since: 7,
            is_asked: true,
            directory: Some("/etc/kubernetes/manifests".to_owned()),
        };
        let note = json!({ RETIREMENT: serde_json::to_string(&begun).unwrap() });
        let proxies = Fleet {
            proxies: Some(set("trivet-a", "a", &note)),
            ..Fleet::default()
        };
        let remover = Fleet {
            remover: Some(set("retire-trivet-a", "a", &note)),
            ..Fleet::default()
        };
        assert_eq!(proxies.begun(), Some(begun.clone()));
        assert_eq!(remover.begun(), Some(begun));
        let broken = Fleet {
            proxies: Some(set("trivet-a", "a", &json!({ RETIREMENT: "broken" }))),
            ..Fleet::default()
        };
        assert_eq!(broken.begun(), None, "it begins anew");
    }
}
