//! The ProxyReport: what the proxy of one node says about itself, one object for each pool and node.
//!
//! `kubectl get apr` answers which node cannot reach which apiserver, and which node has no standby. The proxy that serves
//! writes it by server-side apply; the operator reads it, and deletes it once its node or its pool is gone.

#[cfg(test)]
mod fence;
mod member;
#[cfg(feature = "crd")]
mod object;
pub mod usage;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::member::{
    CertificateState, LastAnswer, MAX_UNCOVERED, ReportedCertificate, ReportedHealth, ReportedMember,
    ReportedStanding,
};
#[cfg(feature = "crd")]
pub use self::object::ProxyReport;
use crate::GROUP;

/// The version of the API.
pub const VERSION: &str = "v1alpha1";

/// The kind of the objects.
pub const KIND: &str = "ProxyReport";

/// Their name in paths of the API.
pub const PLURAL: &str = "proxyreports";

/// The most members in a report.
pub const MAX_MEMBERS: usize = 64;

/// The most listeners in a report.
pub const MAX_LISTENERS: usize = 16;

/// The most warnings in a report.
pub const MAX_WARNINGS: usize = 16;

/// The longest message in a report, in characters.
pub const MAX_MESSAGE: usize = 512;

/// The longest overview of the members, in characters.
pub const MAX_OVERVIEW: usize = 256;

/// How old a report becomes at most while its proxy can write it: three times the longest interval between two writes.
/// An older one says that no proxy reports, and nothing about the standby.
pub const STALE_AFTER_INTERVALS: u64 = 3;

/// A proxy that has had no client for this long reports at once when one comes, in seconds. So a longer idle time in a report
/// still holds while no later report is there.
pub const RESTS_AFTER_SECONDS: u32 = 60;

/// The reason of the warning of a proxy that has no file left, and so accepts no client.
pub const FILES_EXHAUSTED: &str = "FilesExhausted";

/// The reason of the warning of a proxy that no other process of its node can meet.
pub const HANDOVER_PATH_UNWRITABLE: &str = "HandoverPathUnwritable";

/// The reason of the warning of a proxy that does not see which connections the other processes of its node have.
pub const ELSEWHERE_UNKNOWN: &str = "OtherConnectionsUnknown";

/// The shortest interval between two reports without a change, in seconds.
const INTERVAL_SECONDS: u64 = 300;

/// The writes of all reports of a cluster in a second, on average, where proxies take turns. At most 50 are to fall into one second,
/// and proxies choose their turns by chance: of 5,000 with an average of 25, up to 50 did in the worst of 120,000 seconds.
const WRITES_A_SECOND: u64 = 20;

/// The largest fleet whose proxies write whenever they have something to say: all of them together are 50 writes.
const WITHOUT_TURNS: u32 = 50;

/// The longest name of an object.
const MAX_NAME: usize = 253;

/// The time in which each proxy of a cluster of this many nodes has one turn to write its report, so that the whole fleet writes at
/// most 50 times a second, whatever happens. Zero where proxies need no turns.
pub fn cycle(nodes: u32) -> Duration {
    if nodes <= WITHOUT_TURNS {
        return Duration::ZERO;
    }
    Duration::from_millis(u64::from(nodes).saturating_mul(1000).div_ceil(WRITES_A_SECOND))
}

/// The longest interval between two reports of a node without a change, in a cluster of this many nodes: at least every second
/// turn, so that a fleet at rest writes half as often as one that has something to say.
pub fn interval_seconds(nodes: u32) -> u64 {
    INTERVAL_SECONDS.max(cycle(nodes).as_secs().saturating_add(1).saturating_mul(2))
}

