//! Reading an advertisement that has arrived: what it says, or why it is refused (RFC 9568, 7.1).
//!
//! It is not decided here whether the VRID, the sender and the addresses are those of this virtual router, nor whether the
//! advertisement is the one that its sender sent: see [`Received::authenticate`].

#[cfg(test)]
mod tests;

use super::{
    HOP_LIMIT,
    address::Address,
    advertisement::{ADVERTISEMENT, Addresses, Advertisement, HEAD, Interval, Priority, VERSION, Vrid},
    authentication::{self, Key, TRAILER, Trailer},
    checksum,
    sequence::Stamp,
};

/// What the IP header of a packet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    /// The sender.
    pub source: A,
    /// The group, or the address of this node.
    pub destination: A,
    /// The TTL or hop limit with which it arrived.
    pub hop_limit: u8,
}

/// What a receiver accepts of what senders do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<C> {
    /// The hop limits.
    pub hop_limits: HopLimits,
    /// The checksums. In IPv6 there is only one.
    pub checksums: Checksums<C>,
}

/// Which hop limits are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopLimits {
    /// Only [`HOP_LIMIT`]: the sender is on this link. RFC 9568 demands it.
    OnLink,
    /// All: peers may be behind a router, or send without this proof, as keepalived does by unicast in IPv6 unless it has
    /// `unicast_ttl 255`. Then only a signature shows that an advertisement is a peer's.
    Any,
}

/// Which checksums are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums<C> {
    /// Those that cover this.
    Only(C),
    /// Those that cover anything that a sender may mean, as [`super::address::Ipv4Checksum::MessageOnly`] beside
    /// `WithPseudoHeader`. It costs little: IP itself protects the addresses that one of them leaves out.
    Any,
}

impl<C: Copy + PartialEq> Checksums<C> {
    fn include(self, checksum: C) -> bool {
        match self {
            Self::Only(only) => only == checksum,
            Self::Any => true,
        }
    }
}

/// Why a packet is no advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It may come from beyond this link.
    #[error("the hop limit is {found}, not {HOP_LIMIT}")]
    HopLimit {
        /// The TTL or hop limit.
        found: u8,
    },
    /// It is shorter than an advertisement with as many addresses as it counts.
    #[error("the packet has {bytes} bytes, fewer than its addresses need")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// It is of another version of VRRP.
    #[error("the version is {found}, not {VERSION}")]
    Version {
        /// The version.
        found: u8,
    },
    /// It is no advertisement.
    #[error("the type is {found}, not {ADVERTISEMENT}")]
    Type {
        /// The type.
        found: u8,
    },
    /// Something follows the addresses that is no trailer.
    #[error("{bytes} bytes follow the addresses, neither none nor a trailer's {TRAILER}")]
    Trailing {
        /// How many bytes.
        bytes: usize,
    },
    /// The checksum is none of the accepted ones.
    #[error("the checksum {found:#06x} is wrong")]
    Checksum {
        /// The checksum.
        found: u16,
    },
    /// Its VRID is 0.
    #[error("the VRID is 0")]
    Vrid,
    /// It counts no address.
    #[error("the count of addresses is 0")]
    NoAddress,
    /// Its interval is 0.
    #[error("the maximum advertisement interval is 0")]
    Interval,
}

impl Rejection {
    /// The word for conditions, logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::HopLimit { .. } => "HopLimit",
            Self::Truncated { .. } => "Truncated",
            Self::Version { .. } => "Version",
            Self::Type { .. } => "Type",
            Self::Trailing { .. } => "Trailing",
            Self::Checksum { .. } => "Checksum",
            Self::Vrid => "Vrid",
            Self::NoAddress => "NoAddress",
            Self::Interval => "Interval",
        }
    }
}

/// An advertisement that has arrived whole. Nothing shows yet who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'a, A: Address> {
    /// What it says.
    pub advertisement: Advertisement<A>,
    /// What its checksum covers: answer such a sender likewise, if this can be configured.
    pub checksum: A::Checksum,
    source: A,
    head: &'a [u8; HEAD],
    addresses: &'a [u8],
    trailer: Option<Trailer<'a>>,
}

