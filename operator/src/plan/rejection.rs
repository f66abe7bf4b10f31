//! Specs that are well formed but cannot be obeyed. Each message ends with the way out.

use std::collections::BTreeSet;

/// Why a spec is not obeyed. What was in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another pool has the listener.
    #[error(
        "{what} is already used by {holder}; give this pool another port, or remove the other pool and its objects"
    )]
    Conflict {
        /// The address and port.
        what: String,
        /// Who has it.
        holder: String,
    },
    /// The edit removes members, and none that answers would be left.
    #[error(
        "without {} no active member would be ready as seen from the operator and from most nodes: \
         correct spec.members, or set the annotation trivet.dev/allow-shrink to this object's generation", withdrawn.join(", ")
    )]
    NoHealthyMember {
        /// The members that would go.
        withdrawn: Vec<String>,
    },
    /// No certificate of a member in force has the name.
    #[error(
        "healthCheck.tlsServerName {name:?} verifies no member, and {in_force:?}, which is in force, does ({why}): set a name \
         that the members' certificates have, or issue these with the name first"
    )]
    ServerName {
        /// The name that the spec asks for.
        name: String,
        /// The name in force.
        in_force: String,
        /// What a member's certificate is like.
        why: String,
    },
    /// No member can be used.
    #[error(
        "the pool has no member to use{}; label the control-plane nodes, correct discovery.nodeSelector, list \
         members with addresses in spec.members, or make one Active",
        detail(notes)
    )]
    NoMembers {
        /// What was left out.
        notes: Vec<String>,
    },
    /// Most likely a selector that matches workers.
    #[error("{found} members are more than the 64 a pool may have; narrow discovery.nodeSelector")]
    TooManyMembers {
        /// How many there would be.
        found: usize,
    },
    /// The edit takes proxies from nodes that have one.
    #[error(
        "spec.proxy would take the proxy from {} that {} one ({}), and kubelets may reach the API only through it: \
         correct nodeScope, nodeSelector or tolerations, or set the annotation \
         trivet.dev/allow-scope-shrink to this object's generation; if the pool has standbys, set nodeBootstrap.policy to None \
         first, because nobody updates or removes the standby of a node outside the scope", counted(nodes.len()),
        have(nodes.len()), some(nodes)
    )]
    ScopeWouldShrink {
        /// The nodes that would lose their proxy.
        nodes: BTreeSet<String>,
    },
    /// The edit changes which nodes have a proxy, and which those are cannot be told.
    #[error(
        "spec.proxy changes which nodes have a proxy, and the operator cannot read the nodes or the proxies' pods, so it \
         cannot tell which nodes would lose theirs, and waits until it can: see the operator's log, or set the \
         annotation trivet.dev/allow-scope-shrink to this object's generation"
    )]
    NodesUnknown,
    /// An apiserver of a node with a proxy, or a server beside it, listens on a port of the proxies.
    #[error(
        "{field} is {port}, on which {server} of member {member} listens on node {node}, which is in the scope of this \
         pool; give the proxies another port, or set spec.proxy.nodeScope to WorkersOnly"
    )]
    PortOfApiserver {
        /// The field with the port.
        field: &'static str,
        /// The port.
        port: u16,
        /// What listens there: the apiserver, or a server beside it.
        server: &'static str,
        /// The node with both.
        node: String,
        /// The apiserver.
        member: String,
    },
    /// The document in force cannot be read, and is intact.
    #[error(
        "the document in force, in ConfigMap {name}, is of a later release and cannot be read ({why}): upgrade the operator to \
         that release; if there is none, remove the key pool.json from that ConfigMap, and this operator makes a document of \
         spec.members, discovery and status"
    )]
    DocumentUnreadable {
        /// The ConfigMap.
        name: String,
        /// Why not.
        why: String,
    },
    /// A value that the API server should have refused, on a cluster whose CRD is older than this operator.
    #[error("{field} {value:?} {rule}")]
    Invalid {
        /// Its path.
        field: &'static str,
        /// The value.
        value: String,
        /// What it breaks.
        rule: &'static str,
    },
}

impl Rejection {
    /// One fixed word for the condition, the event and the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "ListenerConflict",
            Self::NoHealthyMember { .. } => "NoHealthyMember",
            Self::ServerName { .. } => "Untrusted",
            Self::NoMembers { .. } => "NoMembers",
            Self::TooManyMembers { .. } => "TooManyMembers",
            Self::ScopeWouldShrink { .. } => "ScopeWouldShrink",
            Self::NodesUnknown => "NodesUnknown",
            Self::PortOfApiserver { .. } => "PortOfApiserver",
            Self::DocumentUnreadable { .. } => "DocumentUnreadable",
            Self::Invalid { .. } => "Invalid",
        }
    }
}

fn detail(notes: &[String]) -> String {
    if notes.is_empty() {
        String::new()
    } else {
        format!(" ({})", notes.join("; "))
    }
}

/// A message names up to this many nodes.
const NAMED_NODES: usize = 5;

fn counted(nodes: usize) -> String {
    match nodes {
        1 => "1 node".to_owned(),
        _ => format!("{nodes} nodes"),
    }
}

fn have(nodes: usize) -> &'static str {
    if nodes == 1 { "has" } else { "have" }
}

fn some(nodes: &BTreeSet<String>) -> String {
    let named: Vec<_> = nodes.iter().take(NAMED_NODES).map(String::as_str).collect();
    let more = if nodes.len() > NAMED_NODES { ", ..." } else { "" };
    format!("{}{more}", named.join(", "))
}
