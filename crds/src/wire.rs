//! The wire document: the configuration that the operator writes for all proxies of a pool, as one JSON text in one
//! ConfigMap.
//!
//! It holds IP addresses only, so a proxy needs no DNS. It is complete, so there is no half-applied state. It carries a
//! revision that only grows and a hash of its content. Unknown fields are ignored but hashed, so a proxy reads the
//! documents of the next minor release.

mod bounds;
mod gate;
mod later;
mod listeners;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::bounds::Violation;
pub use self::bounds::{
    MAX_ADDRESSES, MAX_ADVANCE_SECONDS, MAX_AHEAD_SECONDS, MAX_DISABLED, MAX_FURTHER_ENDPOINTS,
    MAX_GATE_NODES, MAX_LISTENERS, MAX_MEMBERS, MAX_REVISION, is_reachable,
};
pub use self::gate::{Gate, GatePolicy};
pub use self::later::Later;
pub use self::listeners::{
    APISERVER, DEFAULT_CHECK_PATH, Listener, ListenerBalancing, ListenerHealthCheck, ListenerKind,
    unknown_listeners,
};

/// The version of the document that this release writes and reads.
pub const API_VERSION: &str = "trivet.dev/wire/v1alpha1";

/// The key of the document in its ConfigMap, and its file name where the ConfigMap is mounted.
pub const KEY: &str = "pool.json";

/// One revision of the configuration of a pool's proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Always [`API_VERSION`] in a document that parses.
    pub api_version: String,
    /// The pool's name.
    pub pool: String,
    /// Grows with every change; a proxy never goes back. Unix seconds or a little more, at most [`MAX_REVISION`] and ten
    /// years ahead of the clock, see [`Document::check_revision`].
    pub revision: u64,
    /// `sha256:` and the hash of all other fields, see [`Document::seal`]. A document without a hash is accepted, because
    /// people write documents by hand.
    #[serde(default)]
    pub hash: String,
    /// The apiservers, 1 to [`MAX_MEMBERS`], each name once.
    pub members: Vec<Member>,
    /// The disabled members, at most [`MAX_DISABLED`]. They are none of [`Document::members`], and unlike those that were
    /// removed they serve no connection even as the last resort.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled_members: Vec<DisabledMember>,
    /// Endpoints of `default/kubernetes` that are no address of a member, at most [`MAX_FURTHER_ENDPOINTS`]: where an
    /// apiserver may be when no member answers any more. A proxy uses one only after a verified answer from it, and none of a
    /// disabled member. Absent in documents of older releases, and older proxies ignore it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_endpoints: Vec<SocketAddr>,
    /// Where proxies accept, 1 to [`MAX_LISTENERS`], at least one of them of kind `Apiserver`. Entries of a kind that this
    /// release does not know are left out, see [`unknown_listeners`]; releases without extra listeners leave these out.
    #[serde(deserialize_with = "listeners::of_known_kind")]
    pub listeners: Vec<Listener>,
    /// Which members a proxy prefers among those in the same state. Absent in documents of older releases.
    #[serde(default)]
    pub balancing: Balancing,
    /// How proxies judge members.
    pub health_check: HealthCheck,
    /// How proxies open, keep and end connections.
    pub connection: Connection,
    /// Nodes in the cluster. Each proxy of a larger cluster probes more rarely.
    pub nodes: u32,
    /// How to verify the members' certificates.
    pub tls: Tls,
    /// Which proxies should serve. Absent in documents of older releases, and in those that people write by hand.
    #[serde(default, skip_serializing_if = "RolloutTarget::is_unknown")]
    pub rollout: RolloutTarget,
}

/// One apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Unique in its document, 1 to 253 bytes; the `member` label of the proxies' metrics.
    pub name: String,
    /// 1 to [`MAX_ADDRESSES`] addresses of the same apiserver, the preferred first.
    pub addresses: Vec<IpAddr>,
    /// TCP port, never 0.
    pub port: u16,
    /// Whether new connections may go there.
    pub state: MemberState,
    /// The failure domain; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The node it runs on, by which that node's proxy recognises its local member; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
}

/// The desired state of a member. A disabled one is a [`DisabledMember`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Gets new connections.
    Active,
    /// Gets no new connection; the old ones are given [`Connection::drain_timeout_seconds`].
    Draining,
}

/// An apiserver that no proxy may use. Proxies know it by its name too, because an earlier document may have other addresses
/// of it, such as those from before an edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisabledMember {
    /// 1 to 253 bytes, and no member's name.
    pub name: String,
    /// Where it listens now, at most [`MAX_ADDRESSES`], none of them a member's; empty if unknown. An earlier document may
    /// have another name for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SocketAddr>,
}

