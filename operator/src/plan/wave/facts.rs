//! What the waves depend on besides the pool.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use trivet_crds::wire::RolloutTarget;

use super::record::Record;

/// The rollout as one pass has seen it.
#[derive(Clone, Debug, Default)]
pub struct WaveFacts {
    /// The time, in Unix seconds by the operator's clock.
    pub now: i64,
    /// Whether an operator that has just started has not read all nodes and pods yet. Then `nodes` means nothing.
    pub is_blind: bool,
    /// Whether it has not read the proxies' reports yet. Where there are none to be had, it never reads them.
    pub lacks_reports: bool,
    /// How many nodes should have a proxy, those left aside included; of them `maxParallel` may be a percentage.
    pub desired: u32,
    /// The template of the DaemonSet in place; `None` if there is no DaemonSet.
    pub in_place: Option<Template>,
    /// The last good template, if it is not the one in place and can be read.
    pub good: Option<Arc<PodTemplateSpec>>,
    /// Whether every Ready node has an available proxy of the template in place.
    pub is_complete: bool,
    /// How long a new proxy runs on the first node before the others get it, in seconds.
    pub soak: u32,
    /// What the operator has noted.
    pub record: Record,
    /// What the document in force says of the rollout.
    pub target: RolloutTarget,
    /// The nodes that have a pod, by name.
    pub nodes: Vec<NodeFacts>,
    /// How much memory a proxy of the template in place may use, in MiB; `None` without a limit.
    pub memory_limit_mebibytes: Option<u32>,
    /// When kubelet has last renewed the Lease of the first node, by the node's clock; `None` if that is not known.
    pub lease_renewed: Option<i64>,
}

/// A template with its hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// The hash; empty in a DaemonSet of a release that had none.
    pub hash: String,
    /// The whole.
    pub content: Arc<PodTemplateSpec>,
}

/// A node that has a pod of the proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Why it holds nothing up.
    pub aside: Option<Aside>,
    /// Its pod of the template in place.
    pub newcomer: Option<Newcomer>,
    /// Whether it has a ready pod of another template.
    pub has_earlier: bool,
    /// When kubelet found the youngest of those Ready, by the node's clock.
    pub earlier_ready_at: Option<i64>,
    /// What its serving proxy has reported, if that is young enough to mean something.
    pub report: Option<Reported>,
}

/// Why a node is left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// It is not Ready.
    NotReady,
    /// It can run no pod, or is gone: nobody waits for it.
    RunsNoPods,
}

/// A pod of the template that is rolled out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newcomer {
    /// When it was created, by the API server's clock.
    pub created_at: Option<i64>,
    /// Whether its container runs.
    pub is_running: bool,
    /// Whether its container has run at any time.
    pub has_started: bool,
    /// Whether it is Ready.
    pub is_ready: bool,
    /// When kubelet found it Ready, by the node's clock.
    pub ready_at: Option<i64>,
    /// How often its container has ended.
    pub ends: u32,
    /// Why it does not run, in kubelet's or its own words.
    pub words: Option<String>,
}

/// A report, as far as it tells good proxies from bad ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The template of the proxy that serves.
    pub template: String,
    /// The members that are not Up on this node.
    pub not_up: BTreeSet<String>,
    /// The addresses on which it cannot listen.
    pub not_listening: Vec<String>,
    /// The open files of the proxy.
    pub open_files: u32,
    /// Whether it says that no file is left.
    pub is_out_of_files: bool,
    /// Its memory in MiB; 0 if that is not known.
    pub memory_mebibytes: u32,
    /// That of the last proxy of another template on this node; 0 if that is not known.
    pub earlier_mebibytes: u32,
    /// Whether it follows the document in force.
    pub is_current: bool,
    /// The connections of its clients.
    pub connections: u32,
}

impl Newcomer {
    /// Its words as the end of a sentence; nothing where there are none.
    pub(super) fn in_its_words(&self) -> String {
        self.words
            .as_ref()
            .map_or_else(String::new, |words| format!(": {words}"))
    }
}

impl NodeFacts {
    /// Its newcomer, unless the node is left aside.
    pub(super) fn counted(&self) -> Option<&Newcomer> {
        self.newcomer.as_ref().filter(|_| self.aside.is_none())
    }

    /// Whether its newcomer is Ready.
    pub(super) fn is_done(&self) -> bool {
        self.counted().is_some_and(|newcomer| newcomer.is_ready)
    }
}
