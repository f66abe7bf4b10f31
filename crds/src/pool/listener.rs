//! Where the proxies of a pool accept: for clients of the apiservers, and of other servers of the members.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::APISERVER;

/// A local address and port on which each proxy accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolListener {
    /// Unique in the pool. The entry apiserver is for clients of the apiservers; an entry with another name is for clients
    /// of another server that runs on each master, such as konnectivity or the supervisor of RKE2.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// What clients of this listener reach. Apiserver, the kind of the entry apiserver alone: the apiservers. TLS: servers
    /// that are well while they complete a TLS handshake, with whatever certificate. HTTPS: servers that are well while they
    /// answer healthCheck.path with 2xx. Absent: Apiserver.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub kind: ListenerKind,
    /// Loopback addresses; ::1 is skipped on a node without IPv6.
    #[schemars(length(min = 1, max = 4), inner(length(min = 2, max = 45)))]
    #[serde(default = "loopback_addresses")]
    pub addresses: Vec<String>,
    /// The port, the same on every node. An entry beside apiserver must set it.
    #[schemars(range(min = 1024, max = 65535))]
    #[serde(default = "listener_port")]
    pub port: u16,
    /// The port on which the server listens that runs on each member's host, at the member's addresses. Only, and always,
    /// with kind TLS or HTTPS.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_port: Option<u16>,
    /// How connections are spread over the members. LeastConnections: to the one with the fewest, as for the apiservers, and
    /// by balancing.locality. Spread: to each in turn, whatever its connections and wherever it is, for agents that connect
    /// again until they have reached every server. Absent: LeastConnections.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub balancing: ListenerBalancing,
    /// What the servers are asked, at the times and with the thresholds of spec.healthCheck. Only with kind HTTPS; absent:
    /// the path /healthz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<ListenerHealthCheck>,
}

/// What clients of a listener reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerKind {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the kinds apart")]
    Apiserver,
    #[allow(missing_docs, reason = "the field's documentation tells the kinds apart")]
    #[serde(rename = "TLS")]
    Tls,
    #[allow(missing_docs, reason = "the field's documentation tells the kinds apart")]
    #[serde(rename = "HTTPS")]
    Https,
}

/// How the connections of a listener are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerBalancing {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    LeastConnections,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Spread,
}

/// What the servers behind a listener are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerHealthCheck {
    /// A path that the server answers with 2xx while it is well, without credentials.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^/[!-~]*$"))]
    #[serde(default = "check_path")]
    pub path: String,
}

impl Default for PoolListener {
    fn default() -> Self {
        Self {
            name: APISERVER.to_owned(),
            kind: ListenerKind::Apiserver,
            addresses: loopback_addresses(),
            port: listener_port(),
            member_port: None,
            balancing: ListenerBalancing::LeastConnections,
            health_check: None,
        }
    }
}

/// 6443 is the apiserver's own on masters, so the proxy there needs another.
fn listener_port() -> u16 {
    7443
}

fn loopback_addresses() -> Vec<String> {
    vec!["127.0.0.1".to_owned(), "::1".to_owned()]
}

fn check_path() -> String {
    crate::wire::DEFAULT_CHECK_PATH.to_owned()
}
