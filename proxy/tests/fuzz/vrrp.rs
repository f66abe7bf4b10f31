//! What anybody on the link sends to an agent of a virtual address: no packet is misread, no signature is forged, and no frame
//! gives an address to nobody.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    slice,
};

use trivet_proxy::vrrp::{
    PROTOCOL,
    address::Address,
    announcement::announcements,
    authentication::{Key, TRAILER},
    claim::{Claim, Kind},
    reception::{Accepted, Checksums, Header, HopLimits, Received, read},
};

use crate::search::{fuzz, keep};

/// The bytes of a frame before what an IPv4 and an IPv6 packet hold.
const IPV4: usize = 14 + 20;
const IPV6: usize = 14 + 40;

/// Captured advertisements: what their frames say first, and where their packets begin.
const CAPTURES: [(&str, &str, usize); 6] = [
    (
        "v4",
        include_str!("../../src/vrrp/captures/keepalived-v4-multicast.hex"),
        IPV4,
    ),
    (
        "v6",
        include_str!("../../src/vrrp/captures/keepalived-v6-multicast.hex"),
        IPV6,
    ),
    (
        "three-addresses",
        include_str!("../../src/vrrp/captures/keepalived-v4-unicast.hex"),
        IPV4,
    ),
    (
        "message-only",
        include_str!("../../src/vrrp/captures/keepalived-v4-message-only.hex"),
        IPV4,
    ),
    (
        "signed-v4",
        include_str!("../../src/vrrp/captures/keepalived-hmac-v4-multicast.hex"),
        IPV4,
    ),
    (
        "signed-v6",
        include_str!("../../src/vrrp/captures/keepalived-hmac-v6-multicast.hex"),
        IPV6,
    ),
];

/// Captured frames that say who has an address.
const CLAIMS: &str = include_str!("../../src/vrrp/captures/linux.hex");

/// The headers of the captured packets to a group.
const V4: Header<Ipv4Addr> = Header {
    source: Ipv4Addr::new(10, 99, 0, 1),
    destination: Ipv4Addr::GROUP,
    hop_limit: 255,
};
const V6: Header<Ipv6Addr> = Header {
    source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa),
    destination: Ipv6Addr::GROUP,
    hop_limit: 255,
};

#[test]
fn no_advertisement_is_misread_and_none_is_forged() {
    let key = Key::try_new(
        1,
        &std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()),
    )
    .unwrap();
    let is_signed = |packet: &[u8]| is_verified(packet, &V4, &key) || is_verified(packet, &V6, &key);
    let real = ["signed-v4", "signed-v6"].map(packets).concat();
    assert!(real.iter().all(|packet| is_signed(packet)));
    let signed: Vec<_> = real.iter().map(|packet| without_checksum(packet)).collect();
    let check = |packet: &[u8]| {
        let is_real = signed.contains(&without_checksum(packet));
        assert!(is_real || !is_signed(packet), "forged: {packet:x?}");
    };
    fuzz("vrrp_advertisement", &real, |packet| {
        check(packet);
        // Most changes end at the checksum. These go on.
        let whole = packet.len();
        for message in [Some(whole), whole.checked_sub(TRAILER)] {
            if let Some(message @ 8..) = message {
                check(&repaired(packet, message, &V4));
            }
        }
        if whole >= 8 {
            check(&repaired(packet, whole, &V6));
        }
    });
}

/// Whether this is an advertisement that a holder of the key signed.
fn is_verified<A: Address>(packet: &[u8], header: &Header<A>, key: &Key) -> bool {
    let accepted = Accepted {
        hop_limits: HopLimits::OnLink,
        checksums: Checksums::Any,
    };
    let Ok(received) = read(packet, header, accepted) else {
        return false;
    };
    is_said_again(packet, header, &received);
    received.authenticate(slice::from_ref(key)).is_ok()
}

