//! What the processes of a node say to each other: one record of a channel is one [`Message`].
//!
//! A process understands the previous and the next minor release. An unknown message is [`Message::Unknown`], an unknown
//! word reads as `Unknown`, and a field that an older release does not send has a default. The records that a process
//! passes on, [`Peer`] and [`Listener`], keep the fields that it does not know. The version of the protocol and the number
//! of file descriptors belong to the envelope, not to the message.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trivet_crds::wire::{self, APISERVER};

use super::rank::Rank;

/// One message. The channel between a holder (which has the lock) and a peer (which connected to it) keeps their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Message {
    /// The first message of each side: who it is. Sent again when something in it changes.
    Hello {
        /// The sender.
        peer: Peer,
        /// Its pool: processes of other pools are refused.
        pool: String,
    },
    /// Holder to peer, then the channel ends: no hand-over with this peer.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Holder to peer: all its listeners in order, their duplicates with them. It replaces the former ones.
    Lend {
        /// Which; as many file descriptors come with the record.
        #[serde(default)]
        listeners: Vec<Listener>,
    },
    /// Holder to peer: these listeners were shut down.
    Ended {
        /// Their addresses.
        #[serde(default)]
        addresses: Vec<SocketAddr>,
    },
    /// Holder to peer: what makes a standby warm (document, health, proofs), in a sealed memfd.
    Snapshot(Snapshot),
    /// Peer to holder: it has applied that snapshot.
    Warm {
        /// The snapshot's.
        serial: u64,
    },
    /// Peer to holder: it wants to serve.
    Ask {
        /// The peer's number for this take: 1 for the first on its channel.
        take: u64,
        /// Why.
        reason: AskReason,
    },
    /// Holder to all peers: it ends soon and gives to any of them that is not leaving.
    Leaving,
    /// Holder to peer: it may serve.
    Offer {
        /// The number of the take.
        take: u64,
        /// The listeners that the peer must hold.
        #[serde(default)]
        addresses: Vec<SocketAddr>,
        /// How many established pairs follow between `Ack` and `Commit`: none, they follow the take.
        #[serde(default)]
        pairs: u64,
    },
    /// Peer to holder: it holds these listeners and can serve.
    Ack {
        /// The number of the take.
        take: u64,
        /// The listeners that it holds.
        #[serde(default)]
        addresses: Vec<SocketAddr>,
    },
    /// Holder to peer: a duplicate of the lock comes with the record. The holder accepts until it has read `Taken`.
    Commit {
        /// The number of the take.
        take: u64,
    },
    /// Peer to holder: it has the lock and serves. What the peer believes is decided by whether this could be sent.
    Taken {
        /// The number of the take.
        take: u64,
    },
    /// Peer to holder: whether it accepts beside the holder, because the holder seems to hang.
    Assist {
        /// Whether it accepts.
        on: bool,
    },
    /// Either way, then the channel ends: this take does not happen.
    Abort {
        /// The number of the take.
        take: u64,
        /// Why.
        reason: AbortReason,
    },
    /// From a process that does not serve, on a channel without `Hello`: connections with which the holder goes on. It answers
    /// with `Taken`; `Abort` says that it must not.
    Pairs(Pairs),
    /// Either way: is the other side alive?
    Ping {
        /// Comes back in the answer.
        number: u64,
    },
    /// The answer to `Ping`.
    Pong {
        /// That of the `Ping`.
        number: u64,
    },
    /// From any process of this user that is not a peer: who serves and who stands by?
    StatusRequest,
    /// The answer to `StatusRequest`.
    Status {
        /// The process that serves.
        holder: Peer,
        /// All that are connected to it.
        #[serde(default)]
        peers: Vec<Peer>,
    },
    /// A message that only a later release knows. It is skipped.
    #[serde(other)]
    Unknown,
}

impl Message {
    /// How many file descriptors come with this message.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Lend { listeners } => listeners.len(),
            Self::Snapshot(_) | Self::Commit { .. } => 1,
            Self::Pairs(pairs) => {
                usize::try_from(pairs.sockets).map_or(usize::MAX, |sockets| sockets.saturating_add(1))
            }
            Self::Hello { .. }
            | Self::Refused { .. }
            | Self::Ended { .. }
            | Self::Warm { .. }
            | Self::Ask { .. }
            | Self::Leaving
            | Self::Offer { .. }
            | Self::Ack { .. }
            | Self::Taken { .. }
            | Self::Assist { .. }
            | Self::Abort { .. }
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::StatusRequest
            | Self::Status { .. }
            | Self::Unknown => 0,
        }
    }
}

