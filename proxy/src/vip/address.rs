//! Addresses on interfaces, and those that the kernel removes by itself.
//!
//! An agent puts its virtual address for a few seconds, again and again. If it is killed, stopped or hung, the kernel removes
//! the address, and no two nodes answer for it for long: keepalived, once killed, leaves it for good.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc;

use super::netlink::{
    Netlink, kind,
    message::{Message, Request, attribute, word},
};

/// For how many seconds the kernel keeps a virtual address after it was last [`put`]; an agent that puts it twice a second
/// can miss three times.
///
/// The kernel takes whole seconds and is late: by up to 0.5 s (its timers are coarse), or 1.3 s where another address of the
/// node, of DHCP say, was put or ended within the second before. So two nodes have the address for 3.3 s at most, and hardly
/// ever for more than 2.5 s.
pub const LIFETIME: u32 = 2;

/// The length of `struct ifaddrmsg`.
const HEADER: usize = 8;

/// No end of a lifetime (`INFINITY_LIFE_TIME`).
const FOR_EVER: u32 = u32::MAX;

/// An address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The index of the interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix in bits.
    pub prefix: u8,
    /// Where it is valid: `RT_SCOPE_UNIVERSE` (0), `RT_SCOPE_LINK` (253), `RT_SCOPE_HOST` (254).
    pub scope: u8,
    /// How many seconds the kernel still keeps it; none if for ever.
    pub lifetime: Option<u32>,
    flags: u32,
}

impl Assigned {
    /// Whether it was [`put`] and is no address of the node itself: for itself alone, and for a time.
    pub fn is_put(&self) -> bool {
        self.prefix == host_prefix(self.address) && self.lifetime.is_some()
    }

    /// Whether it may be a source: an IPv6 address that is still being checked for duplicates, or is one, may not.
    pub fn is_usable(&self) -> bool {
        self.flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0
    }

    /// The address that a message of rtnetlink is about; none if it is no such message.
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let &[family, prefix, flags, scope, ..] = message.body else {
            return None;
        };
        let interface = word(message.body, 4)?;
        let (mut address, mut local, mut lifetime) = (None, None, None);
        let mut flags = u32::from(flags);
        for (kind, value) in message.attributes(HEADER) {
            match kind {
                libc::IFA_ADDRESS => address = ip(value),
                // The own end of a point-to-point link; `IFA_ADDRESS` is the other one.
                libc::IFA_LOCAL => local = ip(value),
                libc::IFA_FLAGS => flags = word(value, 0)?,
                libc::IFA_CACHEINFO => lifetime = word(value, 4).filter(|valid| *valid != FOR_EVER),
                _ => {}
            }
        }
        let known = [libc::AF_INET, libc::AF_INET6].contains(&family.into());
        let address = local.or(address).filter(|_| known)?;
        Some(Self {
            interface,
            address,
            prefix,
            scope,
            lifetime,
            flags,
        })
    }
}

/// Puts a virtual address on an interface for so many seconds, or prolongs its time there.
///
/// Nothing else of the node is to use it as its source: an IPv4 address has the scope of the link, and an IPv6 address is
/// deprecated from the start. An IPv6 address is not checked for duplicates: its last holder may still have it, and the
/// check would take a second.
pub fn put(netlink: &mut Netlink, interface: u32, address: IpAddr, lifetime: u32) -> io::Result<()> {
    let create = kind(libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
    let (preferred, flags) = match address {
        IpAddr::V4(_) => (lifetime, 0),
        IpAddr::V6(_) => (0, libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE),
    };
    let times = [preferred, lifetime, 0, 0].map(u32::to_ne_bytes);
    let mut attributes = both(address);
    attributes.extend(attribute(libc::IFA_FLAGS, &flags.to_ne_bytes()));
    attributes.extend(attribute(libc::IFA_CACHEINFO, times.as_flattened()));
    let header = header(interface, address);
    netlink.change(Request::new(libc::RTM_NEWADDR, create, &header, &attributes))
}

/// Removes a virtual address from an interface at once; whether it was there.
pub fn remove(netlink: &mut Netlink, interface: u32, address: IpAddr) -> io::Result<bool> {
    let header = header(interface, address);
    let request = Request::new(libc::RTM_DELADDR, 0, &header, &both(address));
    match netlink.change(request) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All addresses of all interfaces, in the kernel's order: by interface, and the primary address of a network first.
pub fn list(netlink: &mut Netlink) -> io::Result<Vec<Assigned>> {
    let request = Request::new(libc::RTM_GETADDR, kind(libc::NLM_F_DUMP), &[0; HEADER], &[]);
    let mut found: Vec<Assigned> = Vec::new();
    netlink.read(request, |message| {
        let assigned = Assigned::read(&message).filter(|_| message.kind == libc::RTM_NEWADDR);
        found.extend(assigned.filter(|assigned| !found.contains(assigned)));
    })?;
    Ok(found)
}

/// Of the addresses of all interfaces those that a dead agent has left: virtual ones that were [`put`].
pub fn leftovers<'a>(
    assigned: &'a [Assigned],
    virtual_addresses: &'a [IpAddr],
) -> impl Iterator<Item = &'a Assigned> {
    assigned
        .iter()
        .filter(|assigned| assigned.is_put() && virtual_addresses.contains(&assigned.address))
}

