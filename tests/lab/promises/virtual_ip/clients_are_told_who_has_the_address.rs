//! Neighbours learn at once that the address has moved, and who had it hears that another one claims it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::Instant;
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::sockets::frames::FrameSocket;

use super::{LIMIT, Node, V4, V6, gratuitous, is_readable, neighbor_discovery};

const CLIENT: Place = Place::Node;
const OLD: Place = Place::Member(1);
const NEW: Place = Place::Member(2);

/// Long enough for what is on its way to arrive.
const MOMENT: Duration = Duration::from_millis(200);

/// Which MAC address the client has for an address.
fn known(wire: &Wire, address: IpAddr) -> Result<Option<String>> {
    let line = wire.run(
        CLIENT,
        "ip",
        &["neigh", "show", "to", &address.to_string(), "dev", "eth0"],
    )?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
    Ok(words.nth(1).map(str::to_owned))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Waits until the client knows the address by this MAC address.
fn learns(wire: &Wire, address: IpAddr, mac: [u8; 6]) -> Result<Duration> {
    let begun = Instant::now();
    while known(wire, address)? != Some(text(mac)) {
        assert!(begun.elapsed() < LIMIT, "{address} is not at {}", text(mac));
        thread::sleep(Duration::from_millis(1));
    }
    Ok(begun.elapsed())
}

/// Has the client send something to the address, so that it knows who has it.
fn meet(wire: &Wire, address: IpAddr) -> Result<()> {
    wire.at(CLIENT, || -> Result<()> {
        let any: IpAddr = if address.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.send_to(b"?", (address, 9))?;
        Ok(())
    })?
}

/// Hears nothing more.
fn hears_nothing(socket: &FrameSocket) -> Result<()> {
    let mut buffer = [0; 128];
    let heard = is_readable(socket, MOMENT)?;
    assert!(!heard, "it hears {:?}", socket.receive(&mut buffer)?);
    Ok(())
}

/// Hears exactly this; the kernel has filled the frame up.
fn hears(socket: &FrameSocket, frame: &[u8]) -> Result<()> {
    let mut buffer = [0; 128];
    assert!(is_readable(socket, LIMIT)?);
    let heard = socket.receive(&mut buffer)?.context("nothing heard")?;
    assert_eq!(heard[..frame.len()], *frame);
    hears_nothing(socket)
}

#[test]
fn by_arp() -> Result<()> {
    let wire = Wire::lay(&[CLIENT, OLD, NEW])?;
    let (mut old, mut new) = (Node::at(&wire, OLD)?, Node::at(&wire, NEW)?);
    let macs = [&old, &new].map(|node| node.interface.mac.unwrap_or_default());
    let (second, strange) = (Ipv4Addr::new(10, 77, 0, 101), Ipv4Addr::new(10, 77, 0, 102));
    let open = |node: &Node<'_>| wire.at(node.place, || FrameSocket::arp(&node.interface, &[second, V4]));
    let (had, has) = (open(&old)??, open(&new)??);
    for operation in [1, 2] {
        new.remove(V4.into())?;
        old.put(V4.into())?;
        meet(&wire, V4.into())?;
        if operation == 2 {
            let frame = gratuitous(1, macs[0], V4);
            had.send(&frame)?;
            hears(&has, &frame)?;
        }
        learns(&wire, V4.into(), macs[0])?;
        old.remove(V4.into())?;
        new.put(V4.into())?;
        has.send(&gratuitous(operation, macs[1], strange))?;
        let frame = gratuitous(operation, macs[1], V4);
        has.send(&frame)?;
        let took = learns(&wire, V4.into(), macs[1])?;
        println!("ARP, operation {operation}: learnt within {took:?}");
        hears(&had, &frame)?;
        hears_nothing(&has)?;
    }
    // Another address of those that it asked for.
    let frame = gratuitous(1, macs[1], second);
    has.send(&frame)?;
    hears(&had, &frame)?;
    // Who would like to have an address has none yet.
    for (target, is_heard) in [(V4, true), (strange, false)] {
        let mut probe = gratuitous(1, macs[1], target);
        probe[28..32].fill(0);
        has.send(&probe)?;
        if is_heard {
            hears(&had, &probe)?;
        }
    }
    // Who asks for it has another one.
    let mut question = gratuitous(1, macs[1], V4);
    question[28..32].copy_from_slice(&strange.octets());
    has.send(&question)?;
    hears_nothing(&had)
}

#[test]
fn by_neighbour_discovery() -> Result<()> {
    let wire = Wire::lay(&[CLIENT, OLD, NEW])?;
    let (mut old, mut new) = (Node::at(&wire, OLD)?, Node::at(&wire, NEW)?);
    let macs = [&old, &new].map(|node| node.interface.mac.unwrap_or_default());
    let [second, strange] = [1, 2].map(|more| Ipv6Addr::from_bits(V6.to_bits() + more));
    let open = |node: &Node<'_>| {
        wire.at(node.place, || {
            FrameSocket::neighbor_discovery(&node.interface, &[second, V6])
        })
    };
    let (had, has) = (open(&old)??, open(&new)??);
    let advertisement = |address| neighbor_discovery(136, macs[1], address, address);
    old.put(V6.into())?;
    meet(&wire, V6.into())?;
    learns(&wire, V6.into(), macs[0])?;
    old.remove(V6.into())?;
    new.put(V6.into())?;
    has.send(&advertisement(strange))?;
    has.send(&advertisement(V6))?;
    let took = learns(&wire, V6.into(), macs[1])?;
    println!("neighbour advertisement: learnt within {took:?}");
    hears(&had, &advertisement(V6))?;
    hears_nothing(&has)?;
    has.send(&advertisement(second))?;
    hears(&had, &advertisement(second))?;
    // Who would like to have an address has none yet; who asks for it has another one, but what has ours and asks for
    // another is in conflict with us.
    let none = Ipv6Addr::UNSPECIFIED;
    for (source, target, is_heard) in [
        (none, V6, true),
        (none, strange, false),
        (strange, V6, false),
        (V6, strange, true),
    ] {
        let frame = neighbor_discovery(135, macs[1], source, target);
        has.send(&frame)?;
        if is_heard {
            hears(&had, &frame)?;
        }
    }
    hears_nothing(&had)
}
