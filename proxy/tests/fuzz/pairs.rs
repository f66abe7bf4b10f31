//! The connections that another process of the node hands over: no file of it ends this one, and none is misread.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use trivet_proxy::{
    balance::PathKey,
    connection::transfer::{Given, Passport, Progress},
    handover::{
        pairs::{
            MAX_PAIRS,
            batch::{self, Error, Written},
        },
        sealed,
    },
    relay::{DirectionState, PairState, Phase},
};

use crate::search::{fuzz, keep};

/// The content of a file that was written. The search puts the length of its text before it.
fn content(written: &Written) -> Vec<u8> {
    let file = written.file.try_clone().unwrap();
    sealed::read(file, written.text + written.bytes, usize::MAX).unwrap()
}

fn input(passports: &[Passport]) -> Vec<u8> {
    let written = batch::write(passports.iter()).unwrap();
    let text = u16::try_from(written.text).unwrap().to_be_bytes();
    [&text[..], &content(&written)].concat()
}

fn read(written: Written) -> Result<Vec<Passport>, Error> {
    batch::read(written.file, written.text, written.bytes)
}

#[test]
fn no_batch_is_misread() {
    let real = [
        input(&[opening()]),
        input(&[established(), opening(), established()]),
    ];
    fuzz("handover_pairs", &real, |input| {
        let Some((text, content)) = input.split_first_chunk() else {
            return;
        };
        let text = usize::from(u16::from_be_bytes(*text)).min(content.len());
        let Ok(passports) = batch::decode(Bytes::copy_from_slice(content), text) else {
            return;
        };
        assert!(passports.len() <= MAX_PAIRS);
        let held: usize = passports.iter().map(batch::held).sum();
        assert!(held <= content.len() - text, "each byte is of one connection");
        let again = read(batch::write(passports.iter()).unwrap()).unwrap();
        assert_eq!(again, passports);
    });
}

fn address() -> impl Strategy<Value = SocketAddr> {
    // The flow label of an IPv6 address is no part of its text.
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn tail() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        prop::collection::vec(any::<u8>(), 1..100).prop_map(Bytes::from),
        // What a slow reader leaves.
        (any::<u8>(), 1..600_000_usize).prop_map(|(byte, length)| vec![byte; length].into()),
    ]
}

fn direction() -> impl Strategy<Value = DirectionState> {
    let phase = prop::sample::select(vec![Phase::Open, Phase::Ended, Phase::Done]);
    (any::<u64>(), tail(), phase).prop_map(|(moved, tail, phase)| DirectionState { moved, tail, phase })
}

fn milliseconds() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

fn progress() -> impl Strategy<Value = Progress> {
    let given = (
        any::<String>(),
        address(),
        prop::option::of(milliseconds()),
        any::<bool>(),
        prop::option::of(milliseconds()),
    )
        .prop_map(|(member, address, first_byte, hedged, drains_within)| Given {
            path: PathKey { member, address },
            first_byte,
            hedged,
            drains_within,
        });
    let pair = (direction(), direction(), any::<u64>()).prop_map(|(sent, received, unanswered)| PairState {
        sent,
        received,
        unanswered,
    });
    prop_oneof![
        tail().prop_map(|heard| Progress::Opening { heard }),
        (given, pair).prop_map(|(upstream, pair)| Progress::Established { upstream, pair }),
    ]
}

fn passport() -> impl Strategy<Value = Passport> {
    let extra = prop::option::of(any::<String>());
    let parts = (address(), address(), extra, milliseconds(), progress());
    parts.prop_map(|(client, listener, extra_listener, age, progress)| Passport {
        client,
        listener,
        extra_listener,
        age,
        progress,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_are_read_as_they_were_written(passports in prop::collection::vec(passport(), 0..7)) {
        let written = batch::write(passports.iter()).unwrap();
        let held: usize = passports.iter().map(batch::held).sum();
        prop_assert_eq!(written.bytes, held as u64);
        prop_assert_eq!(read(written).unwrap(), passports);
    }
}

#[test]
fn a_batch_holds_no_more_connections_than_sockets_fit_into_a_record() {
    let full = vec![established(); MAX_PAIRS];
    assert_eq!(read(batch::write(full.iter()).unwrap()).unwrap(), full);
    let more = vec![established(); MAX_PAIRS + 1];
    let refused = read(batch::write(more.iter()).unwrap()).unwrap_err();
    assert!(
        matches!(refused, Error::TooMany { count } if count == MAX_PAIRS + 1),
        "{refused:?}"
    );
}

#[test]
fn a_file_that_is_larger_than_any_batch_is_refused() {
    let heard = Bytes::from(vec![0; 9 << 20]);
    let large = Passport {
        progress: Progress::Opening { heard },
        ..opening()
    };
    let refused = read(batch::write([large].iter()).unwrap()).unwrap_err();
    assert!(
        matches!(refused, Error::File(sealed::Error::TooLarge { .. })),
        "{refused:?}"
    );
}

fn opening() -> Passport {
    Passport {
        client: "127.0.0.1:40001".parse().unwrap(),
        listener: "127.0.0.1:7443".parse().unwrap(),
        extra_listener: Some("konnectivity".to_owned()),
        age: Duration::from_millis(7),
        progress: Progress::Opening {
            heard: Bytes::from_static(b"\x16\x03\x01"),
        },
    }
}

fn established() -> Passport {
    let direction = |moved, tail, phase| DirectionState {
        moved,
        tail: Bytes::from_static(tail),
        phase,
    };
    Passport {
        client: "[::1]:40001".parse().unwrap(),
        listener: "[::1]:7443".parse().unwrap(),
        extra_listener: None,
        age: Duration::from_secs(3600),
        progress: Progress::Established {
            upstream: Given {
                path: PathKey {
                    member: "cp1".to_owned(),
                    address: "10.0.0.11:6443".parse().unwrap(),
                },
                first_byte: Some(Duration::from_millis(3)),
                hedged: true,
                drains_within: None,
            },
            pair: PairState {
                sent: direction(517, b"", Phase::Open),
                received: direction(4_000_000_000, b"a list of pods", Phase::Ended),
                unanswered: 17,
            },
        },
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_batches() {
    let whole = input(&[established(), opening()]);
    keep("handover_pairs", "opening", &input(&[opening()]));
    keep("handover_pairs", "empty", &input(&[]));
    keep("handover_pairs", "torn", &whole[..whole.len() - 5]);
    keep("handover_pairs", "whole", &whole);
    let entry = br#"[{"client": "127.0.0.1:1", "listener": "127.0.0.1:2", "sent": {"held": 18446744073709551615}, "received": {"held": 2}}]x"#;
    let text = u16::try_from(entry.len() - 1).unwrap().to_be_bytes();
    keep("handover_pairs", "overflowing", &[&text[..], entry].concat());
    let later = br#"[{"client": "127.0.0.1:1", "listener": "127.0.0.1:2", "sent": {"held": 1, "priority": 7}, "tls": {"version": 4}}]x"#;
    let text = u16::try_from(later.len() - 1).unwrap().to_be_bytes();
    keep("handover_pairs", "later-minor", &[&text[..], later].concat());
}
