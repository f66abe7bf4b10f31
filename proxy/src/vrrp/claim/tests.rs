use proptest::prelude::*;

use super::*;
use crate::vrrp::{announcement::announcements, captures};

const A: Mac = Mac::new([2, 0, 0, 0, 0, 0x0a]);
const B: Mac = Mac::new([2, 0, 0, 0, 0, 0x0b]);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn claim(address: &str, mac: Mac, kind: Kind) -> Claim {
    Claim {
        address: address.parse().unwrap(),
        mac,
        kind,
    }
}

#[test]
fn what_linux_and_arping_say_about_an_address_is_understood() {
    for (name, expected) in [
        ("arp-question", claim("10.99.0.1", A, Kind::Possession)),
        ("arp-answer", claim("10.99.0.100", B, Kind::Possession)),
        ("arp-probe", claim("10.99.0.100", A, Kind::Probe)),
        ("arp-probe-answer", claim("10.99.0.100", B, Kind::Possession)),
        ("gratuitous-request", claim("10.99.0.100", B, Kind::Possession)),
        ("gratuitous-reply", claim("10.99.0.100", B, Kind::Possession)),
        ("duplicate-detection", claim("fd99::100", B, Kind::Probe)),
        ("solicitation", claim("fd99::1", A, Kind::Possession)),
        ("answer", claim("fd99::100", B, Kind::Possession)),
        ("duplicate-detection-of-a", claim("fd99::100", A, Kind::Probe)),
        ("duplicate-answer", claim("fd99::100", B, Kind::Possession)),
    ] {
        assert_eq!(Claim::of(&captures::LINUX.frame(name)), Some(expected), "{name}");
    }
}

#[test]
fn what_keepalived_and_frr_announce_is_understood() {
    let virtual_v4 = Mac::new([0, 0, 0x5e, 0, 1, 0x33]);
    let virtual_v6 = Mac::new([0, 0, 0x5e, 0, 2, 0x33]);
    for (capture, mac, expected) in [
        (captures::KEEPALIVED_V4_MULTICAST, A, &["10.99.0.100"][..]),
        (captures::FRR_V4_MULTICAST, virtual_v4, &["10.99.0.100"]),
        (captures::KEEPALIVED_V6_MULTICAST, A, &["fe80::100", "fd99::100"]),
        (
            captures::FRR_V6_MULTICAST,
            virtual_v6,
            &["fe80::100", "fd99::100"],
        ),
    ] {
        let announced = capture.all("announcement");
        let claims: Vec<_> = announced.iter().filter_map(|frame| Claim::of(frame)).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|address| claim(address, mac, Kind::Possession))
            .collect();
        assert_eq!(claims, expected);
    }
}

#[test]
fn only_who_has_our_address_with_another_mac_address_contradicts() {
    let ours = address("10.99.0.100");
    let answer = Claim::of(&captures::LINUX.frame("arp-answer")).unwrap();
    assert!(answer.contradicts(ours, &[A]));
    assert!(!answer.contradicts(ours, &[A, B]));
    assert!(!answer.contradicts(address("10.99.0.101"), &[A]));
    let probe = Claim::of(&captures::LINUX.frame("arp-probe")).unwrap();
    assert!(!probe.contradicts(ours, &[B]));
}

#[test]
fn padding_of_a_frame_changes_nothing() {
    for name in ["arp-answer", "answer"] {
        let frame = captures::LINUX.frame(name);
        let padded = [&frame[..], &[0x55; 18]].concat();
        assert_eq!(Claim::of(&padded), Claim::of(&frame));
    }
}

#[test]
fn a_frame_that_is_cut_says_nothing() {
    for name in ["arp-answer", "answer", "duplicate-detection"] {
        let frame = captures::LINUX.frame(name);
        for length in 0..frame.len() {
            assert_eq!(Claim::of(&frame[..length]), None);
        }
    }
}

