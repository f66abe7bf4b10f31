//! What the proxies of a node say to each other while they are of two releases.

use serde_json::{Value, json};
use trivet_proxy::handover::{
    codec::{self, PROTOCOL},
    record::{AskReason, Message, Peer},
};

/// Records as the first release with a hand-over has written them, each with its number of descriptors.
const FIRST: &str = include_str!("../../../tests/skew/handover.jsonl");

fn first() -> Vec<Value> {
    FIRST
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn read(record: &Value) -> Message {
    let descriptors = record["descriptors"].as_u64().unwrap().try_into().unwrap();
    codec::decode(record.to_string().as_bytes(), descriptors).unwrap()
}

fn written(message: &Message) -> Value {
    let record = codec::encode(message, message.descriptors()).unwrap();
    serde_json::from_slice(&record).unwrap()
}

#[test]
fn every_message_of_the_first_release_with_a_hand_over_is_read() {
    for record in first() {
        let message = read(&record);
        assert!(!matches!(message, Message::Unknown), "{record}");
        // What that release reads of the same message is what it has written itself.
        let now = written(&message);
        for (field, value) in record.as_object().unwrap() {
            assert_eq!(now.get(field).is_some(), !value.is_null(), "{field} of {now}");
        }
    }
}

#[test]
fn a_process_of_the_first_release_takes_no_connections() {
    let hello = first()
        .into_iter()
        .find(|record| record["message"] == "hello")
        .unwrap();
    let Message::Hello {
        peer: Peer { pairs, .. },
        ..
    } = read(&hello)
    else {
        panic!("{hello}");
    };
    assert_eq!(pairs, 0, "its connections drain");
}

#[test]
fn a_later_minor_release_is_understood_as_far_as_it_says_known_things() {
    for mut record in first() {
        let known = read(&record);
        record["protocol"] = json!({ "major": PROTOCOL.major, "minor": PROTOCOL.minor + 1 });
        record["aFieldOfALaterRelease"] = json!([{ "a": 1 }]);
        assert_eq!(read(&record), known);
        record["message"] = "aMessageOfALaterRelease".into();
        assert_eq!(read(&record), Message::Unknown);
    }
    let mut ask = first()
        .into_iter()
        .find(|record| record["message"] == "ask")
        .unwrap();
    ask["reason"] = "AReasonOfALaterRelease".into();
    assert!(matches!(
        read(&ask),
        Message::Ask {
            reason: AskReason::Unknown,
            ..
        }
    ));
}