/// `struct ifaddrmsg` of a virtual address.
fn header(interface: u32, address: IpAddr) -> [u8; HEADER] {
    let (family, scope) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::RT_SCOPE_LINK),
        IpAddr::V6(_) => (libc::AF_INET6, libc::RT_SCOPE_UNIVERSE),
    };
    let [a, b, c, d] = interface.to_ne_bytes();
    let family = u8::try_from(family).unwrap_or_default();
    [family, host_prefix(address), 0, scope, a, b, c, d]
}

/// The length of the prefix that covers one address only.
fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The attributes for an address that has no other end.
fn both(address: IpAddr) -> Vec<u8> {
    [libc::IFA_LOCAL, libc::IFA_ADDRESS]
        .into_iter()
        .flat_map(|kind| ip_attribute(kind, address))
        .collect()
}

/// An attribute with an address.
pub(super) fn ip_attribute(kind: u16, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => attribute(kind, &address.octets()),
        IpAddr::V6(address) => attribute(kind, &address.octets()),
    }
}

/// An address in network byte order; its length says of which family it is.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(prefix: u8, attributes: &[u8]) -> Option<Assigned> {
        let header = [2, prefix, 0x80, 253, 7, 0, 0, 0];
        let body = [&header[..], attributes].concat();
        Assigned::read(&Message {
            kind: libc::RTM_NEWADDR,
            flags: 0,
            sequence: 0,
            body: &body,
        })
    }

    fn times(valid: u32) -> Vec<u8> {
        let times = [valid, valid, 0, 0].map(u32::to_ne_bytes);
        attribute(libc::IFA_CACHEINFO, times.as_flattened())
    }

    #[test]
    fn an_address_for_itself_and_for_a_time_was_put_and_a_nodes_own_was_not() {
        let own = attribute(libc::IFA_LOCAL, &[10, 0, 0, 1]);
        let put = told(32, &[own.clone(), times(3)].concat()).unwrap();
        assert_eq!((put.address, put.interface), ([10, 0, 0, 1].into(), 7));
        assert_eq!((put.lifetime, put.scope), (Some(3), libc::RT_SCOPE_LINK));
        assert!(put.is_put());
        // By hand for ever, and by DHCP.
        let by_hand = told(32, &[own.clone(), times(FOR_EVER)].concat()).unwrap();
        let by_dhcp = told(24, &[own.clone(), times(3600)].concat()).unwrap();
        assert!(!by_hand.is_put() && !by_dhcp.is_put());
        assert!(!told(32, &own).unwrap().is_put());
        let all = [put, by_hand, by_dhcp];
        let its = [[10, 0, 0, 1].into()];
        let found: Vec<_> = leftovers(&all, &its).collect();
        assert_eq!(found, [&put]);
        assert_eq!(leftovers(&all, &[[10, 0, 0, 2].into()]).count(), 0);
    }

    #[test]
    fn the_own_end_of_a_link_is_the_address() {
        let ends = [
            attribute(libc::IFA_LOCAL, &[10, 0, 0, 1]),
            attribute(libc::IFA_ADDRESS, &[10, 0, 0, 2]),
        ];
        assert_eq!(
            told(32, &ends.concat()).unwrap().address,
            IpAddr::from([10, 0, 0, 1])
        );
    }

    #[test]
    fn what_has_no_address_is_not_read() {
        assert_eq!(told(32, &[]), None);
        assert_eq!(told(32, &attribute(libc::IFA_LOCAL, &[10, 0, 0])), None);
    }

    #[test]
    fn loopback_is_listed_and_was_not_put() {
        let mut netlink = Netlink::route().unwrap();
        let all = list(&mut netlink).unwrap();
        let loopback = all
            .iter()
            .find(|assigned| assigned.address.is_loopback())
            .unwrap();
        assert!(!loopback.is_put() && loopback.is_usable());
    }
}
