//! The listeners of a document, and how those of a known kind are read.
//!
//! An entry of another kind comes from a later release: it may forward to another port of the members, listen elsewhere, or
//! have other fields. A proxy of this release must not bind it as a listener of the apiservers. It must not reject the
//! document either, because then it could not follow the rest of it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;

/// The name of the apiservers' listener where nobody names it.
pub const APISERVER: &str = "apiserver";

/// The path of an HTTPS listener's checks that names none.
pub const DEFAULT_CHECK_PATH: &str = "/healthz";

/// Where a proxy accepts clients, of the apiservers or of other servers of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Unique in its document.
    pub name: String,
    /// What its clients reach. Absent means the apiservers, as in documents of older releases.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub kind: ListenerKind,
    /// 1 to [`super::MAX_ADDRESSES`] loopback addresses. One of a family that the node lacks is skipped. None of them, with
    /// the port, is one of another listener, if either is an extra listener.
    pub addresses: Vec<IpAddr>,
    /// TCP port, from 1024 on.
    pub port: u16,
    /// The port of the members' servers that its clients reach, never 0. Extra listeners have one; those of the apiservers
    /// have none, because each member has its own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_port: Option<u16>,
    /// How its connections are spread. It says nothing for the apiservers.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub balancing: ListenerBalancing,
    /// What its servers are asked, with kind HTTPS only; absent: [`DEFAULT_CHECK_PATH`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<ListenerHealthCheck>,
}

/// What the clients of a listener reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerKind {
    /// The apiservers, at the members' own ports.
    #[default]
    Apiserver,
    /// Other servers of the members, which are alive while they complete TLS handshakes.
    #[serde(rename = "TLS")]
    Tls,
    /// Other servers of the members, which are alive while they answer a path.
    #[serde(rename = "HTTPS")]
    Https,
}

/// How the connections of an extra listener are spread. An unknown value of a later release reads as
/// [`ListenerBalancing::LeastConnections`], by which every server is reached too, only less evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerBalancing {
    /// Round robin over all members that are equally well, whatever connections they have and wherever they are: successive
    /// connections reach every server.
    Spread,
    /// To the member with the fewest connections, as for the apiservers.
    #[default]
    #[serde(other)]
    LeastConnections,
}

/// What the servers of an HTTPS listener are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerHealthCheck {
    /// A path whose answer is 2xx while the server is well: 1 to 253 visible characters, the first of them a slash.
    pub path: String,
}

impl ListenerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Apiserver, Self::Tls, Self::Https];

    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apiserver => "Apiserver",
            Self::Tls => "TLS",
            Self::Https => "HTTPS",
        }
    }
}

impl Listener {
    /// One for clients of the apiservers.
    pub fn apiserver(addresses: Vec<IpAddr>, port: u16) -> Self {
        Self {
            name: APISERVER.to_owned(),
            kind: ListenerKind::Apiserver,
            addresses,
            port,
            member_port: None,
            balancing: ListenerBalancing::default(),
            health_check: None,
        }
    }

    /// Whether its clients reach other servers than the apiservers.
    pub fn is_extra(&self) -> bool {
        self.kind != ListenerKind::Apiserver
    }

    /// Where it accepts.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.port;
        self.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
    }

    /// The path that its servers are asked, if they are asked one.
    pub fn check_path(&self) -> Option<&str> {
        match self.kind {
            ListenerKind::Apiserver | ListenerKind::Tls => None,
            ListenerKind::Https => {
                let named = self.health_check.as_ref().map(|check| check.path.as_str());
                Some(named.unwrap_or(DEFAULT_CHECK_PATH))
            }
        }
    }
}

pub(super) fn of_known_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listener>, D::Error> {
    let mut listeners = Vec::new();
    for entry in Vec::<Value>::deserialize(deserializer)? {
        if is_known(&entry).map_err(D::Error::custom)? {
            listeners.push(Listener::deserialize(entry).map_err(D::Error::custom)?);
        }
    }
    Ok(listeners)
}

