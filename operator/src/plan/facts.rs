//! What a plan is made from.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;
use trivet_crds::pool::Discovery;
use trivet_crds::wire::{self, Document, Later};

use super::bootstrap::{BootstrapFacts, Soak};
use super::endpoints::Endpoint;
use super::masters::Master;
use super::membership::Membership;
use super::rival::{Claim, Precedence, Rival};
use super::scope::in_place::InPlace;
use super::wave::{Vigil, WaveFacts};
use crate::health::Healths;
use crate::render::config_map::ACCEPTED_DISCOVERY;
use crate::reports::fleet::Fleet;

/// The world, as one pass has seen it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pass's time.
    pub now: Instant,
    /// The pass's wall clock time, in Unix seconds: the least number of a new document.
    pub unix_seconds: u64,
    /// What discovery says.
    pub discovered: Discovered,
    /// What the discovery of the last good spec says, see [`super::last_good`].
    pub discovered_by_last_good: Discovered,
    /// The nodes that a kubelet runs; empty if they cannot be read.
    pub nodes: Vec<Arc<Node>>,
    /// The endpoints of `default/kubernetes`. `None` if they cannot be read, which says nothing about them, or if discovery
    /// is off.
    pub endpoints: Option<Vec<Endpoint>>,
    /// How many nodes the cluster has, if that is known.
    pub node_count: Option<u32>,
    /// The Ready nodes that should have a proxy, and what the proxies report.
    pub fleet: Fleet,
    /// The DNS names of the spec, resolved, or why not.
    pub resolved: BTreeMap<String, Result<Vec<IpAddr>, String>>,
    /// What is in force.
    pub current: Current,
    /// The health of the members.
    pub healths: Healths,
    /// Their health by the server name and the authorities of the document in force, if others are asked for.
    pub healths_by_last_good: Option<Healths>,
    /// Where this pool's proxies are.
    pub in_place: InPlace,
    /// This pool's place in the queue for its listeners.
    pub precedence: Precedence,
    /// Where this pool's proxies listen.
    pub serving: Vec<Claim>,
    /// The other pools, and what they listen on.
    pub rivals: Vec<Rival>,
    /// The authorities that verify members, PEM: the cluster's, unless [`super::trust::settle`] keeps those in force.
    pub authorities: String,
    /// What keeps the operator from following the cluster.
    pub hindrances: Vec<Hindrance>,
    /// The hash of the template of the proxies' pods that the spec asks for.
    pub template: String,
    /// What the bootstrap of the nodes depends on.
    pub bootstrap: BootstrapFacts,
    /// What the waves of a rollout depend on.
    pub waves: WaveFacts,
    /// What earlier passes have seen.
    pub memory: Memory,
}

impl Facts {
    /// What members follow from by the last good spec: what its discovery finds, and what its server name verifies. No member
    /// follows from what is known of single nodes and proxies, which in a large cluster is most of the facts: that is left out.
    pub(super) fn by_last_good(&self) -> Self {
        Self {
            now: self.now,
            unix_seconds: self.unix_seconds,
            discovered: self.discovered_by_last_good.clone(),
            discovered_by_last_good: self.discovered_by_last_good.clone(),
            nodes: Vec::new(),
            endpoints: self.endpoints.clone(),
            node_count: self.node_count,
            fleet: Fleet::default(),
            resolved: self.resolved.clone(),
            current: self.current.clone(),
            healths: self.healths_in_force().clone(),
            healths_by_last_good: self.healths_by_last_good.clone(),
            in_place: InPlace::default(),
            precedence: self.precedence.clone(),
            serving: self.serving.clone(),
            rivals: self.rivals.clone(),
            authorities: self.authorities.clone(),
            hindrances: self.hindrances.clone(),
            template: self.template.clone(),
            bootstrap: self.bootstrap.clone(),
            waves: WaveFacts::default(),
            memory: self.memory.clone(),
        }
    }

    /// The health of the members by the server name and the authorities of the document in force.
    pub fn healths_in_force(&self) -> &Healths {
        self.healths_by_last_good.as_ref().unwrap_or(&self.healths)
    }
}

/// What keeps the operator from following the cluster, though it obeys the spec. The pool's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The reason word of the condition, the event and the metric.
    pub reason: &'static str,
    /// What it is, what stays as it was, and the way out.
    pub note: String,
}