/// How a proxy chooses among members in the same state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancing {
    /// Which members come first.
    #[serde(default)]
    pub locality: Locality,
}

/// Which members a proxy prefers among those in the same state. It never overrides health, so an unknown value of a later
/// release reads as [`Locality::Any`]: connections spread evenly, which is safe, and the rest of the document is
/// followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locality {
    /// The member on the proxy's own node, then those of the node's zone, then the others.
    PreferLocal,
    /// Those of the node's zone, the node's own among them, then the others.
    PreferSameZone,
    /// No preference: connections spread evenly.
    #[default]
    #[serde(other)]
    Any,
}

/// How a proxy judges its upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Time between two probes of one upstream, stretched with [`Document::nodes`]; never 0.
    pub period_milliseconds: u32,
    /// How long a probe may take; at most the period, never 0.
    pub timeout_milliseconds: u32,
    /// Silent probes in a row that make an upstream Down; never 0.
    pub failure_threshold: u32,
    /// Good probes in a row that bring an upstream back; never 0.
    pub success_threshold: u32,
}

/// How a proxy opens, keeps and ends connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// How long one dial may take; never 0.
    pub connect_timeout_milliseconds: u32,
    /// How long to wait for one upstream before the next is tried beside it; never 0.
    pub hedge_delay_milliseconds: u32,
    /// `TCP_USER_TIMEOUT` of probe sockets: how long sent bytes may stay unacknowledged. Never 0, which would mean the
    /// kernel's default of about 15 minutes.
    pub user_timeout_milliseconds: u32,
    /// `TCP_KEEPIDLE` of upstream sockets; never 0.
    pub keep_alive_seconds: u32,
    /// Over which time the connections of a removed or draining member, or of a proxy that ends, are closed. 0: at once.
    pub drain_timeout_seconds: u32,
    /// The most connections that a proxy holds; never 0.
    pub max_connections: u32,
}

/// How a proxy verifies the members' certificates when it probes them. Clients verify for themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The certificates of the cluster's authorities, PEM.
    pub ca_bundle: String,
    /// The name that every member's certificate covers (`kubernetes`).
    pub server_name: String,
}

/// Which of a node's proxies should serve: while a DaemonSet rolls out, or rolls back, a node has more than one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutTarget {
    /// The hash of the pods' template, as the label [`crate::TEMPLATE_LABEL`] of the pods has it, at most 63 bytes; empty if
    /// it is unknown. The generation of a template cannot replace it: it grows with a roll-back too, and begins anew with
    /// a recreated DaemonSet.
    #[serde(default)]
    pub template: String,
    /// Where pods of this template may take from the proxy that serves. Absent in documents of older releases, which means
    /// everywhere.
    #[serde(default, skip_serializing_if = "Gate::says_nothing")]
    pub gate: Gate,
}

impl RolloutTarget {
    /// Whether nothing is asked of the proxies.
    pub fn is_unknown(&self) -> bool {
        self.template.is_empty() && self.gate.says_nothing()
    }

    /// Whether pods of the named template wait on this node. A gate without a template says nothing: it would be nobody's.
    pub fn is_closed_at(&self, node: &str) -> bool {
        !self.template.is_empty() && !self.gate.admits(node)
    }
}

/// Why a text is rejected. The last good document stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a field is missing or of the wrong kind.
    #[error("wire document cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// Written in a version that this release cannot read.
    #[error("wire document has apiVersion {found:?}, this release reads {API_VERSION:?}")]
    UnsupportedVersion {
        /// What the document says, empty if nothing.
        found: String,
    },
    /// The content differs from what was sealed: torn or edited by hand.
    #[error("wire document of revision {revision} says hash {stated:?} but its content has {actual:?}")]
    HashMismatch {
        /// The document's revision.
        revision: u64,
        /// The hash in the document.
        stated: String,
        /// The hash of its content.
        actual: String,
    },
    /// A value outside its bounds.
    #[error("wire document of revision {revision}: {field} is {value}: {rule}")]
    Invalid {
        /// The document's revision.
        revision: u64,
        /// The path of the field.
        field: String,
        /// Its value, or the number of its items.
        value: String,
        /// The bound that it breaks, and the way out.
        rule: String,
    },
}

impl Error {
    /// One fixed word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed",
            Self::UnsupportedVersion { .. } => "UnsupportedVersion",
            Self::HashMismatch { .. } => "HashMismatch",
            Self::Invalid { .. } => "Invalid",
        }
    }
}

