//! What another process of the node sends in a hand-over: no record and no snapshot of it ends this one.

use std::{collections::BTreeSet, mem::discriminant};

use serde_json::{Map, json};
use trivet_proxy::{
    balance::PathKey,
    handover::{
        codec::{self, MAX_RECORD},
        rank::{Class, Rank},
        record::{
            AbortReason, AskReason, Listener, ListenerKind, Message, Pairs, Peer, Refusal,
            Snapshot as Announcement,
        },
        snapshot::{MAX_SNAPSHOT, WarmState},
    },
};

use crate::{
    search::{fuzz, keep},
    wire_document::document,
};

#[test]
fn no_record_is_misread() {
    let real: Vec<_> = messages().iter().map(encoded).collect();
    fuzz("handover_record", &real, |record| {
        for descriptors in 0..3 {
            let Ok(message) = codec::decode(record, descriptors) else {
                continue;
            };
            if message == Message::Unknown {
                continue;
            }
            assert_eq!(message.descriptors(), descriptors);
            // What was understood can be passed on.
            let again = codec::encode(&message, descriptors).unwrap();
            assert!(again.len() <= MAX_RECORD);
            let again = codec::decode(&again, descriptors).unwrap();
            assert_eq!(discriminant(&again), discriminant(&message));
        }
    });
}

#[test]
fn no_snapshot_is_misread() {
    fuzz("handover_snapshot", &[warm_state().encode().unwrap()], |text| {
        let Ok(read) = WarmState::decode(text) else {
            return;
        };
        let again = read.encode().unwrap();
        assert!(again.len() <= MAX_SNAPSHOT);
        let again = WarmState::decode(&again).unwrap();
        // The text of a number of a later release may differ in its last digit.
        let other = again.other.clone();
        assert_eq!(again, WarmState { other, ..read });
    });
}

fn encoded(message: &Message) -> Vec<u8> {
    codec::encode(message, message.descriptors()).unwrap()
}

fn peer(class: Class) -> Peer {
    Peer {
        id: "8b1f0e6a3c5d7f92".to_owned(),
        release: "0.1.0".to_owned(),
        rank: Rank {
            class,
            matches_document: true,
            generation: 7,
        },
        template: "5f6d9c7b".to_owned(),
        is_leaving: false,
        is_warm: true,
        has_listeners: true,
        pairs: 0,
        knows_extra_listeners: false,
        other: Map::new(),
    }
}

fn messages() -> Vec<Message> {
    let addresses = vec!["127.0.0.1:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()];
    let kinds = [
        ListenerKind::Apiserver,
        ListenerKind::Other("Konnectivity".to_owned()),
    ];
    let listeners = addresses.iter().zip(kinds).map(|(&address, kind)| Listener {
        name: "default".to_owned(),
        kind,
        address,
        other: Map::from_iter([("backlog".to_owned(), json!(4096))]),
    });
    vec![
        Message::Hello {
            peer: peer(Class::DaemonSet),
            pool: "default".to_owned(),
        },
        Message::Lend {
            listeners: listeners.collect(),
        },
        Message::Snapshot(Announcement {
            serial: 1,
            revision: 7,
            bytes: 4096,
        }),
        Message::Ask {
            take: 1,
            reason: AskReason::Leaving,
        },
        Message::Offer {
            take: 1,
            addresses,
            pairs: 0,
        },
        Message::Commit { take: 1 },
        Message::Abort {
            take: 1,
            reason: AbortReason::Overdue,
        },
        Message::Pairs(Pairs {
            take: 1,
            sockets: 1,
            text: 300,
            bytes: 2000,
        }),
        Message::Refused {
            reason: Refusal::OtherPool,
        },
        Message::Assist { on: true },
        Message::Ping { number: 1 },
        Message::Status {
            holder: peer(Class::DaemonSet),
            peers: vec![peer(Class::Static)],
        },
    ]
}

fn warm_state() -> WarmState {
    WarmState {
        document: Some(document(7)),
        replacements: 0,
        earlier: vec![document(6), document(5)],
        proven: BTreeSet::from([PathKey {
            member: "cp1".to_owned(),
            address: "10.0.0.11:6443".parse().unwrap(),
        }]),
        zone: "a".to_owned(),
        other: Map::new(),
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_records() {
    for message in messages() {
        let record = encoded(&message);
        let value: serde_json::Value = serde_json::from_slice(&record).unwrap();
        keep("handover_record", value["message"].as_str().unwrap(), &record);
    }
    let later = json!({
        "protocol": {"major": 1, "minor": 3}, "descriptors": 2, "message": "quic", "take": 1,
    });
    keep("handover_record", "later-minor", later.to_string().as_bytes());
    let other = json!({"protocol": {"major": 2, "minor": 0}, "message": {"kind": "ping"}});
    keep("handover_record", "later-major", other.to_string().as_bytes());
    let text = warm_state().encode().unwrap();
    keep("handover_snapshot", "whole", &text);
    keep("handover_snapshot", "torn", &text[..text.len() / 2]);
    keep("handover_snapshot", "empty", br#"{"document": null}"#);
}
