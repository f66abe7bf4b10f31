use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::vrrp::{
    address::{Ipv4Checksum, Ipv6Checksum},
    captures,
};

const STRICT: Accepted<Ipv4Checksum> = Accepted {
    hop_limits: HopLimits::OnLink,
    checksums: Checksums::Only(Ipv4Checksum::WithPseudoHeader),
};

const ANY_CHECKSUM: Accepted<Ipv4Checksum> = Accepted {
    checksums: Checksums::Any,
    ..STRICT
};

const STRICT_V6: Accepted<Ipv6Checksum> = Accepted {
    hop_limits: HopLimits::OnLink,
    checksums: Checksums::Only(Ipv6Checksum),
};

fn said<A: Address>(advertisement: &Advertisement<A>) -> (u8, u8, u16, Vec<IpAddr>) {
    let addresses = advertisement.addresses.as_slice();
    (
        advertisement.vrid.get(),
        advertisement.priority.get(),
        advertisement.interval.centiseconds(),
        addresses.iter().map(|address| (*address).into()).collect(),
    )
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn advertisements_of_keepalived_and_frr_say_in_ipv4_what_they_were_told_to() {
    for (capture, members) in [
        (captures::KEEPALIVED_V4_MULTICAST, &["10.99.0.100"][..]),
        (captures::FRR_V4_MULTICAST, &["10.99.0.100"]),
        (
            captures::KEEPALIVED_V4_UNICAST,
            &["10.99.0.100", "10.99.0.101", "10.99.0.102"],
        ),
    ] {
        for (name, priority) in [("advertisement", 200), ("leaving", 0)] {
            let (header, packet) = capture.v4(name);
            let received = read(&packet, &header, STRICT).unwrap();
            assert_eq!(
                said(&received.advertisement),
                (51, priority, 10, addresses(members))
            );
            assert!(!received.has_trailer());
            assert_eq!(
                received.authenticate(&[]),
                Err(authentication::Rejection::Missing)
            );
        }
    }
}

#[test]
fn advertisements_of_keepalived_and_frr_say_in_ipv6_what_they_were_told_to() {
    for capture in [captures::KEEPALIVED_V6_MULTICAST, captures::FRR_V6_MULTICAST] {
        for (name, priority) in [("advertisement", 200), ("leaving", 0)] {
            let (header, packet) = capture.v6(name);
            let received = read(&packet, &header, STRICT_V6).unwrap();
            let members = addresses(&["fe80::100", "fd99::100"]);
            assert_eq!(said(&received.advertisement), (51, priority, 10, members));
        }
    }
}

#[test]
fn a_hop_limit_below_255_is_refused_unless_all_are_accepted() {
    let (header, packet) = captures::KEEPALIVED_V6_UNICAST.v6("advertisement");
    assert_eq!(header.hop_limit, 64);
    let refused = read(&packet, &header, STRICT_V6).unwrap_err();
    assert_eq!(refused, Rejection::HopLimit { found: 64 });
    let any = Accepted {
        hop_limits: HopLimits::Any,
        ..STRICT_V6
    };
    assert_eq!(
        read(&packet, &header, any)
            .unwrap()
            .advertisement
            .interval
            .centiseconds(),
        20
    );
}

#[test]
fn a_checksum_without_pseudo_header_is_accepted_where_any_is_and_is_told() {
    let (header, packet) = captures::KEEPALIVED_V4_MESSAGE_ONLY.v4("advertisement");
    assert_eq!(
        read(&packet, &header, STRICT),
        Err(Rejection::Checksum { found: 0xfbef })
    );
    let received = read(&packet, &header, ANY_CHECKSUM).unwrap();
    assert_eq!(received.checksum, Ipv4Checksum::MessageOnly);
    let only = Accepted {
        checksums: Checksums::Only(Ipv4Checksum::MessageOnly),
        ..STRICT
    };
    read(&packet, &header, only).unwrap();
    let (header, packet) = captures::KEEPALIVED_V4_MULTICAST.v4("advertisement");
    read(&packet, &header, only).unwrap_err();
    let received = read(&packet, &header, ANY_CHECKSUM).unwrap();
    assert_eq!(received.checksum, Ipv4Checksum::WithPseudoHeader);
}

#[test]
fn a_checksum_belongs_to_its_source_and_its_destination() {
    let (header, packet) = captures::KEEPALIVED_V4_UNICAST.v4("advertisement");
    let other = Ipv4Addr::new(10, 99, 0, 7);
    for header in [
        Header {
            source: other,
            ..header
        },
        Header {
            destination: Ipv4Addr::GROUP,
            ..header
        },
    ] {
        let refused = read(&packet, &header, STRICT).unwrap_err();
        assert!(matches!(refused, Rejection::Checksum { .. }), "{refused:?}");
    }
}

type Change = fn(&mut Vec<u8>);

/// The packet of the capture after a change, with a checksum that is right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Rejection> {
    let (header, mut packet) = captures::KEEPALIVED_V4_UNICAST.v4("advertisement");
    change(&mut packet);
    if packet.len() >= HEAD {
        packet[6..8].fill(0);
        let length = packet.len().min(HEAD + 4 * usize::from(packet[3]));
        let sum = Ipv4Addr::sum(
            Ipv4Checksum::WithPseudoHeader,
            header.source,
            header.destination,
            &packet[..length],
            &[],
        );
        packet[6..8].copy_from_slice(&(!sum).to_be_bytes());
    }
    read(&packet, &header, STRICT).map(drop)
}

