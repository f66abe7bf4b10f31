//! The `ApiserverPool`: one object that says which apiservers a cluster's nodes use, and how.
//!
//! `kubectl explain asp.spec` shows the field docs. Every field has a default, so that `spec: {}` is a working pool; those of
//! list entries are applied in code and not by the schema (see `crdgen`). Every rule is CEL in the schema: without a
//! webhook a pool can be edited whenever an apiserver answers.

mod affinity;
mod dns;
mod listener;
mod node_bootstrap;
mod proxy;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::affinity::{
    NodeSelectorOperator, ProxyAffinity, ProxyNodeAffinity, ProxyNodeSelector, ProxyNodeSelectorRequirement,
    ProxyNodeSelectorTerm,
};
pub use self::dns::{DnsExternal, DnsPolicy, DnsService, DnsStatus, PoolDns};
pub use self::listener::{ListenerBalancing, ListenerHealthCheck, ListenerKind, PoolListener};
pub use self::node_bootstrap::{BootstrapPolicy, NodeBootstrap};
pub use self::proxy::{LogFormat, LogLevel, MetricsExposure, NodeScope, ProxyMetrics, ProxyTemplate};

/// What the cluster's owner wants: which apiservers, how they are judged, and how the proxies run.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "trivet.dev",
    version = "v1alpha1",
    kind = "ApiserverPool",
    plural = "apiserverpools",
    shortname = "asp",
    category = "trivet",
    status = "ApiserverPoolStatus",
    derive = "PartialEq",
    doc = "ApiserverPool keeps every node of the cluster talking to a live apiserver: a small proxy on each node's loopback spreads connections over the pool's members and fails over in seconds. A pool decides over the path of every node to the control plane: grant its edit as you grant node administration.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Members",
        type_ = "string",
        description = "Healthy members of all active ones",
        json_path = ".status.membersSummary"
    ),
    printcolumn(
        name = "Proxies",
        type_ = "string",
        description = "Ready proxies of all desired ones",
        json_path = ".status.proxiesSummary"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Synced",
        type_ = "string",
        priority = 1,
        description = "Whether every proxy of a Ready node follows the newest document",
        json_path = ".status.conditions[?(@.type==\"ConfigSynced\")].status"
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        priority = 1,
        description = "What to write into a kubeconfig",
        json_path = ".status.endpoints[0]"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    )
)]
#[serde(rename_all = "camelCase", default)]
#[allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type of its own"
)]
pub struct ApiserverPoolSpec {
    /// Managed: the operator follows the spec. Paused: members and templates stay as they are, whatever the spec, the nodes or
    /// discovery say, while you repair something; a rollout that is under way goes to no further node, and comes back if it
    /// fails. Proxies go on, and so does the status.
    pub management: ManagementPolicy,
    /// Apiservers by name, merged over the discovered ones: an entry replaces the discovered member of the same name,
    /// and any that has the same address and port.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PoolMember>,
    /// Where further members come from.
    pub discovery: Discovery,
    /// Where the proxies accept on each node: the entry apiserver, and others for further servers of the members.
    #[schemars(length(min = 1, max = 8))]
    pub listeners: Vec<PoolListener>,
    /// How proxies choose among apiservers that are equally well.
    pub balancing: PoolBalancing,
    /// How each proxy judges each apiserver.
    pub health_check: PoolHealthCheck,
    /// How proxies open, keep and end connections.
    pub connection: PoolConnection,
    /// The proxies' pods.
    pub proxy: ProxyTemplate,
    /// How proxies are replaced.
    pub rollout: PoolRollout,
    /// How a node reaches the API before its kubelet knows the proxies' pods.
    pub node_bootstrap: NodeBootstrap,
    /// The names under which programs that do not use a node's proxy find the apiservers.
    pub dns: PoolDns,
}

/// Whether the operator follows the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagementPolicy {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Managed,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Paused,
}

/// One apiserver of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolMember {
    /// Unique in the pool. The name of a discovered member is that of its node.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// IP addresses or DNS names of the same apiserver, the preferred first; the operator resolves names. Without
    /// addresses the entry only overrides state and zone of the discovered member of that name.
    #[schemars(length(min = 1, max = 4), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The apiserver's port.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default = "apiserver_port")]
    pub port: u16,
    /// Active members get connections. Draining ones get new connections only while no Active one takes them, and their
    /// old ones are closed over connection.drainTimeoutSeconds. Disabled ones are not used: set it to retire a master that still runs.
    #[serde(default)]
    pub state: PoolMemberState,
    /// The failure domain, as topology.kubernetes.io/zone has it on nodes.
    #[schemars(length(max = 63))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// What the owner wants of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolMemberState {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Active,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Draining,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Disabled,
}