/// What discovery says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// The pool's owner wants none.
    Off,
    /// Its source cannot be read: nothing is known, which is not the same as nothing being there.
    Unknown,
    /// The control-plane nodes.
    Masters(Vec<Master>),
}

impl Discovered {
    /// Whether discovery has found anything. An empty answer says as little as none: no cluster is without masters.
    pub fn has_masters(&self) -> bool {
        match self {
            Self::Masters(masters) => !masters.is_empty(),
            Self::Off | Self::Unknown => false,
        }
    }
}

/// What is in force, as the ConfigMap has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The document, if there is one that can be read.
    pub document: Option<Document>,
    /// The members in force: the document's, or where that is lost the ones that the pool's status remembers.
    pub members: Vec<wire::Member>,
    /// What earlier passes have noted beside the document.
    pub marks: Marks,
    /// Why the document cannot be read though it is intact: a later release has written it, and this one must not write another
    /// over it.
    pub unreadable: Option<String>,
    /// What the document has besides, of a later release.
    pub later: Later,
    /// The revisions that are told for this pool, each with the place that tells it.
    pub told: Vec<(Cow<'static, str>, u64)>,
    /// The ConfigMap's resourceVersion.
    pub version: Option<String>,
    /// When the API server has created the ConfigMap, in Unix seconds; 0 if there is none.
    pub created: u64,
}

impl Current {
    /// Whether this member is in force, be it under another name.
    pub fn has(&self, other: &wire::Member) -> bool {
        self.members.iter().any(|member| {
            let mut addresses = member.addresses.iter();
            let is_same_server =
                member.port == other.port && addresses.any(|address| other.addresses.contains(address));
            member.name == other.name || is_same_server
        })
    }
}

/// What the operator notes beside the document, in the annotations of the ConfigMap: a restart keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The members that the spec listed with addresses. If no node backs such a member, its removal is an edit of the
    /// owner; otherwise the owner has returned it to discovery.
    pub explicit: BTreeSet<String>,
    /// The addresses that the spec listed of a member that it lists by a DNS name. While they are the same, it is no edit of
    /// the owner that makes an address go.
    pub named: BTreeMap<String, Vec<String>>,
    /// The last permission to shrink that has been used; empty if there was none.
    pub used_permission: String,
    /// The discovery of the last spec that was accepted: it goes on while a later spec is rejected. `None` beside a
    /// document of an earlier release, and where it cannot be read.
    pub discovery: Option<Discovery>,
    /// The notes that this release cannot read, by annotation: those of a later release. They are written back as they are
    /// until this release has something of its own to note there.
    pub unread: BTreeMap<String, String>,
}

impl Marks {
    /// Whether the discovery of the last accepted spec is noted, but cannot be read: it is not to be guessed then.
    pub fn has_unread_discovery(&self) -> bool {
        self.unread.contains_key(ACCEPTED_DISCOVERY)
    }
}

/// What passes tell each other. It is lost with the operator, which only makes the next one wait longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since when discovery's source is without a member that is still in force.
    pub absent: BTreeMap<String, Instant>,
    /// Which members discovery has removed, and when.
    pub removals: Vec<(wire::Member, Instant)>,
    /// The members that the last plan has removed because discovery dropped them. Whether the write arrived is seen in
    /// the next pass.
    pub leaving: Vec<wire::Member>,
    /// The last used permission, for the case that the ConfigMap is lost.
    pub used_permission: String,
    /// The highest revision this operator has decided on.
    pub revision: u64,
    /// The members and their states, and since which revision the document has them so.
    pub membership: Membership,
    /// Since when each endpoint of `default/kubernetes` is a further one.
    pub further: BTreeMap<SocketAddr, Instant>,
    /// Since when the operator reaches none of the members in force.
    pub unseen_since: Option<Instant>,
    /// The generation of the spec that the operator has rejected while it saw the members in force.
    pub judged: Option<i64>,
    /// The generation of the spec that the last pass was for.
    pub generation: Option<i64>,
    /// How long the proxies have been available with their template.
    pub soak: Soak,
    /// For how long this operator has looked.
    pub vigil: Vigil,
}

impl Memory {
    /// What still counts after a time in which no pass has looked. Whatever has to last began before it, and nobody knows
    /// whether it lasted: it begins anew.
    #[must_use]
    pub fn after_a_gap(self) -> Self {
        Self {
            absent: BTreeMap::new(),
            further: BTreeMap::new(),
            unseen_since: None,
            soak: Soak::default(),
            vigil: Vigil::default(),
            ..self
        }
    }
}