fn is_known(entry: &Value) -> Result<bool, &'static str> {
    match entry.get("kind") {
        None => Ok(true),
        Some(Value::String(kind)) => Ok(ListenerKind::ALL.iter().any(|known| known.as_str() == kind)),
        Some(_) => Err("listeners[].kind must be a word"),
    }
}

/// The listeners of a document that this release leaves out because it does not know their kind: `metrics of kind UDP`. Empty
/// for a text that is no document.
pub fn unknown_listeners(document: &str) -> Vec<String> {
    let Ok(document) = serde_json::from_str::<Value>(document) else {
        return Vec::new();
    };
    let entries = document.get("listeners").and_then(Value::as_array);
    let unknown = entries
        .into_iter()
        .flatten()
        .filter(|entry| matches!(is_known(entry), Ok(false)));
    let word = |entry: &Value, field: &str| {
        let word = entry.get(field).and_then(Value::as_str).unwrap_or_default();
        // A document may hold anything in a field that this release does not read.
        word.chars()
            .filter(char::is_ascii_graphic)
            .take(SHOWN)
            .collect::<String>()
    };
    unknown
        .map(|entry| format!("{} of kind {}", word(entry, "name"), word(entry, "kind")))
        .take(super::MAX_LISTENERS)
        .collect()
}

/// The most characters of a name that are shown.
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(entries: Value) -> Vec<Listener> {
        of_known_kind(entries).unwrap()
    }

    #[test]
    fn an_entry_without_a_kind_is_of_the_apiservers_and_is_written_as_older_releases_do() {
        let entry = json!([{ "name": "apiserver", "addresses": ["127.0.0.1"], "port": 7443 }]);
        let listeners = read(entry.clone());
        assert_eq!(
            listeners,
            [Listener::apiserver(vec!["127.0.0.1".parse().unwrap()], 7443)]
        );
        assert_eq!(serde_json::to_value(listeners).unwrap(), entry);
    }

    #[test]
    fn extra_listeners_read_back_and_a_balancing_of_a_later_release_is_least_connections() {
        let entry = json!([{
            "name": "supervisor", "kind": "HTTPS", "addresses": ["127.0.0.1"], "port": 9345, "memberPort": 9345,
            "balancing": "Spread", "healthCheck": { "path": "/ping" },
        }]);
        let [supervisor] = &read(entry.clone())[..] else {
            panic!("one listener")
        };
        assert!(supervisor.is_extra());
        assert_eq!(supervisor.check_path(), Some("/ping"));
        assert_eq!(serde_json::to_value([supervisor]).unwrap(), entry);
        let mut later = entry;
        later[0]["balancing"] = "ByWeight".into();
        assert_eq!(read(later)[0].balancing, ListenerBalancing::LeastConnections);
    }

    #[test]
    fn only_https_is_asked_a_path() {
        let with_kind = |kind| Listener {
            kind,
            ..Listener::apiserver(Vec::new(), 7443)
        };
        assert_eq!(
            ListenerKind::ALL.map(|kind| with_kind(kind).check_path().map(str::to_owned)),
            [None, None, Some(DEFAULT_CHECK_PATH.to_owned())]
        );
    }

    #[test]
    fn listeners_of_an_unknown_kind_are_left_out_and_named() {
        let document = json!({ "listeners": [
            { "name": "apiserver", "addresses": ["127.0.0.1"], "port": 7443 },
            { "name": "dns\n", "kind": "UDP", "weight": 1 },
            { "kind": "SCTP" },
        ] });
        assert_eq!(read(document["listeners"].clone()).len(), 1);
        assert_eq!(
            unknown_listeners(&document.to_string()),
            ["dns of kind UDP", " of kind SCTP"]
        );
        assert_eq!(unknown_listeners("{"), Vec::<String>::new());
        assert_eq!(unknown_listeners("[]"), Vec::<String>::new());
    }
}