impl<A: Address> Received<'_, A> {
    /// Whether it has a trailer, which may be anybody's.
    pub fn has_trailer(&self) -> bool {
        self.trailer.is_some()
    }

    /// The sender's stamp, if one of these keys signed this message of this source. It may still be a repetition of an earlier
    /// one: see [`super::sequence::Mark`].
    pub fn authenticate(&self, keys: &[Key]) -> Result<Stamp, authentication::Rejection> {
        let trailer = self.trailer.ok_or(authentication::Rejection::Missing)?;
        // The checksum is no part of what is signed: in IPv6 the kernel writes it after the signature.
        let [head @ .., _, _] = *self.head;
        trailer.verify(keys, self.source, head, self.addresses)
    }
}

/// Reads what an IP packet with this header holds: for IPv4 without the header, and without the padding of the Ethernet frame,
/// which the kernel removes.
pub fn read<'a, A: Address>(
    packet: &'a [u8],
    header: &Header<A>,
    accepted: Accepted<A::Checksum>,
) -> Result<Received<'a, A>, Rejection> {
    if accepted.hop_limits == HopLimits::OnLink && header.hop_limit != HOP_LIMIT {
        return Err(Rejection::HopLimit {
            found: header.hop_limit,
        });
    }
    let bytes = packet.len();
    let truncated = Rejection::Truncated { bytes };
    let (head, rest) = packet.split_first_chunk::<HEAD>().ok_or(truncated)?;
    let [kind, vrid, priority, count, high, low, checksum @ ..] = *head;
    if kind >> 4 != VERSION {
        return Err(Rejection::Version { found: kind >> 4 });
    }
    if kind & 0xf != ADVERTISEMENT {
        return Err(Rejection::Type { found: kind & 0xf });
    }
    let length = A::LENGTH * usize::from(count);
    let (addresses, trailing) = rest.split_at_checked(length).ok_or(truncated)?;
    let (message, _) = packet.split_at_checked(HEAD + length).ok_or(truncated)?;
    let trailer = match trailing {
        [] => None,
        trailing => {
            let bytes = trailing.len();
            Some(Trailer::split(trailing).ok_or(Rejection::Trailing { bytes })?)
        }
    };
    let found = u16::from_be_bytes(checksum);
    let covered = covered(message, trailing, header, accepted.checksums);
    Ok(Received {
        checksum: covered.ok_or(Rejection::Checksum { found })?,
        advertisement: Advertisement {
            vrid: Vrid::new(vrid).ok_or(Rejection::Vrid)?,
            priority: Priority::new(priority),
            interval: interval(high, low)?,
            addresses: list(addresses)?,
        },
        source: header.source,
        head,
        addresses,
        trailer,
    })
}

/// What the checksum covers, if it is right.
fn covered<A: Address>(
    message: &[u8],
    trailer: &[u8],
    header: &Header<A>,
    accepted: Checksums<A::Checksum>,
) -> Option<A::Checksum> {
    A::CHECKSUMS.iter().copied().find(|covered| {
        let sum = A::sum(*covered, header.source, header.destination, message, trailer);
        accepted.include(*covered) && sum == checksum::VALID
    })
}

/// The upper four bits are reserved, and a receiver must ignore them (RFC 9568, 5.2.6).
fn interval(high: u8, low: u8) -> Result<Interval, Rejection> {
    Interval::from_centiseconds(u16::from_be_bytes([high & 0xf, low])).ok_or(Rejection::Interval)
}

fn list<A: Address>(mut bytes: &[u8]) -> Result<Addresses<A>, Rejection> {
    let mut addresses = Vec::new();
    while let Some((address, rest)) = A::split(bytes) {
        addresses.push(address);
        bytes = rest;
    }
    Addresses::new(addresses).ok_or(Rejection::NoAddress)
}
