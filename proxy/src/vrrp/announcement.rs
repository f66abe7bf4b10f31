//! Ethernet frames that tell the link who has an address: gratuitous ARP (RFC 826, RFC 5227) and unsolicited Neighbor
//! Advertisements (RFC 4861, 7.2.6). Switches learn the port by the frame's source, hosts the MAC address by its content.
//!
//! When and how often they are sent is decided elsewhere.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::checksum::Sum;

/// The number of ARP in an Ethernet frame.
pub(super) const ETHERNET_ARP: [u8; 2] = [0x08, 0x06];
/// The number of IPv6 in an Ethernet frame.
pub(super) const ETHERNET_IPV6: [u8; 2] = [0x86, 0xdd];

/// ARP for IPv4 on Ethernet, up to the operation.
pub(super) const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// The number of ICMPv6 in an IPv6 header.
pub(super) const ICMPV6: u8 = 58;
/// The type of a Neighbor Advertisement.
pub(super) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// The option with the MAC address of who has the address.
pub(super) const TARGET_LINK_LAYER: u8 = 2;
/// The only hop limit of Neighbor Discovery: what has crossed a router is ignored (RFC 4861, 7.1).
pub(super) const NEIGHBOR_HOP_LIMIT: u8 = 255;

/// The flag of a router. A host that sees it gone removes the sender from its default routers.
const ROUTER: u8 = 0x80;
/// The flag of what replaces a MAC address that is already known.
const OVERRIDE: u8 = 0x20;

const BROADCAST: Mac = Mac([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The MAC address with these bytes.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether one interface can have it: it is no group's, and not zero.
    pub fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(formatter, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(formatter, ":{byte:02x}"))
    }
}

/// The form of a gratuitous ARP message. Some hosts heed only one of them: RFC 5227 announces by a request, many balancers by
/// a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpForm {
    /// Operation 1: it asks for the address that it has itself.
    Request,
    /// Operation 2: it answers what nobody asked.
    Reply,
}

/// The frames that say once, in each form, that the interface with this MAC address has the address. `is_router` is for IPv6:
/// whether the interface forwards.
pub fn announcements(address: IpAddr, mac: Mac, is_router: bool) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => [ArpForm::Request, ArpForm::Reply]
            .map(|form| gratuitous_arp(form, address, mac))
            .to_vec(),
        IpAddr::V6(address) => vec![neighbor_advertisement(address, mac, is_router)],
    }
}

/// A broadcast frame of 42 bytes. The kernel fills it up to the least that Ethernet sends.
pub fn gratuitous_arp(form: ArpForm, address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    // Nobody looks at the target's MAC address in a request; in a reply it is the sender's (RFC 5944, 4.6).
    let (operation, target) = match form {
        ArpForm::Request => (1, Mac([0; 6])),
        ArpForm::Reply => (2, mac),
    };
    let arp = [
        &ARP_ETHERNET_IPV4[..],
        &[0, operation],
        &mac.0,
        &address.octets(),
        &target.0,
        &address.octets(),
    ];
    ethernet(BROADCAST, mac, ETHERNET_ARP, &arp.concat())
}

/// A frame of 86 bytes to all nodes: the address, which is its source too, is at this MAC address, whatever was known before.
pub fn neighbor_advertisement(address: Ipv6Addr, mac: Mac, is_router: bool) -> Vec<u8> {
    let flags = if is_router { ROUTER | OVERRIDE } else { OVERRIDE };
    let fixed = [NEIGHBOR_ADVERTISEMENT, 0];
    let body = [
        &[flags, 0, 0, 0][..],
        &address.octets(),
        // The length is in units of eight bytes.
        &[TARGET_LINK_LAYER, 1],
        &mac.0,
    ]
    .concat();
    let length = fixed.len() + size_of::<u16>() + body.len();
    let checksum = Sum::ipv6_pseudo_header(address, ALL_NODES, ICMPV6, length)
        .with(&fixed)
        .with(&body)
        .checksum();
    let [.., high, low] = length.to_be_bytes();
    let packet = [
        &[6 << 4, 0, 0, 0, high, low, ICMPV6, NEIGHBOR_HOP_LIMIT][..],
        &address.octets(),
        &ALL_NODES.octets(),
        &fixed,
        &checksum,
        &body,
    ];
    ethernet(ALL_NODES_MAC, mac, ETHERNET_IPV6, &packet.concat())
}

fn ethernet(destination: Mac, source: Mac, kind: [u8; 2], content: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &kind, content].concat()
}
