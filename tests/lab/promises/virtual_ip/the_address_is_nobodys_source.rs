//! What the node sends has the node's own source address, also while it holds the virtual one.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::{address, interface};

use super::Node;

/// Nearer to this peer, by its bits, than the node's own address is: only that it is deprecated keeps the kernel from
/// choosing it.
const PEER: Place = Place::Member(1);
const NEAR_V4: [u8; 4] = [10, 77, 0, 10];
const NEAR_V6: [u16; 8] = [0xfd77, 0, 0, 0, 0, 0, 0, 10];

fn source(wire: &Wire, to: IpAddr) -> Result<IpAddr> {
    let address = wire.at(Place::Node, || -> Result<SocketAddr> {
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?)
    })??;
    Ok(address.ip())
}

#[test]
fn the_kernel_chooses_the_nodes_own_address() -> Result<()> {
    let wire = Wire::lay(&[Place::Node, PEER])?;
    let mut node = Node::at(&wire, Place::Node)?;
    let outside = [
        IpAddr::from([192, 0, 2, 1]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    ];
    for (peer, family) in [(PEER.ipv4(), "-4"), (PEER.ipv6(), "-6")] {
        let via = peer.to_string();
        wire.run(
            Place::Node,
            "ip",
            &[family, "route", "add", "default", "via", &via],
        )?;
    }
    let ways = [
        (Place::Node.ipv4(), PEER.ipv4(), IpAddr::from(NEAR_V4)),
        (Place::Node.ipv4(), outside[0], IpAddr::from(NEAR_V4)),
        (Place::Node.ipv6(), PEER.ipv6(), IpAddr::from(NEAR_V6)),
        (Place::Node.ipv6(), outside[1], IpAddr::from(NEAR_V6)),
    ];
    for (own, to, virtual_address) in ways {
        node.put(virtual_address)?;
        assert_eq!(source(&wire, to)?, own, "to {to}");
        let route = interface::route(&mut node.netlink, to)?.context("no route")?;
        assert_eq!((route.source, route.interface), (Some(own), node.interface.index));
        assert_eq!((route.is_direct, route.is_local), (!outside.contains(&to), false));
    }
    let assigned = address::list(&mut node.netlink)?;
    let found = |address: IpAddr| assigned.iter().find(|assigned| assigned.address == address);
    assert_eq!(found(NEAR_V4.into()).context("no v4")?.scope, 253);
    assert_eq!(found(NEAR_V6.into()).context("no v6")?.scope, 0);
    // Itself it is reached all the same, by its peers too.
    let reach = wire.run(PEER, "ip", &["route", "get", "10.77.0.10"])?;
    assert!(reach.contains("dev eth0"), "{reach}");
    Ok(())
}