/// What a proxy says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportContent {
    /// The name of the pool.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 40)))]
    pub pool_name: String,
    /// The name of the proxy's node.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub node_name: String,
    /// The release of the proxy.
    #[cfg_attr(feature = "crd", schemars(length(max = 64)))]
    #[serde(default)]
    pub proxy_version: String,
    /// The hash of the pod template of the proxy that serves; empty where it has none.
    #[cfg_attr(feature = "crd", schemars(length(max = 63)))]
    #[serde(default)]
    pub template: String,
    /// The revision of the wire document that the proxy follows. 0 while it has none, before the API has told it which document
    /// it has, and while that one is of another authority: then one of the two documents is of another cluster.
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 1_099_511_627_775_u64)))]
    #[serde(default)]
    pub revision: u64,
    /// Serving: this proxy accepts connections. Standby: it holds the listeners for another process that serves.
    #[serde(default)]
    pub role: ProxyRole,
    /// Whether another process of the node takes over when this one ends. Ready: it knows what this one knows. Stale: it
    /// runs, but does not know the newest document. Absent: there is none.
    #[serde(default)]
    pub standby: StandbyState,
    /// Where the proxy accepts.
    #[cfg_attr(feature = "crd", schemars(length(max = 16)))]
    #[serde(default)]
    pub listeners: Vec<ReportedListener>,
    /// The members as this node reaches them.
    #[cfg_attr(feature = "crd", schemars(length(max = 64)))]
    #[serde(default)]
    pub members: Vec<ReportedMember>,
    /// Members that are Up, of all active ones.
    #[cfg_attr(feature = "crd", schemars(length(max = 16)))]
    #[serde(default)]
    pub members_summary: String,
    /// The same, with the names of those that are not Up.
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub members_overview: String,
    /// The connections of clients when the report was written. A report is not written for a change of this count.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default)]
    pub connections: u32,
    /// How long no client has connected or been connected, in seconds, when the report was written. 0 while one is, and from a
    /// proxy of an earlier release. A report is written when this passes 60, and when a client comes after that.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default)]
    pub idle_seconds: u32,
    /// The open files of the proxy when the report was written. A report is written when they exceed what
    /// the connections explain, and at each doubling of that.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default)]
    pub open_files: u32,
    /// The memory of the proxy when the report was written, in MiB: its resident set. 0 if it is not known. A report is
    /// written for it as for open files.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default)]
    pub memory_mebibytes: u32,
    /// Lasting problems of this proxy that an administrator should repair, such as a cache that cannot be written.
    #[cfg_attr(feature = "crd", schemars(length(max = 16)))]
    #[serde(default)]
    pub warnings: Vec<ReportedWarning>,
    /// When the proxy has written this, by the clock of its node.
    #[cfg_attr(
        feature = "crd",
        schemars(length(max = 40), extend("format" = "date-time"))
    )]
    pub observed_time: String,
}

/// The part of a proxy on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ProxyRole {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the roles apart")]
    Serving,
    #[allow(missing_docs, reason = "the field's documentation tells the roles apart")]
    Standby,
}

/// Whether another process of the node can take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum StandbyState {
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Ready,
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Absent,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Stale,
}

impl StandbyState {
    /// The word in the API and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Absent => "Absent",
            Self::Stale => "Stale",
        }
    }
}

/// A listener of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedListener {
    /// IP and port.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub address: String,
    /// Its name in the pool; absent from a proxy of an earlier release.
    #[cfg_attr(feature = "crd", schemars(length(max = 253)))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_name: String,
    /// Listening, or Failed with a message.
    pub state: ListenerState,
    /// Why the proxy cannot listen there, such as the program that has the port.
    #[cfg_attr(feature = "crd", schemars(length(max = 512)))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether a proxy listens on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ListenerState {
    #[allow(missing_docs, reason = "the words say it")]
    Listening,
    #[allow(missing_docs, reason = "the words say it")]
    Failed,
}

/// A lasting problem of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedWarning {
    /// What is wrong, in one word.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub reason: String,
    /// What is wrong, and the remedy.
    #[cfg_attr(feature = "crd", schemars(length(max = 512)))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl ReportContent {
    /// The whole object, as it is applied.
    pub fn object(&self) -> Result<serde_json::Value, serde_json::Error> {
        let mut object = serde_json::json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": { "name": name(&self.pool_name, &self.node_name) },
        });
        if let (serde_json::Value::Object(object), serde_json::Value::Object(fields)) =
            (&mut object, serde_json::to_value(self)?)
        {
            object.extend(fields);
        }
        Ok(object)
    }
}

/// The name of the report of this pool and node: `<pool>.<node>`, or where that is too long its beginning and a hash of
/// the whole.
pub fn name(pool: &str, node: &str) -> String {
    let whole = format!("{pool}.{node}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    let hash = Sha256::digest(&whole)
        .iter()
        .take(5)
        .fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    let hash = format!("{hash:010x}");
    let kept: String = whole.chars().take(MAX_NAME - hash.len() - 1).collect();
    // No label of a name begins or ends with a hyphen.
    format!("{}-{hash}", kept.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_253_characters_and_tells_nodes_apart() {
        assert_eq!(name("default", "w1.example.com"), "default.w1.example.com");
        let pool = "p".repeat(40);
        let node = |end: &str| format!("{}{end}", "n.".repeat(126));
        let (one, other) = (name(&pool, &node("a")), name(&pool, &node("b")));
        assert_ne!(one, other);
        for long in [one, other] {
            assert!(
                long.len() <= MAX_NAME && long.starts_with(&format!("{pool}.n.")),
                "{long}"
            );
        }
    }

    #[test]
    fn a_fleet_writes_20_times_a_second_on_average_and_half_as_often_at_rest() {
        for nodes in [51_u32, 500, 5_000, 7_501, 20_000, 1_000_000] {
            let writes = f64::from(nodes) / cycle(nodes).as_secs_f64();
            assert!((19.9..=20.0).contains(&writes), "{nodes}: {writes}");
            assert!(interval_seconds(nodes) >= 2 * cycle(nodes).as_secs(), "{nodes}");
        }
        assert_eq!((cycle(50), interval_seconds(50)), (Duration::ZERO, 300));
        assert_eq!((cycle(5_000).as_secs(), interval_seconds(5_000)), (250, 502));
    }
}