/// A process of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts of which none follows from another"
)]
pub struct Peer {
    /// Random, new for each process.
    pub id: String,
    /// Its release, for people.
    #[serde(default)]
    pub release: String,
    /// Its rank.
    pub rank: Rank,
    /// The hash of its template; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Whether it has got SIGTERM: it takes no more.
    #[serde(default)]
    pub is_leaving: bool,
    /// Whether it has applied a snapshot, or serves.
    #[serde(default)]
    pub is_warm: bool,
    /// Whether it holds listeners, bound or lent. A holder without any gives the lock up to such a peer.
    #[serde(default)]
    pub has_listeners: bool,
    /// The most connections in one `Pairs` that it takes as the holder; none in releases without it.
    #[serde(default)]
    pub pairs: u64,
    /// Whether it tells extra listeners and their connections from those of the apiservers. One that does not is lent and given
    /// none of them: it would send their clients to the apiservers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub knows_extra_listeners: bool,
    /// What only later releases know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A listener as its holder lends it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// That of the document.
    pub name: String,
    /// What it is for.
    pub kind: ListenerKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// What only later releases know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a listener is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListenerKind {
    /// For clients of the apiservers.
    Apiserver,
    /// For scrapers of this proxy's metrics.
    Metrics,
    /// For clients of other servers of the members, which complete TLS handshakes.
    #[serde(rename = "TLS")]
    Tls,
    /// The same, of servers that answer a path.
    #[serde(rename = "HTTPS")]
    Https,
    /// A kind of a later release: held and lent on, never accepted on.
    #[serde(untagged)]
    Other(String),
}

impl Listener {
    /// One for clients of the apiservers.
    pub fn apiserver(address: SocketAddr) -> Self {
        Self {
            name: APISERVER.to_owned(),
            kind: ListenerKind::Apiserver,
            address,
            other: Map::new(),
        }
    }

    /// Whether its clients reach the apiservers.
    pub fn is_of_apiservers(&self) -> bool {
        self.kind == ListenerKind::Apiserver
    }
}

impl From<wire::ListenerKind> for ListenerKind {
    fn from(kind: wire::ListenerKind) -> Self {
        match kind {
            wire::ListenerKind::Apiserver => Self::Apiserver,
            wire::ListenerKind::Tls => Self::Tls,
            wire::ListenerKind::Https => Self::Https,
        }
    }
}

/// What makes a standby warm. The text is in the memfd, because a document may exceed a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Grows with each snapshot of this holder.
    pub serial: u64,
    /// The revision of the document in it.
    #[serde(default)]
    pub revision: u64,
    /// The length of the text.
    pub bytes: u64,
}

/// A batch of connections. The text that describes them is in a sealed file, and so are the bytes that were read and not yet
/// written: see [`super::pairs::batch`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pairs {
    /// The number of the batch, which grows on a channel.
    pub take: u64,
    /// How many sockets come along, after the file.
    pub sockets: u64,
    /// The length of the text.
    pub text: u64,
    /// The length of the bytes after it.
    pub bytes: u64,
}

/// Why a holder refuses a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// It is of another pool.
    OtherPool,
    /// It runs as another user.
    OtherUser,
    /// Its protocol has another major version.
    Protocol,
    /// A reason of a later release.
    #[serde(other)]
    Unknown,
}

/// Why a peer wants to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AskReason {
    /// Its rank is higher, and it has proven itself.
    Rank,
    /// The holder is leaving.
    Leaving,
    /// A reason of a later release. It counts as `Rank`.
    #[serde(other)]
    Unknown,
}