type Change = fn(&mut Vec<u8>);

/// The captured Neighbor Advertisement after a change, with a checksum that is right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Option<Claim> {
    let mut frame = captures::LINUX.frame("answer");
    change(&mut frame);
    frame[56..58].fill(0);
    let length = u8::try_from(frame.len() - 54).unwrap();
    frame[19] = length;
    let sum = Sum::default()
        .with(&frame[22..54])
        .with(&[0, length, 0, ICMPV6])
        .with(&frame[54..]);
    frame[56..58].copy_from_slice(&sum.checksum());
    Claim::of(&frame)
}

#[test]
fn an_advertisement_without_a_link_layer_address_speaks_for_the_frames_sender() {
    let bare = changed(|frame| frame.truncate(78));
    assert_eq!(bare, Some(claim("fd99::100", B, Kind::Possession)));
    let mac = Mac::new([2, 0, 0, 0, 0, 0x0c]);
    let other = changed(|frame| frame[80..86].copy_from_slice(&mac.octets()));
    assert_eq!(other, Some(claim("fd99::100", mac, Kind::Possession)));
    let unknown = changed(|frame| frame[78] = 14);
    assert_eq!(unknown, Some(claim("fd99::100", B, Kind::Possession)));
}

#[test]
fn a_neighbor_discovery_message_that_rfc_4861_ignores_says_nothing() {
    let cases: [(&str, Change); 8] = [
        ("another version of IP", |frame| frame[14] = 0x40),
        ("another hop limit", |frame| frame[21] = 254),
        ("another type", |frame| frame[54] = 137),
        ("another code", |frame| frame[55] = 1),
        ("an option without length", |frame| frame[79] = 0),
        ("an option beyond the end", |frame| frame[79] = 2),
        ("half an option", |frame| frame.truncate(79)),
        ("an answer to a group", |frame| frame[38] = 0xff),
    ];
    for (what, change) in cases {
        assert_eq!(changed(change), None, "{what}");
    }
    assert!(changed(|_| {}).is_some());
}

#[test]
fn an_address_or_a_mac_address_of_a_group_belongs_to_nobody() {
    assert_eq!(changed(|frame| frame[62] = 0xff), None);
    assert_eq!(changed(|frame| frame[62..78].fill(0)), None);
    assert_eq!(changed(|frame| frame[80] = 1), None);
    assert_eq!(changed(|frame| frame[80..86].fill(0)), None);
    let mut arp = captures::LINUX.frame("arp-answer");
    arp[22] |= 1;
    assert_eq!(Claim::of(&arp), None);
}

#[test]
fn arp_of_other_hardware_protocols_or_operations_says_nothing() {
    for at in 12..22 {
        let mut arp = captures::LINUX.frame("arp-answer");
        arp[at] ^= 0x10;
        assert_eq!(Claim::of(&arp), None, "byte {at}");
    }
    for operation in [0, 3, 4] {
        let mut arp = captures::LINUX.frame("arp-answer");
        arp[21] = operation;
        assert_eq!(Claim::of(&arp), None);
    }
}

proptest! {
    #[test]
    fn what_we_announce_is_understood(address in any::<IpAddr>(), mac in any::<[u8; 6]>(), is_router in any::<bool>()) {
        // Locally administered, and no group's.
        let mut mac = mac;
        mac[0] = mac[0] & !1 | 2;
        let mac = Mac::new(mac);
        prop_assume!(!address.is_multicast() && !address.is_unspecified());
        for frame in announcements(address, mac, is_router) {
            prop_assert_eq!(Claim::of(&frame), Some(Claim { address, mac, kind: Kind::Possession }));
        }
    }

    #[test]
    fn a_flipped_bit_of_a_neighbor_discovery_message_is_noticed(bit in 0..(32 * 8_usize)) {
        let mut frame = captures::LINUX.frame("answer");
        frame[54 + bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Claim::of(&frame), None);
    }
}
