//! The form of a record: one JSON object with the protocol's version, the number of descriptors that come along, and the
//! message.
//!
//! Releases of the same major version understand each other: each ignores fields that it does not know. A change that an
//! older release would misread gets a new major version, and both ends refuse it.

use serde::{Deserialize, Serialize};

use super::record::Message;

/// The longest record. A listener's address has some sixty bytes, and whatever can be longer travels in a file.
pub const MAX_RECORD: usize = 64 * 1024;

/// The version of the protocol that this release speaks.
pub const PROTOCOL: Protocol = Protocol { major: 1, minor: 0 };

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Grows with a change that an older release would misread.
    pub major: u32,
    /// Grows with a change that an older release can ignore.
    pub minor: u32,
}

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is longer than [`MAX_RECORD`].
    #[error("the record has {bytes} bytes, more than {MAX_RECORD}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The peer speaks another major version.
    #[error("the peer speaks version {}.{} of the hand-over protocol, and this release {}.{}",
        theirs.major, theirs.minor, PROTOCOL.major, PROTOCOL.minor)]
    OtherProtocol {
        /// The peer's version.
        theirs: Protocol,
    },
    /// Other descriptors are there than those that belong to it.
    #[error("{announced} descriptors belong to the record, and {present} are there")]
    Descriptors {
        /// How many belong to it.
        announced: usize,
        /// How many are there.
        present: usize,
    },
    /// It is no JSON object, or not one of this protocol.
    #[error("the record cannot be read")]
    Content(#[from] serde_json::Error),
}

/// What a record holds beside the message. Every version of the protocol has it.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    protocol: Protocol,
    /// How many descriptors come along, also of a message that only a later release knows.
    #[serde(default)]
    descriptors: usize,
}

/// A record.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    #[serde(flatten)]
    header: Header,
    #[serde(flatten)]
    message: &'a Message,
}

/// The bytes of a record with which so many descriptors go.
pub fn encode(message: &Message, descriptors: usize) -> Result<Vec<u8>, Error> {
    check(message.descriptors(), descriptors)?;
    let envelope = Envelope {
        header: Header {
            protocol: PROTOCOL,
            descriptors,
        },
        message,
    };
    within_limit(serde_json::to_vec(&envelope)?)
}

/// The message of a record with which so many descriptors came.
pub fn decode(record: &[u8], descriptors: usize) -> Result<Message, Error> {
    let record = within_limit(record)?;
    let header: Header = serde_json::from_slice(record)?;
    // The version comes first: what a message of another version means is not known here.
    if header.protocol.major != PROTOCOL.major {
        let theirs = header.protocol;
        return Err(Error::OtherProtocol { theirs });
    }
    check(header.descriptors, descriptors)?;
    let message = serde_json::from_slice(record)?;
    match &message {
        // Only its sender knows what belongs to it. It is skipped, and its descriptors are closed.
        Message::Unknown => {}
        known => check(known.descriptors(), descriptors)?,
    }
    Ok(message)
}

fn check(announced: usize, present: usize) -> Result<(), Error> {
    if announced == present {
        Ok(())
    } else {
        Err(Error::Descriptors { announced, present })
    }
}

