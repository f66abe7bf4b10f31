//! What the agents of a virtual address send to each other and to the network: advertisements of VRRPv3 (RFC 9568), and the
//! ARP and Neighbor Discovery messages that say who has the address.
//!
//! It knows the bytes and nothing else. Who may have the address is decided elsewhere: no election here, no timer, no socket,
//! no clock and no key file. Time and keys are arguments.
//!
//! - [`advertisement`]: what an advertisement says; [`reception`] reads one that arrives, or says why it is refused.
//! - [`authentication`]: the trailer that proves that a holder of the group's key sent it; [`sequence`] orders what one sender
//!   sends, so that nobody can repeat it.
//! - [`announcement`]: gratuitous ARP and unsolicited Neighbor Advertisements; [`claim`] reads those of others.
//! - [`address`]: the two families. IPv4 and IPv6 are separate virtual routers, so each type has addresses of one family.
//!
//! The bytes in `captures/` come from keepalived, FRR and Linux; the README there says how.

pub mod address;
pub mod advertisement;
pub mod announcement;
pub mod authentication;
#[cfg(test)]
mod captures;
mod checksum;
pub mod claim;
pub mod reception;
pub mod sequence;

/// The number of VRRP in the IP header.
pub const PROTOCOL: u8 = 112;

/// The TTL or hop limit with which advertisements are sent. One that arrives with it has crossed no router (RFC 9568,
/// 5.1.1.3 and 5.1.2.3).
pub const HOP_LIMIT: u8 = 255;

/// The TOS or traffic class with which keepalived and FRR send advertisements: Internetwork Control (RFC 2474).
pub const TRAFFIC_CLASS: u8 = 0xc0;
