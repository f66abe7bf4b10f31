//! What an advertisement says, in types that hold nothing else, and its bytes (RFC 9568, 5.1 and 5.2).
//!
//! An advertisement becomes a [`Message`] once, and the message a packet for each destination: the checksum covers the
//! destination, a signature does not.

#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU8, time::Duration};

use super::{
    address::Address,
    authentication::{self, Key},
    sequence::Stamp,
};

/// The bytes before the addresses.
pub(super) const HEAD: usize = 8;

/// Version 3, type 1: an advertisement.
pub(super) const VERSION: u8 = 3;
pub(super) const ADVERTISEMENT: u8 = 1;

/// The number of a virtual router, 1 to 255. On one link it stands for one router of each address family; an agent that advertises
/// with it takes part in its election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// None for 0, which RFC 9568 (5.2.3) excludes.
    pub fn new(number: u8) -> Option<Self> {
        NonZeroU8::new(number).map(Self)
    }

    /// The VRID that a packet has, if it has any. An agent that takes part in one of many elections on a link looks here first: what
    /// else is wrong with the packets of other virtual routers is not its business.
    pub fn of(packet: &[u8]) -> Option<Self> {
        packet.get(1).copied().and_then(Self::new)
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How much a sender should have the addresses: the highest wins. All 256 numbers occur on the wire; 1 to 254 are free to
/// choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The sender gives the addresses up: the others need not wait until it is silent.
    pub const LEAVING: Self = Self(0);

    /// The addresses are the sender's own, and nobody else may have them while it lives.
    pub const OWNER: Self = Self(255);

    /// The priority with this number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The longest time between two advertisements of a sender, in hundredths of a second, 1 to 4095: 10 ms to 40.95 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// The longest that 12 bits can say.
    pub const MAX: Self = Self(4095);

    /// None for 0 and for more than [`Interval::MAX`].
    pub fn from_centiseconds(centiseconds: u16) -> Option<Self> {
        (1..=Self::MAX.0)
            .contains(&centiseconds)
            .then_some(Self(centiseconds))
    }

    /// In hundredths of a second.
    pub fn centiseconds(self) -> u16 {
        self.0
    }
}

impl From<Interval> for Duration {
    fn from(interval: Interval) -> Self {
        Self::from_millis(10 * u64::from(interval.0))
    }
}

/// The addresses of a virtual router: 1 to 255, in the order in which they are configured. Each sender of a group should list
/// the same. An IPv6 group of others expects a link-local address first (RFC 9568, 5.2.9); what is read may be without.
///
/// Some 360 IPv4 or 90 IPv6 addresses fill an Ethernet frame. More are sent in fragments, which many receivers drop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses<A>(Vec<A>);

impl<A> Addresses<A> {
    /// None for no address or more than 255, which the count on the wire cannot say.
    pub fn new(addresses: Vec<A>) -> Option<Self> {
        (1..=usize::from(u8::MAX))
            .contains(&addresses.len())
            .then_some(Self(addresses))
    }

    /// The addresses.
    pub fn as_slice(&self) -> &[A] {
        &self.0
    }

    fn count(&self) -> u8 {
        // No more than `new` lets in.
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

/// What an advertisement says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advertisement<A> {
    /// The virtual router.
    pub vrid: Vrid,
    /// How much the sender should have its addresses.
    pub priority: Priority,
    /// The longest time until the sender's next advertisement. Receivers take it over (RFC 9568, 6.1).
    pub interval: Interval,
    /// The addresses of the virtual router.
    pub addresses: Addresses<A>,
}

impl<A: Address> Advertisement<A> {
    /// The message by which a sender with this address says it. The address is the one that the packet has as its source: of
    /// the interface in IPv4, its link-local one in IPv6 unless the destination is one peer.
    pub fn message(&self, source: A) -> Message<A> {
        let [high, low] = self.interval.0.to_be_bytes();
        let head = [
            VERSION << 4 | ADVERTISEMENT,
            self.vrid.get(),
            self.priority.0,
            self.addresses.count(),
            high,
            low,
        ];
        let addresses = self.addresses.0.iter();
        Message {
            source,
            head,
            addresses: addresses
                .flat_map(|address| address.octets().as_ref().to_vec())
                .collect(),
            trailer: Vec::new(),
        }
    }
}

/// The bytes of an advertisement but for its checksum: the same for every destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<A> {
    source: A,
    head: [u8; HEAD - 2],
    addresses: Vec<u8>,
    trailer: Vec<u8>,
}

impl<A: Address> Message<A> {
    /// The same message, signed with this key as the sender's next one: see [`super::sequence::Sequence`]. It replaces an
    /// earlier signature.
    #[must_use]
    pub fn signed(self, key: &Key, stamp: Stamp) -> Self {
        let trailer = authentication::trailer(key, stamp, self.source, self.head, &self.addresses);
        Self { trailer, ..self }
    }

    /// What goes into the IP packet to this destination: [`Address::GROUP`], or one peer.
    pub fn packet(&self, destination: A, checksum: A::Checksum) -> Vec<u8> {
        let message = self.with_checksum([0, 0]);
        let sum = A::sum(checksum, self.source, destination, &message, &self.trailer);
        [self.with_checksum((!sum).to_be_bytes()), self.trailer.clone()].concat()
    }

    fn with_checksum(&self, checksum: [u8; 2]) -> Vec<u8> {
        [&self.head[..], &checksum, &self.addresses].concat()
    }
}