impl Member {
    /// Where its apiserver listens, the preferred address first.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets_at(self.port)
    }

    /// Where another server of its host listens at this port, the preferred address first.
    pub fn sockets_at(&self, port: u16) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
    }
}

impl Document {
    /// The listeners for clients of the apiservers.
    pub fn apiserver_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| !listener.is_extra())
    }

    /// The listeners for clients of other servers of the members.
    pub fn extra_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| listener.is_extra())
    }

    /// Reads a document and verifies what a proxy relies on: version, hash, and the bounds of every field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text)?;
        let found = value
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if found != API_VERSION {
            return Err(Error::UnsupportedVersion {
                found: found.to_owned(),
            });
        }
        let actual = content_hash(&value);
        let sealed = value.get("hash").is_some();
        let mut document: Self = serde_json::from_value(value)?;
        if !sealed {
            document.hash.clone_from(&actual);
        }
        if document.hash != actual {
            return Err(Error::HashMismatch {
                revision: document.revision,
                stated: document.hash,
                actual,
            });
        }
        bounds::check(&document).map_err(|violation| document.invalid(violation))?;
        Ok(document)
    }

    /// Whether a text has the hash of its content: then it is neither torn nor edited by hand, whichever release has written it,
    /// and whether or not this one can read it.
    pub fn is_intact(text: &str) -> bool {
        let value: Option<Value> = serde_json::from_str(text).ok();
        value.is_some_and(|value| value.get("hash").and_then(Value::as_str) == Some(&content_hash(&value)))
    }

    /// Checks the rule that needs a clock: the revision is at most [`MAX_AHEAD_SECONDS`] ahead of `now`, in Unix seconds.
    /// A clock that may be at 1970 is replaced by the time of the build, so pass the later of the two.
    pub fn check_revision(&self, now: u64) -> Result<(), Error> {
        bounds::check_revision(self.revision, now).map_err(|violation| self.invalid(violation))
    }

    fn invalid(&self, Violation { field, value, rule }: Violation) -> Error {
        Error::Invalid {
            revision: self.revision,
            field,
            value,
            rule,
        }
    }

    /// The document with the hash of its content. Every later change needs a new seal.
    pub fn seal(mut self) -> Result<Self, Error> {
        self.hash = content_hash(&serde_json::to_value(&self)?);
        Ok(self)
    }

    /// The text for the ConfigMap: stable, and indented for human readers.
    pub fn to_text(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Whether `other` has the same content apart from revision and hash.
    pub fn same_content(&self, other: &Self) -> bool {
        let plain = |document: &Self| Self {
            revision: 0,
            hash: String::new(),
            ..document.clone()
        };
        plain(self) == plain(other)
    }
}

/// The hash of all fields except `hash`, known and unknown, independent of their order in the text.
pub fn content_hash(value: &Value) -> String {
    let mut canonical = String::new();
    write_canonical(value, &mut canonical, true);
    format!("sha256:{:x}", Sha256::digest(canonical))
}