/// Where members come from besides spec.members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    /// Nodes: every control-plane node is a member, and where one does not answer at its InternalIP, the endpoints of the
    /// Service default/kubernetes that do. EndpointSlices: every endpoint of default/kubernetes is a member. None: only
    /// spec.members.
    pub policy: DiscoveryPolicy,
    /// Labels of the nodes that run an apiserver. Absent or empty: nodes with the label
    /// node-role.kubernetes.io/control-plane, or the older node-role.kubernetes.io/master.
    #[schemars(extend("maxProperties" = 16))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The port of apiservers that are discovered by their nodes. EndpointSlices name their own.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// How long a member must be gone from its source, without one verified answer, before it is removed.
    #[schemars(range(min = 5, max = 86400))]
    pub removal_delay_seconds: u32,
}

/// The source of members besides spec.members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryPolicy {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Nodes,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    EndpointSlices,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    None,
}

/// How proxies choose among apiservers that are equally well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolBalancing {
    /// Which of the apiservers that are equally well come first; among those that remain, the one with the least
    /// connections. Any, the default, spreads evenly; PreferLocal keeps a master's agents on its own apiserver while that
    /// is Up; PreferSameZone saves cross-zone traffic. PreferLocal takes the apiserver on the proxy's own node first, then
    /// those of the node's zone, then the others; PreferSameZone takes those of the node's zone first, its own among
    /// them, then the others. It never overrides health, and moves no open connection. A node's zone is its label
    /// topology.kubernetes.io/zone as it was when its proxy's pod was scheduled, which Kubernetes tells pods by default
    /// from 1.35 on; where it is unknown, zones make no difference.
    pub locality: Locality,
}

/// Which members proxies prefer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Locality {
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    PreferLocal,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    PreferSameZone,
    // Not PreferLocal: each master's agents would all depend on one apiserver, and notice every end of it.
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Any,
}

/// How each proxy judges each apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolHealthCheck {
    /// The name that the certificate of every apiserver must have: a DNS name or an IP address. Certificates of kubeadm,
    /// k3s and RKE2 have the name kubernetes.
    #[schemars(length(min = 1, max = 253))]
    pub tls_server_name: String,
    /// Time between two probes of one apiserver by one proxy; stretched to nodes/500 seconds, at most 15 s, in clusters
    /// where that is longer.
    #[schemars(range(min = 250, max = 15000))]
    pub period_milliseconds: u32,
    /// How long a probe may take before it counts as unanswered.
    #[schemars(range(min = 100, max = 15000))]
    pub timeout_milliseconds: u32,
    /// Unanswered probes in a row after which an apiserver is Down and its connections are closed.
    #[schemars(range(min = 1, max = 10))]
    pub failure_threshold: u32,
    /// Good probes in a row after which it gets connections again.
    #[schemars(range(min = 1, max = 10))]
    pub success_threshold: u32,
}

/// How proxies open, keep and end connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolConnection {
    /// How long one attempt to connect may take.
    #[schemars(range(min = 100, max = 10000))]
    pub connect_timeout_milliseconds: u32,
    /// How long to wait for one apiserver before the next one is tried beside it.
    #[schemars(range(min = 20, max = 5000))]
    pub hedge_delay_milliseconds: u32,
    /// How long what a probe sent may stay unacknowledged before its connection is closed (TCP_USER_TIMEOUT). Clients'
    /// connections have no such limit: the kernel would take an apiserver that pauses to read for a dead one.
    #[schemars(range(min = 1000, max = 60000))]
    pub user_timeout_milliseconds: u32,
    /// How long a connection may be idle before the kernel asks whether the peer lives (TCP_KEEPIDLE).
    #[schemars(range(min = 1, max = 300))]
    pub keep_alive_seconds: u32,
    /// How long the connections of a removed or draining member, or of a proxy that ends, are left.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: u32,
    /// Connections one proxy holds at most.
    #[schemars(range(min = 64, max = 262_144))]
    pub max_connections: u32,
}

/// How proxies are replaced: a new one starts beside the old one, on one node first and then on a part of the nodes at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolRollout {
    /// Automatic: a new template of the proxies serves one node first, then the others, and the last good one comes back by
    /// itself where the new one fails. Paused: no new template begins, and one that has not begun to serve does not.
    pub policy: RolloutPolicy,
    /// On how many nodes at once: a number, or a percentage of the nodes that have a proxy, rounded up.
    #[schemars(
        length(min = 1, max = 5),
        regex(pattern = "^([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$")
    )]
    pub max_parallel: String,
    /// How long a new proxy must be ready before the old one of its node is deleted and the next node follows.
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: u32,
    /// After how long without progress, beyond minReadySeconds, a rollout has failed.
    #[schemars(range(min = 60, max = 86400))]
    pub progress_deadline_seconds: u32,
}