/// What was understood becomes the same bytes again, but for those that mean nothing and the checksum of them.
fn is_said_again<A: Address>(packet: &[u8], header: &Header<A>, received: &Received<'_, A>) {
    let message = received.advertisement.message(header.source);
    let again = message.packet(header.destination, received.checksum);
    let trailer = if received.has_trailer() { TRAILER } else { 0 };
    assert_eq!(again.len() + trailer, packet.len());
    let mut meant = without_checksum(&packet[..again.len()]);
    meant[4] &= 0xf;
    assert_eq!(without_checksum(&again), meant);
}

fn without_checksum(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.iter_mut().skip(6).take(2).for_each(|byte| *byte = 0);
    packet
}

/// The packet with the checksum of so many of its bytes and of the pseudo-header.
fn repaired<A: Address>(packet: &[u8], covered: usize, header: &Header<A>) -> Vec<u8> {
    let mut packet = without_checksum(packet);
    let ends = [header.source.octets(), header.destination.octets()];
    let ends = ends.each_ref().map(AsRef::as_ref).concat();
    let sum = words(&ends) + words(&packet[..covered]) + u64::from(PROTOCOL) + covered as u64;
    packet[6..8].copy_from_slice(&checksum(sum));
    packet
}

#[test]
fn no_frame_gives_an_address_to_nobody() {
    let real: Vec<_> = frames(CLAIMS).into_iter().map(|(_, frame)| frame).collect();
    fuzz("vrrp_claim", &real, |frame| {
        is_of_somebody(frame);
        if frame.len() > IPV6 + 8 && frame[20] == 58 {
            is_of_somebody(&repaired_neighbor(frame));
        }
    });
}

fn is_of_somebody(frame: &[u8]) {
    let Some(claim) = Claim::of(frame) else { return };
    let Claim { address, mac, .. } = claim;
    assert!(mac.is_unicast(), "{claim:?}");
    assert!(!address.is_multicast() && !address.is_unspecified(), "{claim:?}");
    for frame in announcements(address, mac, false) {
        let kind = Kind::Possession;
        assert_eq!(Claim::of(&frame), Some(Claim { kind, ..claim }));
    }
}

/// The frame with its own length, and with the checksum of ICMPv6.
fn repaired_neighbor(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let length = u16::try_from(frame.len() - IPV6).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[56..58].fill(0);
    let sum = words(&frame[22..]) + 58 + u64::from(length);
    frame[56..58].copy_from_slice(&checksum(sum));
    frame
}

fn words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let words = words.map(|word| [word[0], word.get(1).copied().unwrap_or(0)]);
    words.map(|word| u64::from(u16::from_be_bytes(word))).sum()
}

/// The remainder by 65,535 is the one's complement sum.
fn checksum(sum: u64) -> [u8; 2] {
    (!u16::try_from(sum % 0xffff).unwrap()).to_be_bytes()
}

/// The advertisements of a capture.
fn packets(named: &str) -> Vec<Vec<u8>> {
    let (_, text, start) = CAPTURES.into_iter().find(|(name, ..)| *name == named).unwrap();
    let frames = frames(text).into_iter();
    let advertisements = frames.filter(|(name, _)| name != "announcement");
    advertisements.map(|(_, frame)| frame[start..].to_vec()).collect()
}

/// The frames of a file, with their names.
fn frames(text: &str) -> Vec<(String, Vec<u8>)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let named = lines.map(|line| line.split_once(' ').unwrap());
    named.map(|(name, hex)| (name.to_owned(), bytes(hex))).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_packets() {
    for (name, ..) in CAPTURES {
        keep("vrrp_advertisement", name, &packets(name)[0]);
    }
    let packet = packets("signed-v4").swap_remove(1);
    keep("vrrp_advertisement", "torn", &packet[..packet.len() - 3]);
    for (name, frame) in frames(CLAIMS) {
        keep("vrrp_claim", &name, &frame);
    }
}