/// Why a take does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AbortReason {
    /// The other side did not answer in time.
    Overdue,
    /// The sender has got SIGTERM.
    Leaving,
    /// The peer lacks a listener of the offer.
    MissingListener,
    /// The holder hangs, so that the peer accepts beside it.
    Stalled,
    /// A record of the other side could not be read.
    BadRecord,
    /// A reason of a later release.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::handover::rank::Class;

    fn peer() -> Peer {
        Peer {
            id: "a1".to_owned(),
            release: "0.2.0".to_owned(),
            rank: Rank {
                class: Class::DaemonSet,
                matches_document: true,
                generation: 3,
            },
            template: "5f6d".to_owned(),
            is_leaving: false,
            is_warm: true,
            has_listeners: true,
            pairs: 0,
            knows_extra_listeners: false,
            other: Map::new(),
        }
    }

    fn listener() -> Listener {
        Listener {
            name: "default".to_owned(),
            kind: ListenerKind::Apiserver,
            address: "127.0.0.1:7443".parse().unwrap(),
            other: Map::new(),
        }
    }

    fn messages() -> Vec<Message> {
        let addresses = vec![listener().address];
        vec![
            Message::Hello {
                peer: peer(),
                pool: "default".to_owned(),
            },
            Message::Refused {
                reason: Refusal::OtherPool,
            },
            Message::Lend {
                listeners: vec![listener()],
            },
            Message::Ended {
                addresses: addresses.clone(),
            },
            Message::Snapshot(Snapshot {
                serial: 1,
                revision: 2,
                bytes: 3,
            }),
            Message::Warm { serial: 1 },
            Message::Ask {
                take: 1,
                reason: AskReason::Rank,
            },
            Message::Leaving,
            Message::Offer {
                take: 1,
                addresses: addresses.clone(),
                pairs: 0,
            },
            Message::Ack { take: 1, addresses },
            Message::Commit { take: 1 },
            Message::Taken { take: 1 },
            Message::Assist { on: true },
            Message::Abort {
                take: 1,
                reason: AbortReason::Overdue,
            },
            Message::Ping { number: 1 },
            Message::Pong { number: 1 },
            Message::StatusRequest,
            Message::Status {
                holder: peer(),
                peers: vec![peer()],
            },
        ]
    }

    fn read(value: Value) -> Message {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_message_reads_as_it_was_written() {
        for message in messages() {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message, "{text}");
        }
    }

    #[test]
    fn a_message_of_a_later_release_is_skipped() {
        assert_eq!(
            read(json!({"message": "quic", "take": 1, "count": 9})),
            Message::Unknown
        );
    }

    #[test]
    fn a_word_of_a_later_release_does_not_spoil_the_message() {
        let ask = read(json!({"message": "ask", "take": 1, "reason": "Rebalance"}));
        assert_eq!(
            ask,
            Message::Ask {
                take: 1,
                reason: AskReason::Unknown
            }
        );
        let refused = read(json!({"message": "refused", "reason": "TooMany"}));
        assert_eq!(
            refused,
            Message::Refused {
                reason: Refusal::Unknown
            }
        );
    }

    #[test]
    fn a_field_that_an_older_release_does_not_send_has_a_default() {
        let hello = read(json!({
            "message": "hello",
            "pool": "default",
            "peer": {"id": "a1", "rank": {"class": "Static"}},
        }));
        let Message::Hello { peer, .. } = hello else {
            panic!("{hello:?}");
        };
        assert!(!peer.is_leaving && !peer.is_warm && peer.pairs == 0);
        let offer = read(json!({"message": "offer", "take": 1}));
        assert_eq!(
            offer,
            Message::Offer {
                take: 1,
                addresses: Vec::new(),
                pairs: 0
            }
        );
    }

    #[test]
    fn what_a_process_passes_on_keeps_the_fields_of_a_later_release() {
        let lent = json!({
            "message": "lend",
            "listeners": [{"name": "k", "kind": "Konnectivity", "address": "127.0.0.1:7444", "backlog": 4096}],
        });
        assert_eq!(serde_json::to_value(read(lent.clone())).unwrap(), lent);
        let mut status = serde_json::to_value(Message::Status {
            holder: peer(),
            peers: vec![peer()],
        })
        .unwrap();
        status["peers"][0]["wave"] = json!({"share": 10});
        assert_eq!(serde_json::to_value(read(status.clone())).unwrap(), status);
    }

    #[test]
    fn a_record_carries_as_many_descriptors_as_its_message_says() {
        let with: Vec<_> = messages()
            .into_iter()
            .map(|message| message.descriptors())
            .filter(|&count| count > 0)
            .collect();
        assert_eq!(with, [1, 1, 1]);
    }
}