/// JSON with sorted keys and no blanks. The keys are sorted here because serde_json keeps the order of the text if any
/// crate of the build enables `preserve_order`.
fn write_canonical(value: &Value, out: &mut String, is_document: bool) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .filter(|(key, _)| !(is_document && *key == "hash"))
                .collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, field) in fields {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(field, out, false);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out, false);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn document() -> Document {
        Document {
            api_version: API_VERSION.to_owned(),
            pool: "default".to_owned(),
            revision: 7,
            hash: String::new(),
            members: vec![Member {
                name: "cp1".to_owned(),
                addresses: vec!["10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap()],
                port: 6443,
                state: MemberState::Active,
                zone: String::new(),
                node_name: String::new(),
            }],
            disabled_members: Vec::new(),
            further_endpoints: Vec::new(),
            listeners: vec![Listener::apiserver(
                vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
                7443,
            )],
            balancing: Balancing::default(),
            health_check: HealthCheck {
                period_milliseconds: 1000,
                timeout_milliseconds: 1000,
                failure_threshold: 2,
                success_threshold: 2,
            },
            connection: Connection {
                connect_timeout_milliseconds: 1000,
                hedge_delay_milliseconds: 250,
                user_timeout_milliseconds: 5000,
                keep_alive_seconds: 5,
                drain_timeout_seconds: 60,
                max_connections: 16384,
            },
            nodes: 5,
            tls: Tls {
                ca_bundle: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
                server_name: "kubernetes".to_owned(),
            },
            rollout: RolloutTarget {
                template: "0123456789".to_owned(),
                gate: Gate::default(),
            },
        }
        .seal()
        .unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let written = document();
        assert_eq!(Document::parse(&written.to_text().unwrap()).unwrap(), written);
    }

    #[test]
    fn fields_of_a_later_release_are_tolerated_but_hashed() {
        let mut value = serde_json::to_value(document()).unwrap();
        value["members"][0]["weight"] = 3.into();
        let stale = Document::parse(&value.to_string()).unwrap_err();
        assert_eq!(stale.reason(), "HashMismatch");
        value["hash"] = content_hash(&value).into();
        assert_eq!(
            Document::parse(&value.to_string()).unwrap().members,
            document().members
        );
    }

    /// The sealed text of the document with a change that the types cannot express.
    pub(super) fn edited(change: impl FnOnce(&mut Value)) -> String {
        let mut value = serde_json::to_value(document()).unwrap();
        change(&mut value);
        value["hash"] = content_hash(&value).into();
        value.to_string()
    }

    #[test]
    fn a_document_of_a_release_without_locality_is_followed_and_spreads_evenly() {
        let text = edited(|value| {
            value.as_object_mut().unwrap().remove("balancing");
        });
        let old = Document::parse(&text).unwrap();
        assert_eq!(old.balancing.locality, Locality::Any);
        assert!(
            old.same_content(&document()),
            "an upgrade alone is no new revision"
        );
    }

    #[test]
    fn every_locality_reads_back_and_one_of_a_later_release_spreads_evenly() {
        for (word, locality) in [
            ("PreferLocal", Locality::PreferLocal),
            ("PreferSameZone", Locality::PreferSameZone),
            ("Any", Locality::Any),
            ("PreferSameRack", Locality::Any),
        ] {
            let read =
                Document::parse(&edited(|value| value["balancing"]["locality"] = word.into())).unwrap();
            assert_eq!(read.balancing.locality, locality, "{word}");
        }
        let bare = Document::parse(&edited(|value| value["balancing"] = serde_json::json!({}))).unwrap();
        assert_eq!(bare.balancing.locality, Locality::Any);
    }

    #[test]
    fn a_locality_that_is_no_word_is_malformed() {
        let text = edited(|value| value["balancing"]["locality"] = 3.into());
        assert_eq!(Document::parse(&text).unwrap_err().reason(), "Malformed");
    }

    #[test]
    fn a_document_without_a_gate_lets_every_pod_take_and_an_open_gate_is_not_written() {
        let text = document().to_text().unwrap();
        assert!(
            !text.contains("gate"),
            "an upgrade alone is no new revision: {text}"
        );
        assert!(!Document::parse(&text).unwrap().rollout.is_closed_at("w1"));
    }

    #[test]
    fn a_gate_closes_nodes_to_the_named_template() {
        let with = |rollout: Value| {
            let text = edited(|value| value["rollout"] = rollout);
            Document::parse(&text).unwrap().rollout
        };
        let some =
            with(serde_json::json!({ "template": "1", "gate": { "policy": "Nodes", "nodes": ["w1"] } }));
        assert_eq!([some.is_closed_at("w1"), some.is_closed_at("w2")], [false, true]);
        let later = with(serde_json::json!({ "template": "1", "gate": { "policy": "Zones" } }));
        assert!(later.is_closed_at("w1"));
        let of_nobody = with(serde_json::json!({ "gate": { "policy": "Closed" } }));
        assert!(!of_nobody.is_closed_at("w1"));
    }

    #[test]
    fn further_endpoints_are_content_and_read_back() {
        let with_endpoints = Document {
            further_endpoints: vec![
                "10.0.0.19:6443".parse().unwrap(),
                "[fd00::19]:6443".parse().unwrap(),
            ],
            ..document()
        };
        assert!(!with_endpoints.same_content(&document()));
        let sealed = with_endpoints.seal().unwrap();
        let text = sealed.to_text().unwrap();
        assert_eq!(Document::parse(&text).unwrap(), sealed);
        let torn = text.replace("10.0.0.19", "10.0.0.18");
        assert_eq!(Document::parse(&torn).unwrap_err().reason(), "HashMismatch");
    }

    #[test]
    fn a_document_without_further_endpoints_is_as_older_releases_write_it() {
        assert!(!document().to_text().unwrap().contains("furtherEndpoints"));
    }

    #[test]
    fn a_gate_is_content_and_reads_back() {
        let gated = Document {
            rollout: RolloutTarget {
                gate: Gate::of_node("w1"),
                ..document().rollout
            },
            ..document()
        };
        assert!(!gated.same_content(&document()));
        let gated = gated.seal().unwrap();
        assert_eq!(Document::parse(&gated.to_text().unwrap()).unwrap(), gated);
    }

    #[test]
    fn a_gate_whose_policy_is_no_word_is_malformed() {
        let text = edited(|value| value["rollout"]["gate"]["policy"] = 3.into());
        assert_eq!(Document::parse(&text).unwrap_err().reason(), "Malformed");
    }

    /// The document with these further listeners.
    fn with_listeners(further: Value) -> Result<Document, Error> {
        Document::parse(&edited(|value| {
            let listeners = value["listeners"].as_array_mut().unwrap();
            listeners.extend(further.as_array().unwrap().clone());
        }))
    }

    #[test]
    fn a_listener_of_an_unknown_kind_is_left_out_whatever_its_fields() {
        let read = with_listeners(serde_json::json!([
            { "name": "dns", "kind": "UDP", "port": 8053, "memberPort": 53 },
            { "name": "vip", "kind": "QUIC", "addresses": ["10.0.0.100"], "port": 443 },
            { "name": "later", "kind": "Later" },
        ]));
        assert_eq!(read.unwrap().listeners, document().listeners);
    }

    #[test]
    fn a_listener_of_kind_apiserver_is_one_without_a_kind() {
        let local =
            |name: &str| serde_json::json!({ "name": name, "addresses": ["127.0.0.2"], "port": 7443 });
        let mut spelled = local("second");
        spelled["kind"] = "Apiserver".into();
        let names = |document: Document| document.listeners.into_iter().map(|listener| listener.name);
        let read = with_listeners(serde_json::json!([spelled, local("third")])).unwrap();
        assert_eq!(names(read).collect::<Vec<_>>(), ["apiserver", "second", "third"]);
    }

    #[test]
    fn a_document_whose_listeners_are_all_of_unknown_kinds_is_invalid() {
        let text = edited(|value| value["listeners"][0]["kind"] = "UDP".into());
        assert_eq!(Document::parse(&text).unwrap_err().reason(), "Invalid");
    }

    #[test]
    fn a_kind_that_is_no_word_is_malformed() {
        let text = edited(|value| value["listeners"][0]["kind"] = 3.into());
        assert_eq!(Document::parse(&text).unwrap_err().reason(), "Malformed");
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let text = serde_json::to_string(&document()).unwrap();
        let (_, rest) = text.split_once(',').unwrap();
        let reordered = format!("{},\"apiVersion\":\"{API_VERSION}\"}}", text_without_first(rest));
        assert_eq!(Document::parse(&reordered).unwrap(), document());
    }

    fn text_without_first(rest: &str) -> String {
        format!("{{{}", rest.strip_suffix('}').unwrap())
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let text = document().to_text().unwrap().replace("10.0.0.11", "10.0.0.12");
        assert_eq!(Document::parse(&text).unwrap_err().reason(), "HashMismatch");
    }

    #[test]
    fn a_document_written_by_hand_needs_no_hash() {
        let mut value = serde_json::to_value(document()).unwrap();
        value.as_object_mut().unwrap().remove("hash");
        assert_eq!(Document::parse(&value.to_string()).unwrap(), document());
    }

    #[test]
    fn a_document_of_a_later_release_that_cannot_be_read_is_told_from_a_torn_one() {
        let later = edited(|value| value["members"][0]["state"] = "Resting".into());
        assert_eq!(Document::parse(&later).unwrap_err().reason(), "Malformed");
        assert!(Document::is_intact(&later));
        let torn = later.replace("Resting", "Sleeping");
        assert!(
            !Document::is_intact(&torn) && !Document::is_intact(&later[..40]) && !Document::is_intact("{}")
        );
    }

    #[test]
    fn an_unknown_version_is_named() {
        let text = document().to_text().unwrap().replace("v1alpha1", "v9");
        let error = Document::parse(&text).unwrap_err();
        assert_eq!(error.reason(), "UnsupportedVersion");
        assert!(error.to_string().contains("trivet.dev/wire/v9"), "{error}");
    }

    #[test]
    fn a_new_revision_alone_is_the_same_content() {
        let old = document();
        let new = Document {
            revision: 8,
            ..document()
        }
        .seal()
        .unwrap();
        assert!(old.same_content(&new));
        assert_ne!(old.hash, new.hash);
        assert!(!old.same_content(&Document {
            nodes: 6,
            ..document()
        }));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,400}") {
            let refused = Document::parse(&text).is_err();
            prop_assert!(refused);
        }

        #[test]
        fn no_torn_text_is_accepted(cut in 0usize..1000) {
            let text = document().to_text().unwrap();
            let cut = cut.min(text.len() - 1);
            prop_assert!(Document::parse(&text[..cut]).is_err());
        }
    }
}
