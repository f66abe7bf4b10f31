//! The two address families of VRRP. They differ in the length of an address, the multicast group and the checksum.

use std::{
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{PROTOCOL, checksum::Sum};

/// An address of the family of a virtual router: [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait Address: Copy + Debug + Eq + Ord + Hash + Into<IpAddr> + Send + Sync + 'static {
    /// The bytes of an address.
    type Octets: AsRef<[u8]>;

    /// What a checksum may cover beside the message.
    type Checksum: Copy + Debug + Eq + Send + Sync + 'static;

    /// Everything that a checksum may cover, the usual first.
    const CHECKSUMS: &'static [Self::Checksum];

    /// Where advertisements go to unless they are sent to each peer.
    const GROUP: Self;

    /// The version of IP: 4 or 6.
    const VERSION: u8;

    /// How many bytes an address has.
    const LENGTH: usize;

    /// What makes an address as long as one of IPv6, where both must be.
    const FILL: &'static [u8];

    /// The bytes of this address.
    fn octets(self) -> Self::Octets;

    /// The address at the start of these bytes, and the bytes behind it.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])>;

    /// The one's complement sum of what the checksum covers: of a message on its way from `source` to `destination`, and of the
    /// trailer behind it.
    fn sum(checksum: Self::Checksum, source: Self, destination: Self, message: &[u8], trailer: &[u8]) -> u16;
}

/// What the checksum of an IPv4 advertisement covers. Senders disagree, and one that gets the other kind drops it: RFC 5798
/// could be read in two ways, and RFC 9568 decided against what most had done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Checksum {
    /// The message and a pseudo-header with the real destination, also of unicast: keepalived and FRR 8 unless configured
    /// otherwise, and most of those that followed RFC 5798.
    WithPseudoHeader,
    /// The message only: RFC 9568 (5.2.8), Cisco, Arista, keepalived with `v3_checksum_as_v2`.
    MessageOnly,
}

/// What the checksum of an IPv6 advertisement covers: always the pseudo-header, the message and the trailer, as the kernel
/// computes it (`IPV6_CHECKSUM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Checksum;

impl Address for Ipv4Addr {
    type Octets = [u8; 4];
    type Checksum = Ipv4Checksum;

    const CHECKSUMS: &'static [Ipv4Checksum] = &[Ipv4Checksum::WithPseudoHeader, Ipv4Checksum::MessageOnly];
    const GROUP: Self = Self::new(224, 0, 0, 18);
    const VERSION: u8 = 4;
    const LENGTH: usize = 4;
    const FILL: &'static [u8] = &[0; 12];

    fn octets(self) -> [u8; 4] {
        Self::octets(&self)
    }

    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (octets, rest) = bytes.split_first_chunk::<4>()?;
        Some((Self::from(*octets), rest))
    }

    /// The trailer is not covered: keepalived computes the checksum before it signs.
    fn sum(checksum: Ipv4Checksum, source: Self, destination: Self, message: &[u8], _trailer: &[u8]) -> u16 {
        let before = match checksum {
            Ipv4Checksum::WithPseudoHeader => {
                Sum::ipv4_pseudo_header(source, destination, PROTOCOL, message.len())
            }
            Ipv4Checksum::MessageOnly => Sum::default(),
        };
        before.with(message).value()
    }
}

impl Address for Ipv6Addr {
    type Octets = [u8; 16];
    type Checksum = Ipv6Checksum;

    const CHECKSUMS: &'static [Ipv6Checksum] = &[Ipv6Checksum];
    const GROUP: Self = Self::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
    const VERSION: u8 = 6;
    const LENGTH: usize = 16;
    const FILL: &'static [u8] = &[];

    fn octets(self) -> [u8; 16] {
        Self::octets(&self)
    }

    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (octets, rest) = bytes.split_first_chunk::<16>()?;
        Some((Self::from(*octets), rest))
    }

    fn sum(
        Ipv6Checksum: Ipv6Checksum,
        source: Self,
        destination: Self,
        message: &[u8],
        trailer: &[u8],
    ) -> u16 {
        let length = message.len() + trailer.len();
        Sum::ipv6_pseudo_header(source, destination, PROTOCOL, length)
            .with(message)
            .with(trailer)
            .value()
    }
}
