//! The Internet checksum (RFC 1071), and the pseudo-headers that it may cover.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What the words of a message sum up to if its checksum is right.
pub(super) const VALID: u16 = 0xffff;

/// The one's complement sum of the words so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u16);

impl Sum {
    /// The sum of what TCP, UDP and VRRP put before an IPv4 message of so many bytes (RFC 9293, 3.1).
    pub(super) fn ipv4_pseudo_header(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        Self::default()
            .with(&source.octets())
            .with(&destination.octets())
            .with(&[0, protocol])
            .with(&(length as u64).to_be_bytes())
    }

    /// The sum of the pseudo-header of an IPv6 message of so many bytes (RFC 8200, 8.1).
    pub(super) fn ipv6_pseudo_header(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        Self::default()
            .with(&source.octets())
            .with(&destination.octets())
            .with(&(length as u64).to_be_bytes())
            .with(&[0, protocol])
    }

    /// The sum with these bytes more. A part of odd length must be the last one.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let (words, odd) = bytes.as_chunks::<2>();
        let sum = words
            .iter()
            .fold(self.0, |sum, word| add(sum, u16::from_be_bytes(*word)));
        let sum = odd
            .iter()
            .fold(sum, |sum, byte| add(sum, u16::from_be_bytes([*byte, 0])));
        Self(sum)
    }

    /// The sum: [`VALID`] if the words include a right checksum.
    pub(super) fn value(self) -> u16 {
        self.0
    }

    /// The checksum of words that had zero in its place.
    pub(super) fn checksum(self) -> [u8; 2] {
        (!self.0).to_be_bytes()
    }
}

/// Addition with the carry brought round to the lowest bit.
fn add(left: u16, right: u16) -> u16 {
    let (sum, carry) = left.overflowing_add(right);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up_as_it_says() {
        let sum = Sum::default().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.value(), 0xddf2);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn an_odd_byte_is_the_high_one_of_its_word() {
        let sum = Sum::default().with(&[1]);
        assert_eq!(sum.value(), 0x0100);
    }

    #[test]
    fn every_carry_comes_back() {
        let sum = Sum::default().with(&[0xff; 64]);
        assert_eq!(sum.value(), VALID);
    }
}
