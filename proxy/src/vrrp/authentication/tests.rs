use std::{
    net::{Ipv4Addr, Ipv6Addr},
    slice,
};

use super::*;
use crate::vrrp::{
    address::{Ipv4Checksum, Ipv6Checksum},
    advertisement::{Addresses, Advertisement, Interval, Priority, Vrid},
    captures::{self, SECRET as CAPTURED, bytes},
    reception::{Accepted, Checksums, Header, HopLimits, read},
};

/// The examples of the draft's appendix, as the test of keepalived 2.4.3 has them: key 1, VRID 51, priority 200.
const DRAFT_V4: &str = "3133c80100644402c0000264\
    010100006800000080000000\
    1b84bc4e8e43892dc6d98448f8ee2265";
const DRAFT_V6: &str = "3133c8010064a2e9fe800000000000000000000000000100\
    010100006800000080000000\
    c8c56146ebfd66ee10ec4d8186461b78";

/// The stamp of both.
const DRAFT_STAMP: [u8; 8] = [0x68, 0, 0, 0, 0x80, 0, 0, 0];

fn key(number: u8) -> Key {
    Key::try_new(number, &CAPTURED).unwrap()
}

fn any<C>() -> Accepted<C> {
    Accepted {
        hop_limits: HopLimits::Any,
        checksums: Checksums::Any,
    }
}

fn header<A: Address>(source: A, destination: A) -> Header<A> {
    Header {
        source,
        destination,
        hop_limit: 255,
    }
}

fn draft_v4() -> Header<Ipv4Addr> {
    header(Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::GROUP)
}

fn draft_v6() -> Header<Ipv6Addr> {
    header("fe80::10".parse().unwrap(), "fe80::20".parse().unwrap())
}

/// A captured packet is verified with the key, and is what we sign at that time.
fn is_signed_alike<A: Address>((header, packet): (Header<A>, Vec<u8>)) {
    let received = read(&packet, &header, any()).unwrap();
    let stamp = received.authenticate(&[key(1)]).unwrap();
    let [a, b, c, d, ..] = stamp.to_bytes();
    // November 30th 2026, when they were captured.
    let day = 1_796_000_000..1_796_100_000;
    assert!(day.contains(&u32::from_be_bytes([a, b, c, d])), "{stamp:?}");
    let message = received
        .advertisement
        .message(header.source)
        .signed(&key(1), stamp);
    assert_eq!(message.packet(header.destination, received.checksum), packet);
}

#[test]
fn the_ipv4_example_of_the_draft_is_verified_and_is_what_we_sign() {
    let packet = bytes(DRAFT_V4);
    let received = read(&packet, &draft_v4(), any()).unwrap();
    assert_eq!(received.checksum, Ipv4Checksum::MessageOnly);
    let stamp = received.authenticate(&[key(1)]).unwrap();
    assert_eq!(stamp.to_bytes(), DRAFT_STAMP);
    let ours = received
        .advertisement
        .message(draft_v4().source)
        .signed(&key(1), stamp);
    assert_eq!(ours.packet(Ipv4Addr::GROUP, Ipv4Checksum::MessageOnly), packet);
}

#[test]
fn the_ipv6_example_of_the_draft_is_verified_and_is_what_we_sign() {
    let packet = bytes(DRAFT_V6);
    let received = read(&packet, &draft_v6(), any()).unwrap();
    let stamp = received.authenticate(&[key(1)]).unwrap();
    assert_eq!(stamp.to_bytes(), DRAFT_STAMP);
    let ours = received
        .advertisement
        .message(draft_v6().source)
        .signed(&key(1), stamp);
    assert_eq!(ours.packet(draft_v6().destination, Ipv6Checksum), packet);
}

#[test]
fn what_keepalived_signs_is_verified_and_is_what_we_sign() {
    for name in ["advertisement", "leaving"] {
        is_signed_alike(captures::SIGNED_V4_MULTICAST.v4(name));
        is_signed_alike(captures::SIGNED_V4_UNICAST.v4(name));
        is_signed_alike(captures::SIGNED_V6_MULTICAST.v6(name));
        is_signed_alike(captures::SIGNED_V6_UNICAST.v6(name));
    }
}

#[test]
fn the_key_that_a_trailer_names_is_tried_and_no_other() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    let received = read(&packet, &header, any()).unwrap();
    let other = Key::try_new(1, &[7; 32]).unwrap();
    let cases: [(&[Key], _); 5] = [
        (&[], Err(Rejection::UnknownKey { number: 1 })),
        (&[key(2)], Err(Rejection::UnknownKey { number: 1 })),
        (slice::from_ref(&other), Err(Rejection::Signature)),
        (&[key(2), key(1)], Ok(())),
        // Two keys with one number, while a group changes the secret.
        (&[other.clone(), key(1)], Ok(())),
    ];
    for (keys, outcome) in cases {
        assert_eq!(received.authenticate(keys).map(drop), outcome);
    }
}