/// Whether new templates of the proxies are rolled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPolicy {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Automatic,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Paused,
}

/// What runs for the pool, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiserverPoolStatus {
    /// The generation of the spec that this status speaks of.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready (the summary), Accepted (the spec is obeyed), MembersAvailable (every active member is Up on every node),
    /// ProxiesAvailable (every node that should have a proxy has a ready one), ConfigSynced (every proxy of a Ready node
    /// follows the document configRevision), MembersDrained (no member that drains, is disabled or was removed has a client
    /// left), CertificateMatches (the apiservers' certificates are valid and cover the listeners), Progressing (proxies and
    /// standbys are as the spec wants them, or on their way there), and with spec.dns DNSPublished (the names are published as
    /// the spec wants them).
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The members in force.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Healthy members of all active ones, such as 3/3.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub members_summary: String,
    /// The proxies' pods, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxiesStatus>,
    /// Ready proxies of all desired ones, such as 5/5.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proxies_summary: String,
    /// What to write into a kubeconfig on the nodes.
    #[schemars(length(max = 4), inner(length(max = 64)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The revision of the configuration that the operator last wrote for the proxies.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_revision: Option<i64>,
    /// What is published by spec.dns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
}

/// One member as the operator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The member's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its addresses, resolved.
    #[schemars(length(max = 4), inner(length(max = 45)))]
    pub addresses: Vec<String>,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Where it comes from.
    pub source: MemberSource,
    /// The node it runs on, where known.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// Its failure domain, where known.
    #[schemars(length(max = 63))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// What the owner wants of it.
    pub state: PoolMemberState,
    /// What most nodes see that report, or where none does, the operator's own probe. Each proxy judges for itself.
    pub health: MemberHealth,
    /// The release that its apiserver names; absent where it names none to strangers.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Ready nodes whose proxies have had a verified answer from it at the last probe.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub reachable_nodes: i32,
    /// Ready nodes whose proxies report it.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub reporting_nodes: i32,
    /// When health last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why it is not Up, or why it is kept.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a member comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words say it")]
pub enum MemberSource {
    Spec,
    Node,
    EndpointSlice,
}

/// What a probe says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "docs/operations.md explains the states")]
pub enum MemberHealth {
    Up,
    Unready,
    Down,
    Unknown,
}

/// Counts of the proxies' pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxiesStatus {
    /// Nodes that should have a proxy.
    #[schemars(range(min = 0))]
    pub desired: i32,
    /// Proxies that are ready.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Proxies of the newest template.
    #[schemars(range(min = 0))]
    pub updated: i32,
    /// Ready nodes whose proxy follows the document configRevision.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub synced: i32,
    /// Nodes without an available proxy.
    #[schemars(range(min = 0))]
    pub unavailable: i32,
}

fn apiserver_port() -> u16 {
    6443
}

impl Default for ApiserverPoolSpec {
    fn default() -> Self {
        Self {
            management: ManagementPolicy::Managed,
            members: Vec::new(),
            discovery: Discovery::default(),
            listeners: vec![PoolListener::default()],
            balancing: PoolBalancing::default(),
            health_check: PoolHealthCheck::default(),
            connection: PoolConnection::default(),
            proxy: ProxyTemplate::default(),
            rollout: PoolRollout::default(),
            node_bootstrap: NodeBootstrap::default(),
            dns: PoolDns::default(),
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            policy: DiscoveryPolicy::Nodes,
            node_selector: BTreeMap::new(),
            port: apiserver_port(),
            removal_delay_seconds: 300,
        }
    }
}

impl Default for PoolHealthCheck {
    fn default() -> Self {
        Self {
            tls_server_name: "kubernetes".to_owned(),
            period_milliseconds: 1000,
            timeout_milliseconds: 1000,
            failure_threshold: 2,
            success_threshold: 2,
        }
    }
}

impl Default for PoolConnection {
    fn default() -> Self {
        Self {
            connect_timeout_milliseconds: 1000,
            hedge_delay_milliseconds: 250,
            user_timeout_milliseconds: 5000,
            keep_alive_seconds: 5,
            drain_timeout_seconds: 60,
            max_connections: 16384,
        }
    }
}

impl Default for PoolRollout {
    fn default() -> Self {
        Self {
            policy: RolloutPolicy::Automatic,
            max_parallel: "10%".to_owned(),
            min_ready_seconds: 5,
            progress_deadline_seconds: 600,
        }
    }
}