#[test]
fn what_is_no_advertisement_is_refused_for_its_reason() {
    let cases: [(Change, Rejection, &str); 9] = [
        (
            |packet| packet.truncate(7),
            Rejection::Truncated { bytes: 7 },
            "Truncated",
        ),
        (
            |packet| packet.truncate(19),
            Rejection::Truncated { bytes: 19 },
            "Truncated",
        ),
        (
            |packet| packet[0] = 0x21,
            Rejection::Version { found: 2 },
            "Version",
        ),
        (|packet| packet[0] = 0x32, Rejection::Type { found: 2 }, "Type"),
        (|packet| packet[1] = 0, Rejection::Vrid, "Vrid"),
        (
            |packet| packet[3] = 4,
            Rejection::Truncated { bytes: 20 },
            "Truncated",
        ),
        (
            |packet| packet[3] = 2,
            Rejection::Trailing { bytes: 4 },
            "Trailing",
        ),
        (|packet| packet[4..6].fill(0), Rejection::Interval, "Interval"),
        (
            |packet| {
                packet[3] = 0;
                packet.truncate(HEAD);
            },
            Rejection::NoAddress,
            "NoAddress",
        ),
    ];
    for (change, rejection, reason) in cases {
        assert_eq!(changed(change), Err(rejection));
        assert_eq!(rejection.reason(), reason);
    }
    assert_eq!(changed(|_| {}), Ok(()));
}

#[test]
fn reserved_bits_of_the_interval_are_ignored() {
    let (header, mut packet) = captures::KEEPALIVED_V4_UNICAST.v4("advertisement");
    packet[4] |= 0xf0;
    packet[6..8].fill(0);
    let sum = Ipv4Addr::sum(
        Ipv4Checksum::MessageOnly,
        header.source,
        header.destination,
        &packet,
        &[],
    );
    packet[6..8].copy_from_slice(&(!sum).to_be_bytes());
    let received = read(&packet, &header, ANY_CHECKSUM).unwrap();
    assert_eq!(received.advertisement.interval.centiseconds(), 10);
}

#[test]
fn only_as_many_bytes_as_a_trailer_has_may_follow_the_addresses() {
    for bytes in 1..64 {
        let outcome = changed(|packet| packet.extend(vec![0; bytes]));
        let expected = if bytes == TRAILER {
            Ok(())
        } else {
            Err(Rejection::Trailing { bytes })
        };
        assert_eq!(outcome, expected);
    }
}

fn advertisement<A: Address>(address: impl Strategy<Value = A>) -> impl Strategy<Value = Advertisement<A>> {
    let addresses = prop::collection::vec(address, 1..20);
    (1..=u8::MAX, any::<u8>(), 1..=4095_u16, addresses).prop_map(|(vrid, priority, interval, addresses)| {
        Advertisement {
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority::new(priority),
            interval: Interval::from_centiseconds(interval).unwrap(),
            addresses: Addresses::new(addresses).unwrap(),
        }
    })
}

/// A packet as it is sent, and its header.
fn sent<A: Address>(
    advertisement: &Advertisement<A>,
    (source, destination): (A, A),
    checksum: A::Checksum,
    signature: Option<(&Key, Stamp)>,
) -> (Header<A>, Vec<u8>) {
    let message = advertisement.message(source);
    let message = match signature {
        Some((key, stamp)) => message.signed(key, stamp),
        None => message,
    };
    let header = Header {
        source,
        destination,
        hop_limit: HOP_LIMIT,
    };
    (header, message.packet(destination, checksum))
}

fn key() -> Key {
    Key::try_new(7, &captures::SECRET).unwrap()
}

