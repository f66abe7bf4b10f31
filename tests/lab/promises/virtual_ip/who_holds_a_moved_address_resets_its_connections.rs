//! A client whose connection was held by the last holder is told at its next byte, by the kernel of the new one.

use std::{fs, net::IpAddr};

use anyhow::{Context, Result};
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::{
    sockets::frames::FrameSocket,
    steering::{Redirection, Steering},
};

use super::{APISERVER, Node, PROXY, Server, V4, V6, connect, gratuitous, neighbor_discovery, time_to_reset};

const CLIENT: Place = Place::Node;
const OLD: Place = Place::Member(1);
const NEW: Place = Place::Member(2);

/// What an established connection meets at the new holder.
#[derive(Clone, Copy, Debug)]
enum Meets {
    /// The redirection to the proxy.
    Redirection,
    /// The apiserver's listener: the proxy does not serve.
    Apiserver,
    /// A firewall that drops what belongs to no connection.
    Firewall,
    /// A kernel that does not track a connection of which it has not seen the beginning (`nf_conntrack_tcp_loose=0`).
    Strictness,
}

/// Tells the client who has the address now.
fn announce(node: &Node<'_>, address: IpAddr) -> Result<()> {
    let mac = node.interface.mac.context("no MAC address")?;
    let interface = &node.interface;
    match address {
        IpAddr::V4(address) => {
            let socket = node.wire.at(node.place, || FrameSocket::arp(interface, &[]))??;
            socket.send(&gratuitous(1, mac, address))?;
        }
        IpAddr::V6(address) => {
            let open = || FrameSocket::neighbor_discovery(interface, &[]);
            let socket = node.wire.at(node.place, open)??;
            socket.send(&neighbor_discovery(136, mac, address, address))?;
        }
    }
    Ok(())
}

fn redirections() -> Vec<Redirection> {
    [IpAddr::from(V4), IpAddr::from(V6)]
        .into_iter()
        .map(|address| Redirection {
            address,
            port: APISERVER,
            to: PROXY,
        })
        .collect()
}

fn moved(meets: Meets) -> Result<()> {
    let wire = Wire::lay(&[CLIENT, OLD, NEW])?;
    let (mut old, mut new) = (Node::at(&wire, OLD)?, Node::at(&wire, NEW)?);
    let _servers = [
        Server::start(&wire, OLD, APISERVER, "old-apiserver")?,
        Server::start(&wire, OLD, PROXY, "old-proxy")?,
        Server::start(&wire, NEW, APISERVER, "new-apiserver")?,
        Server::start(&wire, NEW, PROXY, "new-proxy")?,
    ];
    let mut steering = [OLD, NEW].map(|place| wire.at(place, || Steering::open("trivet-vip-resets")));
    for steering in &mut steering {
        let steering = steering.as_mut().unwrap().as_mut().unwrap();
        steering.redirect(&redirections())?;
    }
    match meets {
        Meets::Redirection => {}
        Meets::Apiserver => steering[1].as_mut().unwrap().as_mut().unwrap().redirect(&[])?,
        Meets::Firewall => {
            let rules = "table inet firewall { chain arriving { type filter hook input priority 0; \
                         ct state invalid drop; }; }";
            wire.run(NEW, "nft", &[rules])?;
        }
        Meets::Strictness => {
            wire.at(NEW, || {
                fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0")
            })??;
        }
    }
    for address in [IpAddr::from(V4), IpAddr::from(V6)] {
        old.put(address)?;
        let (mut stream, answer) = connect(&wire, CLIENT, (address, APISERVER))?;
        assert!(answer.starts_with("old-proxy "), "{answer}");
        old.remove(address)?;
        new.put(address)?;
        announce(&new, address)?;
        let took = time_to_reset(&mut stream)?;
        println!("{meets:?}, {address}: reset {took:?} after the client's next byte");
        let (_, answer) = connect(&wire, CLIENT, (address, APISERVER))?;
        assert!(answer.starts_with("new-"), "{answer}");
        assert_eq!(
            answer.starts_with("new-apiserver"),
            matches!(meets, Meets::Apiserver)
        );
    }
    Ok(())
}

#[test]
fn through_the_redirection_to_its_proxy() -> Result<()> {
    moved(Meets::Redirection)
}

#[test]
fn at_its_apiserver() -> Result<()> {
    moved(Meets::Apiserver)
}

#[test]
fn behind_a_firewall_that_knows_connections() -> Result<()> {
    moved(Meets::Firewall)
}

#[test]
fn where_connections_are_tracked_strictly() -> Result<()> {
    moved(Meets::Strictness)
}