#[test]
fn no_flipped_bit_of_a_signed_advertisement_is_accepted() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    for bit in 0..8 * packet.len() {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let accepted =
            read(&flipped, &header, any()).is_ok_and(|received| received.authenticate(&[key(1)]).is_ok());
        assert!(!accepted, "bit {bit}");
    }
}

#[test]
fn each_part_of_a_trailer_is_refused_for_its_reason() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    let trailer = packet.len() - TRAILER;
    for (at, rejection, reason) in [
        (0, Rejection::Type { found: 0 }, "TrailerType"),
        (1, Rejection::UnknownKey { number: 0 }, "UnknownKey"),
        (2, Rejection::Reserved, "TrailerReserved"),
        (3, Rejection::Reserved, "TrailerReserved"),
        (4, Rejection::Signature, "Signature"),
        (11, Rejection::Signature, "Signature"),
        (12, Rejection::Signature, "Signature"),
        (27, Rejection::Signature, "Signature"),
    ] {
        let mut flipped = packet.clone();
        flipped[trailer + at] ^= 1;
        let received = read(&flipped, &header, any()).unwrap();
        assert_eq!(received.authenticate(&[key(1)]), Err(rejection));
        assert_eq!(rejection.reason(), reason);
    }
    assert_eq!(Rejection::Missing.reason(), "Unsigned");
}

#[test]
fn a_trailer_fits_no_other_source() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    // The sum of the addresses is the same, so that the checksum is right.
    let swapped = Header {
        source: header.destination,
        destination: header.source,
        ..header
    };
    let received = read(&packet, &swapped, any()).unwrap();
    assert_eq!(received.authenticate(&[key(1)]), Err(Rejection::Signature));
}

#[test]
fn a_trailer_fits_no_other_virtual_router_priority_interval_or_address() {
    let address = Ipv4Addr::new(10, 99, 0, 100);
    let advertisement = Advertisement {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority::new(200),
        interval: Interval::from_centiseconds(20).unwrap(),
        addresses: Addresses::new(vec![address]).unwrap(),
    };
    let source = Ipv4Addr::new(10, 99, 0, 1);
    let stamp = Stamp::from_bytes(DRAFT_STAMP);
    let signed = |advertisement: &Advertisement<Ipv4Addr>| {
        let message = advertisement.message(source).signed(&key(1), stamp);
        message.packet(Ipv4Addr::GROUP, Ipv4Checksum::WithPseudoHeader)
    };
    let ours = signed(&advertisement);
    let trailer = &ours[ours.len() - TRAILER..];
    for other in [
        Advertisement {
            vrid: Vrid::new(52).unwrap(),
            ..advertisement.clone()
        },
        Advertisement {
            priority: Priority::LEAVING,
            ..advertisement.clone()
        },
        Advertisement {
            interval: Interval::MAX,
            ..advertisement.clone()
        },
        Advertisement {
            addresses: Addresses::new(vec![source]).unwrap(),
            ..advertisement.clone()
        },
    ] {
        let mut packet = signed(&other);
        let at = packet.len() - TRAILER;
        packet[at..].copy_from_slice(trailer);
        let received = read(&packet, &header(source, Ipv4Addr::GROUP), any()).unwrap();
        assert_eq!(received.authenticate(&[key(1)]), Err(Rejection::Signature));
    }
}

#[test]
fn each_peer_gets_the_same_trailer() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    let received = read(&packet, &header, any()).unwrap();
    let stamp = received.authenticate(&[key(1)]).unwrap();
    let message = received
        .advertisement
        .message(header.source)
        .signed(&key(1), stamp);
    assert_eq!(
        message.packet(header.destination, Ipv4Checksum::WithPseudoHeader),
        packet
    );
    let other = message.packet(Ipv4Addr::new(10, 99, 0, 3), Ipv4Checksum::WithPseudoHeader);
    assert_ne!(other[6..8], packet[6..8]);
    assert_eq!(other[8..], packet[8..]);
}

#[test]
fn a_message_that_is_signed_again_has_one_trailer() {
    let (header, packet) = captures::SIGNED_V4_UNICAST.v4("advertisement");
    let received = read(&packet, &header, any()).unwrap();
    let message = received.advertisement.message(header.source);
    let stamp = Stamp::from_bytes(DRAFT_STAMP);
    let once = message.clone().signed(&key(1), stamp);
    assert_eq!(message.signed(&key(2), stamp).signed(&key(1), stamp), once);
}

#[test]
fn a_key_has_a_number_and_a_secret_of_32_to_64_bytes() {
    assert_eq!(Key::try_new(0, &[1; 32]).unwrap_err(), KeyError::Number);
    for bytes in [0, 31, 65] {
        assert_eq!(
            Key::try_new(1, &vec![1; bytes]).unwrap_err(),
            KeyError::Length { bytes }
        );
    }
    for bytes in [32, 64] {
        assert_eq!(Key::try_new(255, &vec![1; bytes]).unwrap().number(), 255);
    }
}

#[test]
fn a_key_does_not_show_its_secret() {
    assert_eq!(format!("{:?}", key(3)), "Key(3)");
}
