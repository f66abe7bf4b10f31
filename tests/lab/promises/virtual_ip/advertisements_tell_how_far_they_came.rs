//! Advertisements cross the wire with their source and their TTL, to one peer or to all.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::sockets::{
    Received, Transport,
    ipv4::{self, Ipv4Socket},
    ipv6::{self, Ipv6Socket},
};

use super::{LIMIT, Node, is_readable};

const HERE: Place = Place::Member(1);
const THERE: Place = Place::Member(2);

/// The bytes matter to nobody here.
const BYTES: &[u8] = b"advertisement";

/// Long enough for what is on its way to arrive.
const MOMENT: Duration = Duration::from_millis(200);

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address}"),
    }
}

fn expected(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, hop_limit: u8) -> Received<'static> {
    Received {
        source: source.into(),
        destination: destination.into(),
        hop_limit,
        bytes: BYTES,
    }
}

#[test]
fn by_ipv4_to_a_peer_and_to_the_group() -> Result<()> {
    let wire = Wire::lay(&[HERE, THERE])?;
    let (here, there) = (Node::at(&wire, HERE)?, Node::at(&wire, THERE)?);
    let open = |node: &Node<'_>, transport| -> Result<Ipv4Socket> {
        Ok(wire.at(node.place, || Ipv4Socket::open(&node.interface, transport))??)
    };
    let sender = open(&here, Transport::Multicast)?;
    let all = open(&there, Transport::Multicast)?;
    let alone = open(&there, Transport::Unicast)?;
    let (source, peer) = (v4(HERE.ipv4()), v4(THERE.ipv4()));
    let mut buffer = [0; 256];

    sender.send(source, ipv4::GROUP, BYTES)?;
    assert!(is_readable(&all, LIMIT)?);
    assert_eq!(
        all.receive(&mut buffer)?,
        Some(expected(source, ipv4::GROUP, 255))
    );
    assert!(
        !is_readable(&alone, MOMENT)?,
        "who wants unicast only hears the group"
    );
    assert!(!is_readable(&sender, MOMENT)?, "it hears itself");
    assert_eq!(sender.receive(&mut buffer)?, None);

    sender.send(source, peer, BYTES)?;
    for socket in [&all, &alone] {
        assert!(is_readable(socket, LIMIT)?);
        assert_eq!(socket.receive(&mut buffer)?, Some(expected(source, peer, 255)));
    }
    // From a source that is not the one that the kernel would choose.
    let mut here = here;
    here.put(super::V4.into())?;
    sender.send(super::V4, peer, BYTES)?;
    assert!(is_readable(&alone, LIMIT)?);
    assert_eq!(alone.receive(&mut buffer)?, Some(expected(super::V4, peer, 255)));
    // From further away.
    from_afar(&wire, Domain::IPV4, THERE.ipv4())?;
    assert!(is_readable(&alone, LIMIT)?);
    assert_eq!(alone.receive(&mut buffer)?, Some(expected(source, peer, 7)));
    Ok(())
}

#[test]
fn by_ipv6_to_a_peer_and_to_the_group() -> Result<()> {
    let wire = Wire::lay(&[HERE, THERE])?;
    let (mut here, mut there) = (Node::at(&wire, HERE)?, Node::at(&wire, THERE)?);
    let open = |node: &Node<'_>, transport| -> Result<Ipv6Socket> {
        Ok(wire.at(node.place, || Ipv6Socket::open(&node.interface, transport))??)
    };
    let sender = open(&here, Transport::Multicast)?;
    let all = open(&there, Transport::Multicast)?;
    let (source, peer): (Ipv6Addr, Ipv6Addr) = (here.link_local()?, there.link_local()?);
    let mut buffer = [0; 256];

    sender.send(source, ipv6::GROUP, BYTES)?;
    assert!(is_readable(&all, LIMIT)?);
    assert_eq!(
        all.receive(&mut buffer)?,
        Some(expected(source, ipv6::GROUP, 255))
    );
    assert!(!is_readable(&sender, MOMENT)?, "it hears itself");
    assert_eq!(sender.receive(&mut buffer)?, None);

    for to in [IpAddr::from(peer), THERE.ipv6()] {
        let IpAddr::V6(destination) = to else {
            panic!("{to}")
        };
        sender.send(source, destination, BYTES)?;
        assert!(is_readable(&all, LIMIT)?);
        assert_eq!(
            all.receive(&mut buffer)?,
            Some(expected(source, destination, 255))
        );
    }
    from_afar(&wire, Domain::IPV6, THERE.ipv6())?;
    assert!(is_readable(&all, LIMIT)?);
    assert_eq!(
        all.receive(&mut buffer)?,
        Some(expected(HERE.ipv6(), THERE.ipv6(), 7))
    );
    Ok(())
}

/// Sends an advertisement as it arrives from beyond many routers.
fn from_afar(wire: &Wire, domain: Domain, to: IpAddr) -> Result<()> {
    let sent = wire.at(HERE, || -> Result<usize> {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(112)))?;
        if to.is_ipv4() {
            socket.set_ttl_v4(7)?;
        } else {
            socket.set_unicast_hops_v6(7)?;
        }
        Ok(socket.send_to(BYTES, &SocketAddr::from((to, 0)).into())?)
    })??;
    (sent == BYTES.len()).then_some(()).context("not sent whole")
}