fn within_limit<Bytes: AsRef<[u8]>>(record: Bytes) -> Result<Bytes, Error> {
    let bytes = record.as_ref().len();
    if bytes > MAX_RECORD {
        return Err(Error::TooLong { bytes });
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::handover::{
        rank::{Class, Rank},
        record::{AbortReason, AskReason, Listener, ListenerKind, Peer, Refusal, Snapshot},
    };

    fn read(record: &Value, descriptors: usize) -> Result<Message, Error> {
        decode(record.to_string().as_bytes(), descriptors)
    }

    #[test]
    fn a_record_is_one_flat_object() {
        let record: Value =
            serde_json::from_slice(&encode(&Message::Commit { take: 3 }, 1).unwrap()).unwrap();
        let expected = json!({
            "protocol": {"major": 1, "minor": 0}, "descriptors": 1, "message": "commit", "take": 3,
        });
        assert_eq!(record, expected);
        assert_eq!(read(&expected, 1).unwrap(), Message::Commit { take: 3 });
    }

    #[test]
    fn a_later_minor_version_is_understood_but_for_what_is_new_in_it() {
        let known = json!({
            "protocol": {"major": 1, "minor": 9, "patch": 1},
            "message": "ping", "number": 4, "sentAt": 17, "checksum": {"crc": 1},
        });
        assert_eq!(read(&known, 0).unwrap(), Message::Ping { number: 4 });
        let new = json!({
            "protocol": {"major": 1, "minor": 9}, "descriptors": 6, "message": "quic", "take": 1,
        });
        assert_eq!(read(&new, 6).unwrap(), Message::Unknown);
    }

    #[test]
    fn another_major_version_is_refused_whatever_it_holds() {
        for major in [0, 2] {
            let other = json!({
                "protocol": {"major": major, "minor": 3}, "descriptors": 2, "message": {"kind": "ping"},
            });
            let refused = read(&other, 0).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("the peer speaks version {major}.3 of the hand-over protocol, and this release 1.0")
            );
        }
    }

    #[test]
    fn a_record_without_its_descriptors_is_refused_and_so_is_one_with_more() {
        let commit = encode(&Message::Commit { take: 1 }, 1).unwrap();
        for present in [0, 2] {
            let refused = decode(&commit, present).unwrap_err();
            assert!(
                matches!(refused, Error::Descriptors { announced: 1, present: seen } if seen == present),
                "{refused:?}"
            );
            let unsent = encode(&Message::Commit { take: 1 }, present).unwrap_err();
            assert!(matches!(unsent, Error::Descriptors { .. }), "{unsent:?}");
        }
        // Its sender says so too, which no release does.
        let ping = json!({
            "protocol": {"major": 1, "minor": 0}, "descriptors": 1, "message": "ping", "number": 4,
        });
        let refused = read(&ping, 1).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Descriptors {
                    announced: 0,
                    present: 1
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let protocol = json!({"major": 1, "minor": 0});
        let texts = [
            String::new(),
            "{".to_owned(),
            "7".to_owned(),
            json!({"message": "leaving"}).to_string(),
            json!({"protocol": protocol}).to_string(),
            json!({"protocol": protocol, "message": "ping"}).to_string(),
            json!({"protocol": protocol, "message": "ping", "number": -1}).to_string(),
            json!({"protocol": {"major": "1"}, "message": "leaving"}).to_string(),
        ];
        for text in texts {
            let refused = decode(text.as_bytes(), 0).unwrap_err();
            assert!(matches!(refused, Error::Content(_)), "{text}: {refused:?}");
        }
    }

    #[test]
    fn a_record_has_a_limit() {
        let hello = |length| Message::Hello {
            peer: Peer {
                id: "a".repeat(length),
                ..a_peer()
            },
            pool: "default".to_owned(),
        };
        let frame = encode(&hello(0), 0).unwrap().len();
        let longest = encode(&hello(MAX_RECORD - frame), 0).unwrap();
        assert_eq!(longest.len(), MAX_RECORD);
        decode(&longest, 0).unwrap();
        let too_long = encode(&hello(MAX_RECORD - frame + 1), 0).unwrap_err();
        assert!(matches!(too_long, Error::TooLong { bytes } if bytes == MAX_RECORD + 1));
        let too_long = decode(&[longest.as_slice(), b" "].concat(), 0).unwrap_err();
        assert!(matches!(too_long, Error::TooLong { bytes } if bytes == MAX_RECORD + 1));
    }

    fn a_peer() -> Peer {
        Peer {
            id: "a1".to_owned(),
            release: "0.2.0".to_owned(),
            rank: Rank {
                class: Class::DaemonSet,
                matches_document: true,
                generation: 3,
            },
            template: String::new(),
            is_leaving: false,
            is_warm: true,
            has_listeners: true,
            pairs: 0,
            knows_extra_listeners: true,
            other: Map::from_iter([("wave".to_owned(), json!({"share": 10}))]),
        }
    }

    fn peer() -> impl Strategy<Value = Peer> {
        let class = prop::sample::select(vec![Class::Static, Class::Unit, Class::DaemonSet]);
        let rank =
            (class, any::<bool>(), any::<u64>()).prop_map(|(class, matches_document, generation)| Rank {
                class,
                matches_document,
                generation,
            });
        (any::<[String; 3]>(), rank, any::<[bool; 3]>(), any::<u64>()).prop_map(
            |([id, release, template], rank, [is_leaving, is_warm, has_listeners], pairs)| Peer {
                id,
                release,
                rank,
                template,
                is_leaving,
                is_warm,
                has_listeners,
                pairs,
                ..a_peer()
            },
        )
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        // The flow label of an IPv6 address is no part of its text.
        any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
    }

    fn listener() -> impl Strategy<Value = Listener> {
        let kind = prop::sample::select(vec![
            ListenerKind::Apiserver,
            ListenerKind::Metrics,
            ListenerKind::Tls,
            ListenerKind::Https,
            ListenerKind::Other("Konnectivity".to_owned()),
        ]);
        (any::<String>(), kind, address()).prop_map(|(name, kind, address)| Listener {
            name,
            kind,
            address,
            other: Map::from_iter([("backlog".to_owned(), json!(4096))]),
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let addresses = || prop::collection::vec(address(), 0..9);
        let numbers = any::<[u64; 3]>();
        prop_oneof![
            (peer(), any::<String>()).prop_map(|(peer, pool)| Message::Hello { peer, pool }),
            prop::collection::vec(listener(), 0..9).prop_map(|listeners| Message::Lend { listeners }),
            (peer(), prop::collection::vec(peer(), 0..4))
                .prop_map(|(holder, peers)| Message::Status { holder, peers }),
            addresses().prop_map(|addresses| Message::Ended { addresses }),
            (any::<u64>(), addresses()).prop_map(|(take, addresses)| Message::Ack { take, addresses }),
            (any::<[u64; 2]>(), addresses()).prop_map(|([take, pairs], addresses)| Message::Offer {
                take,
                addresses,
                pairs
            }),
            numbers.prop_map(|[serial, revision, bytes]| Message::Snapshot(Snapshot {
                serial,
                revision,
                bytes
            })),
            any::<(u64, bool)>().prop_flat_map(|(number, on)| prop::sample::select(vec![
                Message::Leaving,
                Message::StatusRequest,
                Message::Assist { on },
                Message::Warm { serial: number },
                Message::Ping { number },
                Message::Pong { number },
                Message::Commit { take: number },
                Message::Taken { take: number },
                Message::Refused {
                    reason: Refusal::OtherPool
                },
                Message::Ask {
                    take: number,
                    reason: AskReason::Rank
                },
                Message::Abort {
                    take: number,
                    reason: AbortReason::Overdue
                },
            ])),
        ]
    }

    proptest! {
        #[test]
        fn every_message_is_read_as_it_was_written(message in message()) {
            let descriptors = message.descriptors();
            let record = encode(&message, descriptors).unwrap();
            prop_assert_eq!(decode(&record, descriptors).unwrap(), message);
        }
    }
}
