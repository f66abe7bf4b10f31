//! Frames that other programs sent, as tcpdump captured them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::reception::Header;

/// A file of `captures/`: one frame a line, its name before it.
pub(super) struct Capture(&'static str);

pub(super) const KEEPALIVED_V4_MULTICAST: Capture =
    Capture(include_str!("captures/keepalived-v4-multicast.hex"));
pub(super) const KEEPALIVED_V4_UNICAST: Capture = Capture(include_str!("captures/keepalived-v4-unicast.hex"));
pub(super) const KEEPALIVED_V4_MESSAGE_ONLY: Capture =
    Capture(include_str!("captures/keepalived-v4-message-only.hex"));
pub(super) const KEEPALIVED_V6_MULTICAST: Capture =
    Capture(include_str!("captures/keepalived-v6-multicast.hex"));
pub(super) const KEEPALIVED_V6_UNICAST: Capture = Capture(include_str!("captures/keepalived-v6-unicast.hex"));
pub(super) const SIGNED_V4_MULTICAST: Capture =
    Capture(include_str!("captures/keepalived-hmac-v4-multicast.hex"));
pub(super) const SIGNED_V4_UNICAST: Capture =
    Capture(include_str!("captures/keepalived-hmac-v4-unicast.hex"));
pub(super) const SIGNED_V6_MULTICAST: Capture =
    Capture(include_str!("captures/keepalived-hmac-v6-multicast.hex"));
pub(super) const SIGNED_V6_UNICAST: Capture =
    Capture(include_str!("captures/keepalived-hmac-v6-unicast.hex"));
pub(super) const FRR_V4_MULTICAST: Capture = Capture(include_str!("captures/frr-v4-multicast.hex"));
pub(super) const FRR_V6_MULTICAST: Capture = Capture(include_str!("captures/frr-v6-multicast.hex"));
pub(super) const LINUX: Capture = Capture(include_str!("captures/linux.hex"));

/// The key with which keepalived signed.
pub(super) const SECRET: [u8; 32] = {
    let mut secret = [0; 32];
    let mut next = 0;
    while next < 32 {
        secret[next as usize] = next;
        next += 1;
    }
    secret
};

impl Capture {
    /// The frames with this name.
    pub(super) fn all(&self, name: &str) -> Vec<Vec<u8>> {
        let lines = self.0.lines().filter_map(|line| line.split_once(' '));
        let frames: Vec<_> = lines
            .filter(|(named, _)| *named == name)
            .map(|(_, hex)| bytes(hex))
            .collect();
        assert!(!frames.is_empty(), "no {name}");
        frames
    }

    /// The first frame with this name.
    pub(super) fn frame(&self, name: &str) -> Vec<u8> {
        self.all(name).swap_remove(0)
    }

    /// The IPv4 header of the first frame with this name, and what its packet holds.
    pub(super) fn v4(&self, name: &str) -> (Header<Ipv4Addr>, Vec<u8>) {
        let frame = self.frame(name);
        assert_eq!(frame[12..15], [0x08, 0x00, 0x45]);
        assert_eq!(frame[23], super::PROTOCOL);
        let address = |at: usize| Ipv4Addr::from(*frame[at..].first_chunk::<4>().unwrap());
        let header = Header {
            source: address(26),
            destination: address(30),
            hop_limit: frame[22],
        };
        (header, frame[34..].to_vec())
    }

    /// The IPv6 header of the first frame with this name, and what its packet holds.
    pub(super) fn v6(&self, name: &str) -> (Header<Ipv6Addr>, Vec<u8>) {
        let frame = self.frame(name);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        assert_eq!(frame[20], super::PROTOCOL);
        let address = |at: usize| Ipv6Addr::from(*frame[at..].first_chunk::<16>().unwrap());
        let header = Header {
            source: address(22),
            destination: address(38),
            hop_limit: frame[21],
        };
        (header, frame[54..].to_vec())
    }
}

/// What hexadecimal digits say.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.trim().as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