/// What is sent is read as it was said, with the checksum that it has, signed or not.
fn survives<A: Address>(
    advertisement: &Advertisement<A>,
    ends: (A, A),
    stamp: Option<Stamp>,
) -> Result<(), TestCaseError> {
    let key = key();
    for &checksum in A::CHECKSUMS {
        let accepted = Accepted {
            hop_limits: HopLimits::OnLink,
            checksums: Checksums::Only(checksum),
        };
        let (header, packet) = sent(advertisement, ends, checksum, stamp.map(|stamp| (&key, stamp)));
        let received = read(&packet, &header, accepted);
        let received = received.map_err(|refused| TestCaseError::fail(refused.to_string()))?;
        prop_assert_eq!(&received.advertisement, advertisement);
        prop_assert_eq!(received.has_trailer(), stamp.is_some());
        prop_assert_eq!(received.authenticate(std::slice::from_ref(&key)).ok(), stamp);
    }
    Ok(())
}

/// No flipped bit is overlooked: the checksum notices it, or the signature where the checksum does not cover it.
fn is_noticed<A: Address>(
    advertisement: &Advertisement<A>,
    ends: (A, A),
    stamp: Option<Stamp>,
    bit: prop::sample::Index,
) -> Result<(), TestCaseError> {
    let key = key();
    for &checksum in A::CHECKSUMS {
        let accepted = Accepted {
            hop_limits: HopLimits::OnLink,
            checksums: Checksums::Only(checksum),
        };
        let (header, mut packet) = sent(advertisement, ends, checksum, stamp.map(|stamp| (&key, stamp)));
        let bit = bit.index(8 * packet.len());
        packet[bit / 8] ^= 1 << (bit % 8);
        if let Ok(received) = read(&packet, &header, accepted) {
            prop_assert!(stamp.is_some(), "bit {} is overlooked", bit);
            prop_assert!(
                received.authenticate(std::slice::from_ref(&key)).is_err(),
                "bit {} is overlooked",
                bit
            );
        }
    }
    Ok(())
}

fn stamp() -> impl Strategy<Value = Option<Stamp>> {
    prop::option::of(any::<[u8; 8]>().prop_map(Stamp::from_bytes))
}

#[test]
fn the_longest_advertisement_is_read_as_it_was_sent() {
    let longest = Advertisement {
        vrid: Vrid::new(255).unwrap(),
        priority: Priority::OWNER,
        interval: Interval::MAX,
        addresses: Addresses::new(vec![Ipv6Addr::from([0xff; 16]); 255]).unwrap(),
    };
    survives(&longest, (Ipv6Addr::LOCALHOST, Ipv6Addr::GROUP), None).unwrap();
    let stamp = Stamp::from_bytes([0xff; 8]);
    survives(&longest, (Ipv6Addr::LOCALHOST, Ipv6Addr::GROUP), Some(stamp)).unwrap();
}

proptest! {
    #[test]
    fn every_ipv4_advertisement_is_read_as_it_was_sent(
        advertisement in advertisement(any::<Ipv4Addr>()), ends in any::<(Ipv4Addr, Ipv4Addr)>(), stamp in stamp(),
    ) {
        survives(&advertisement, ends, stamp)?;
    }

    #[test]
    fn every_ipv6_advertisement_is_read_as_it_was_sent(
        advertisement in advertisement(any::<Ipv6Addr>()), ends in any::<(Ipv6Addr, Ipv6Addr)>(), stamp in stamp(),
    ) {
        survives(&advertisement, ends, stamp)?;
    }

    #[test]
    fn a_flipped_bit_of_an_ipv4_advertisement_is_noticed(
        advertisement in advertisement(any::<Ipv4Addr>()),
        ends in any::<(Ipv4Addr, Ipv4Addr)>(),
        stamp in stamp(),
        bit in any::<prop::sample::Index>(),
    ) {
        is_noticed(&advertisement, ends, stamp, bit)?;
    }

    #[test]
    fn a_flipped_bit_of_an_ipv6_advertisement_is_noticed(
        advertisement in advertisement(any::<Ipv6Addr>()),
        ends in any::<(Ipv6Addr, Ipv6Addr)>(),
        stamp in stamp(),
        bit in any::<prop::sample::Index>(),
    ) {
        is_noticed(&advertisement, ends, stamp, bit)?;
    }
}

#[test]
fn every_flipped_bit_of_a_captured_advertisement_is_noticed() {
    let (header, packet) = captures::KEEPALIVED_V4_MULTICAST.v4("advertisement");
    for bit in 0..8 * packet.len() {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        read(&flipped, &header, STRICT).unwrap_err();
    }
    let (header, packet) = captures::KEEPALIVED_V6_MULTICAST.v6("advertisement");
    for bit in 0..8 * packet.len() {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        read(&flipped, &header, STRICT_V6).unwrap_err();
    }
}
