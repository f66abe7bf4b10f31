//! What the frames of others say about who has an address: a host that has ours with another MAC address is in conflict with us,
//! or is the agent that has just taken over.
//!
//! ARP says it in each message but a probe, by its sender (RFC 5227, 2.4). Neighbor Discovery says it by the target of an
//! advertisement, and by the source of a solicitation.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    announcement::{
        ARP_ETHERNET_IPV4, ETHERNET_ARP, ETHERNET_IPV6, ICMPV6, Mac, NEIGHBOR_ADVERTISEMENT,
        NEIGHBOR_HOP_LIMIT, TARGET_LINK_LAYER,
    },
    checksum::{Sum, VALID},
};

const NEIGHBOR_SOLICITATION: u8 = 135;
const SOURCE_LINK_LAYER: u8 = 1;
/// The flag of what answers a solicitation, which is never sent to a group.
const SOLICITED: u8 = 0x40;

/// What a frame says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Who says it.
    pub mac: Mac,
    /// What it says.
    pub kind: Kind,
}

/// What somebody says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It would like to have the address, and asks whether somebody else has it (RFC 5227, 2.1.1; RFC 4862, 5.4). It takes it
    /// if nobody answers within a second or so.
    Probe,
    /// It has the address.
    Possession,
}

impl Claim {
    /// What an Ethernet frame without VLAN tag says. None if it says nothing, or is not as it must be.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (_destination, rest) = frame.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let (kind, content) = rest.split_first_chunk::<2>()?;
        let claim = match *kind {
            ETHERNET_ARP => arp(content)?,
            ETHERNET_IPV6 => ipv6(Mac::new(*source), content)?,
            _ => return None,
        };
        let is_one_address = !claim.address.is_unspecified() && !claim.address.is_multicast();
        (is_one_address && claim.mac.is_unicast()).then_some(claim)
    }

    /// Whether somebody else has our address: none of our MAC addresses is in the claim, of the interface and the virtual one
    /// if there is any.
    pub fn contradicts(&self, address: IpAddr, ours: &[Mac]) -> bool {
        let is_possession = match self.kind {
            Kind::Probe => false,
            Kind::Possession => true,
        };
        is_possession && self.address == address && !ours.contains(&self.mac)
    }
}

fn arp(content: &[u8]) -> Option<Claim> {
    let (format, rest) = content.split_first_chunk::<6>()?;
    let (operation, rest) = rest.split_first_chunk::<2>()?;
    let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
    let (sender, rest) = rest.split_first_chunk::<4>()?;
    let (_target_mac, rest) = rest.split_first_chunk::<6>()?;
    let (target, _padding) = rest.split_first_chunk::<4>()?;
    if *format != ARP_ETHERNET_IPV4 || !matches!(operation, [0, 1 | 2]) {
        return None;
    }
    let sender = Ipv4Addr::from(*sender);
    let (address, kind) = if sender.is_unspecified() {
        (Ipv4Addr::from(*target), Kind::Probe)
    } else {
        (sender, Kind::Possession)
    };
    Some(Claim {
        address: address.into(),
        mac: Mac::new(*sender_mac),
        kind,
    })
}

fn ipv6(ethernet: Mac, content: &[u8]) -> Option<Claim> {
    let (header, rest) = content.split_first_chunk::<8>()?;
    let [version, _, _, _, high, low, next, hop_limit] = *header;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    if version >> 4 != 6 || next != ICMPV6 || hop_limit != NEIGHBOR_HOP_LIMIT {
        return None;
    }
    let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (message, _padding) = rest.split_at_checked(length)?;
    let sum = Sum::ipv6_pseudo_header(source, destination, ICMPV6, length).with(message);
    if sum.value() != VALID {
        return None;
    }
    let (fixed, rest) = message.split_first_chunk::<8>()?;
    let (target, rest) = rest.split_first_chunk::<16>()?;
    let target = Ipv6Addr::from(*target);
    let options = options(rest)?;
    // The frame's sender is the next best, where there is no such option.
    let link_layer = |wanted| link_layer(&options, wanted);
    let (address, mac, kind) = match *fixed {
        [NEIGHBOR_ADVERTISEMENT, 0, _, _, flags, ..] => {
            if destination.is_multicast() && flags & SOLICITED != 0 {
                return None;
            }
            (target, link_layer(TARGET_LINK_LAYER), Kind::Possession)
        }
        [NEIGHBOR_SOLICITATION, 0, ..] if source.is_unspecified() => (target, None, Kind::Probe),
        [NEIGHBOR_SOLICITATION, 0, ..] => (source, link_layer(SOURCE_LINK_LAYER), Kind::Possession),
        _ => return None,
    };
    Some(Claim {
        address: address.into(),
        mac: mac.unwrap_or(ethernet),
        kind,
    })
}

/// The options of a message. None if one of them has no length or is longer than what is left: then the message is ignored
/// (RFC 4861, 4.6).
fn options(mut rest: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut options = Vec::new();
    while let [kind, length, ..] = *rest {
        let length = 8 * usize::from(length);
        let (option, next) = rest.split_at_checked(length)?;
        options.push((kind, option.get(2..)?));
        rest = next;
    }
    rest.is_empty().then_some(options)
}

fn link_layer(options: &[(u8, &[u8])], wanted: u8) -> Option<Mac> {
    let (_, value) = options.iter().find(|(kind, _)| *kind == wanted)?;
    value.first_chunk().copied().map(Mac::new)
}
