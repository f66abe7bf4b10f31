//! What a node's interfaces are, and which of them leads to the peers. Reads only.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
};

use nix::libc;

use super::{
    address::{self, Assigned},
    netlink::{
        Netlink,
        message::{Message, Request, attribute, word},
    },
};

/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// The length of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

/// A router of the other family. `libc` does not have it for musl.
const RTA_VIA: u16 = 18;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which stays the same when it is renamed.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; none if it is not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it is up and there is a link at its other end. A bridge or a bond has one if a port has.
    pub has_carrier: bool,
}

impl Interface {
    /// The interface that a message of rtnetlink is about; none if it is no such message. A bridge tells of its ports in
    /// messages of the same kinds, which are not about the port itself.
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let (&[family, ..], index, flags) = (message.body, word(message.body, 4)?, word(message.body, 8)?)
        else {
            return None;
        };
        if i32::from(family) != libc::AF_UNSPEC {
            return None;
        }
        let (mut name, mut mac) = (None, None);
        for (kind, value) in message.attributes(LINK_HEADER) {
            match kind {
                libc::IFLA_IFNAME => name = value.split(|byte| *byte == 0).next(),
                libc::IFLA_ADDRESS => mac = <[u8; 6]>::try_from(value).ok(),
                _ => {}
            }
        }
        let has = |flag: i32| flags & flag.cast_unsigned() != 0;
        Some(Self {
            index,
            name: String::from_utf8_lossy(name?).into_owned(),
            mac,
            is_up: has(libc::IFF_UP),
            has_carrier: has(libc::IFF_UP) && has(libc::IFF_LOWER_UP),
        })
    }
}

/// The way that the kernel takes to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The index of the interface.
    pub interface: u32,
    /// The address with which the node sends there.
    pub source: Option<IpAddr>,
    /// Whether the address is reached without a router.
    pub is_direct: bool,
    /// Whether the address is the node's own.
    pub is_local: bool,
}

/// The interface of this index; none if there is none.
pub fn by_index(netlink: &mut Netlink, index: u32) -> io::Result<Option<Interface>> {
    find(netlink, index, &[])
}

/// The interface of this name; none if there is none.
pub fn by_name(netlink: &mut Netlink, name: &str) -> io::Result<Option<Interface>> {
    let name = [name.as_bytes(), &[0]].concat();
    find(netlink, 0, &attribute(libc::IFLA_IFNAME, &name))
}

fn find(netlink: &mut Netlink, index: u32, attributes: &[u8]) -> io::Result<Option<Interface>> {
    let mut header = [0; LINK_HEADER];
    if let Some(field) = header.get_mut(4..8) {
        field.copy_from_slice(&index.to_ne_bytes());
    }
    let mut found = None;
    let request = Request::new(libc::RTM_GETLINK, 0, &header, attributes);
    match netlink.read(request, |message| found = Interface::read(&message)) {
        Ok(()) => Ok(found),
        // A name that is too long for an interface is ERANGE.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ERANGE)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The way to an address; none if the node has none at the moment.
pub fn route(netlink: &mut Netlink, to: IpAddr) -> io::Result<Option<Route>> {
    let (family, prefix) = match to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let mut header = [0; ROUTE_HEADER];
    let [first, second, ..] = &mut header;
    (*first, *second) = (u8::try_from(family).unwrap_or_default(), prefix);
    let mut found = None;
    let attributes = address::ip_attribute(libc::RTA_DST, to);
    let request = Request::new(libc::RTM_GETROUTE, 0, &header, &attributes);
    match netlink.read(request, |message| found = read_route(&message)) {
        Ok(()) => Ok(found),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read_route(message: &Message<'_>) -> Option<Route> {
    let kind = *message.body.get(7)?;
    let mut route = Route {
        interface: 0,
        source: None,
        is_direct: true,
        is_local: kind == libc::RTN_LOCAL,
    };
    for (kind, value) in message.attributes(ROUTE_HEADER) {
        match kind {
            libc::RTA_OIF => route.interface = word(value, 0)?,
            libc::RTA_PREFSRC => route.source = address::ip(value),
            libc::RTA_GATEWAY | RTA_VIA => route.is_direct = false,
            _ => {}
        }
    }
    (route.interface != 0).then_some(route)
}

/// The interface that leads to the peers: that of most of the routes that lead away from the node, the lower index of two
/// with as many. None without such a route.
pub fn towards(routes: &[Route]) -> Option<u32> {
    let away = || routes.iter().filter(|route| !route.is_local);
    let votes = |interface: u32| away().filter(|route| route.interface == interface).count();
    away()
        .map(|route| route.interface)
        .max_by_key(|interface| (votes(*interface), u32::MAX - interface))
}

/// The link-local IPv6 address of an interface, which is the source of IPv6 advertisements; none if it has none yet.
pub fn link_local(assigned: &[Assigned], interface: u32) -> Option<Ipv6Addr> {
    assigned.iter().find_map(|assigned| match assigned.address {
        IpAddr::V6(address)
            if assigned.interface == interface
                && address.is_unicast_link_local()
                && assigned.is_usable()
                && !assigned.is_put() =>
        {
            Some(address)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(interface: u32) -> Route {
        Route {
            interface,
            source: None,
            is_direct: true,
            is_local: false,
        }
    }

    #[test]
    fn the_interface_to_most_peers_leads_to_them() {
        assert_eq!(towards(&[]), None);
        assert_eq!(towards(&[via(3), via(2), via(3)]), Some(3));
        assert_eq!(towards(&[via(3), via(2)]), Some(2));
        let own = Route {
            is_local: true,
            ..via(1)
        };
        assert_eq!(towards(&[own, own, via(2)]), Some(2));
        assert_eq!(towards(&[own]), None);
    }

    #[test]
    fn a_bridges_message_about_a_port_is_not_about_the_port_itself() {
        let mut body = vec![0; LINK_HEADER];
        body[4] = 7;
        body[8] = 1;
        body.extend(attribute(libc::IFLA_IFNAME, b"eth0\0"));
        let read = |body: &[u8]| {
            Interface::read(&Message {
                kind: libc::RTM_NEWLINK,
                flags: 0,
                sequence: 0,
                body,
            })
        };
        let interface = read(&body).unwrap();
        assert_eq!((interface.index, interface.name.as_str()), (7, "eth0"));
        assert!(interface.is_up && !interface.has_carrier);
        body[0] = 7; // AF_BRIDGE
        assert_eq!(read(&body), None);
    }

    #[test]
    fn loopback_is_found_by_name_and_by_index_and_leads_to_nobody() {
        let mut netlink = Netlink::route().unwrap();
        let loopback = by_name(&mut netlink, "lo").unwrap().unwrap();
        assert_eq!(
            by_index(&mut netlink, loopback.index).unwrap(),
            Some(loopback.clone())
        );
        assert_eq!(by_name(&mut netlink, "none-such").unwrap(), None);
        assert_eq!(
            by_name(&mut netlink, "a-name-too-long-for-an-interface").unwrap(),
            None
        );
        let route = route(&mut netlink, [127, 0, 0, 1].into()).unwrap().unwrap();
        assert_eq!((route.interface, route.is_local), (loopback.index, true));
    }
}
