//! Which Ethernet frames say who has an address: programs that the kernel runs on what arrives, so that the agent does not
//! wake up for each frame of the network (classic BPF, `Documentation/networking/filter.rst`).
//!
//! They let pass what claims one of the addresses and a few frames more; what exactly a frame says is judged elsewhere.

use std::net::{Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

/// For no more addresses than these, a jump is as short as it must be.
pub(super) const ADDRESSES: usize = 16;

/// Where an ARP frame for IPv4 has the sender's address and the one that it asks for (RFC 826).
const ARP_SENDER: u32 = 14 + 14;
const ARP_TARGET: u32 = 14 + 24;

/// Where an IPv6 frame has the number of the next header, its source, and the type and the target of neighbour discovery
/// (RFC 8200, 3; RFC 4861, 4.3).
const IPV6_NEXT: u32 = 14 + 6;
const IPV6_SOURCE: u32 = 14 + 8;
const ICMPV6_TYPE: u32 = 14 + 40;
const ICMPV6_TARGET: u32 = 14 + 48;

const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// Takes the frame.
const TAKE: SockFilter = SockFilter::new(0x06, 0, 0, u32::MAX);

/// Drops the frame.
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Passes ARP frames whose sender has one of the addresses, or would like to have it: then it has none itself yet.
pub(super) fn arp(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::octets).collect();
    let mut program = take_any(ARP_SENDER, &addresses);
    program.extend(go_on_if(word(ARP_SENDER), 0));
    program.extend(take_any(ARP_TARGET, &addresses));
    program.push(DROP);
    program
}

/// Passes frames of IPv6 neighbour discovery: advertisements of one of the addresses, and solicitations from it, or by
/// somebody who has no address yet and would like to have it.
pub(super) fn neighbor_discovery(addresses: &[Ipv6Addr]) -> Vec<SockFilter> {
    let addresses: Vec<_> = addresses.iter().map(Ipv6Addr::octets).collect();
    let mut program = Vec::from(go_on_if(byte(IPV6_NEXT), ICMPV6));
    let advertised = take_any(ICMPV6_TARGET, &addresses);
    let over = u8::try_from(advertised.len() + 1).unwrap_or(u8::MAX);
    program.extend([byte(ICMPV6_TYPE), SockFilter::new(EQUAL, 0, over, ADVERTISEMENT)]);
    program.extend(advertised);
    program.push(DROP);
    program.extend(go_on_if(byte(ICMPV6_TYPE), SOLICITATION));
    program.extend(take_any(IPV6_SOURCE, &addresses));
    for at in (IPV6_SOURCE..).step_by(4).take(4) {
        program.extend(go_on_if(word(at), 0));
    }
    program.extend(take_any(ICMPV6_TARGET, &addresses));
    program.push(DROP);
    program
}

/// Jumps by whether what is loaded is a number.
const EQUAL: u16 = 0x15;

/// Loads 32 bits.
fn word(offset: u32) -> SockFilter {
    SockFilter::new(0x20, 0, 0, offset)
}

/// Loads 8 bits.
fn byte(offset: u32) -> SockFilter {
    SockFilter::new(0x30, 0, 0, offset)
}

/// Drops the frame unless what is loaded is this.
fn go_on_if(loaded: SockFilter, value: u32) -> [SockFilter; 3] {
    [loaded, SockFilter::new(EQUAL, 1, 0, value), DROP]
}

/// Takes the frame if one of these addresses is at this offset, and goes on if not.
fn take_any<const LENGTH: usize>(offset: u32, addresses: &[[u8; LENGTH]]) -> Vec<SockFilter> {
    let mut program = Vec::new();
    for address in addresses {
        let (words, _) = address.as_chunks::<4>();
        // To the next address: over a load and a comparison for each word that is left of this one, and its `TAKE`.
        let over = (0..words.len())
            .rev()
            .map(|left| u8::try_from(2 * left + 1).unwrap_or(u8::MAX));
        for ((at, value), over) in (offset..).step_by(4).zip(words).zip(over) {
            program.push(word(at));
            program.push(SockFilter::new(EQUAL, 0, over, u32::from_be_bytes(*value)));
        }
        program.push(TAKE);
    }
    program
}
