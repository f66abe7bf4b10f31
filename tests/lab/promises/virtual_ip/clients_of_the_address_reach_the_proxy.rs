//! The kernel leads clients of the virtual address to the proxy, and nobody else.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::Result;
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::steering::{self, Ownership, Redirection, Steering};

use super::{APISERVER, Node, PROXY, Server, V4, V6, connect};

const CLIENT: Place = Place::Node;
const HOLDER: Place = Place::Member(1);
const NAME: &str = "trivet-vip-default";

fn redirection(address: IpAddr) -> Redirection {
    Redirection {
        address,
        port: APISERVER,
        to: PROXY,
    }
}

fn both() -> [Redirection; 2] {
    [redirection(V4.into()), redirection(V6.into())]
}

/// A steering at the holder that redirects both addresses.
fn steer(wire: &Wire) -> Result<Steering> {
    let mut steering = wire.at(HOLDER, || Steering::open(NAME))??;
    steering.redirect(&both())?;
    Ok(steering)
}

fn tables(wire: &Wire) -> Result<String> {
    wire.run(HOLDER, "nft", &["list", "ruleset"])
}

/// Who answers a client of a place at an address.
fn who(wire: &Wire, place: Place, address: IpAddr) -> Result<String> {
    let (_, answer) = connect(wire, place, (address, APISERVER))?;
    Ok(answer)
}

/// A holder with an apiserver and a proxy, and both addresses.
fn arrange(wire: &Wire) -> Result<[Server; 2]> {
    let mut holder = Node::at(wire, HOLDER)?;
    for address in [IpAddr::from(V4), IpAddr::from(V6)] {
        holder.put(address)?;
    }
    Ok([
        Server::start(wire, HOLDER, APISERVER, "apiserver")?,
        Server::start(wire, HOLDER, PROXY, "proxy")?,
    ])
}

#[test]
fn from_outside_and_from_the_holder_and_nobody_else_does() -> Result<()> {
    let wire = Wire::lay(&[CLIENT, HOLDER])?;
    let _servers = arrange(&wire)?;
    let steering = steer(&wire)?;
    println!("{}", tables(&wire)?);
    for (address, own) in [(V4.into(), HOLDER.ipv4()), (V6.into(), HOLDER.ipv6())] {
        for place in [CLIENT, HOLDER] {
            let destination = std::net::SocketAddr::from((address, APISERVER));
            assert_eq!(
                who(&wire, place, address)?,
                format!("proxy {destination}"),
                "from {place:?}"
            );
            assert!(
                who(&wire, place, own)?.starts_with("apiserver "),
                "from {place:?}"
            );
        }
        // Who comes to the proxy's port by another way is told from those.
        let (_, direct) = connect(&wire, CLIENT, (own, PROXY))?;
        assert!(!direct.contains(&address.to_string()), "{direct}");
    }
    assert!(who(&wire, HOLDER, [127, 0, 0, 1].into())?.starts_with("apiserver "));
    drop(steering);
    assert_eq!(tables(&wire)?, "");
    for address in [V4.into(), V6.into()] {
        for place in [CLIENT, HOLDER] {
            assert!(
                who(&wire, place, address)?.starts_with("apiserver "),
                "from {place:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_is_redirected_is_replaced_as_a_whole() -> Result<()> {
    let wire = Wire::lay(&[CLIENT, HOLDER])?;
    let _servers = arrange(&wire)?;
    let mut steering = steer(&wire)?;
    steering.redirect(&[redirection(V6.into())])?;
    let listed = tables(&wire)?;
    assert!(!listed.contains("table ip "), "{listed}");
    assert_eq!(listed.matches("redirect to").count(), 2, "{listed}");
    assert!(who(&wire, CLIENT, V4.into())?.starts_with("apiserver "));
    assert!(who(&wire, CLIENT, V6.into())?.starts_with("proxy "));
    steering.redirect(&both())?;
    assert!(steering.is_in_force()?);
    assert!(who(&wire, CLIENT, V4.into())?.starts_with("proxy "));
    steering.redirect(&[])?;
    assert_eq!(tables(&wire)?, "");
    Ok(())
}

#[test]
fn the_redirections_of_a_dead_agent_are_gone_at_once_and_nobody_else_removes_them() -> Result<()> {
    let wire = Wire::lay(&[CLIENT, HOLDER])?;
    let _servers = arrange(&wire)?;
    let mut steering = steer(&wire)?;
    assert_eq!(steering.ownership(), Ownership::Bound);
    // As a firewall does that is loaded anew.
    wire.run(HOLDER, "nft", &["flush", "ruleset"])?;
    assert!(steering.is_in_force()?);
    // Another agent that takes the same name.
    let mut other = wire.at(HOLDER, || Steering::open(NAME))??;
    let error = other.redirect(&both()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    assert!(wire.at(HOLDER, || steering::remove(NAME))?.is_err());
    assert!(who(&wire, CLIENT, V4.into())?.starts_with("proxy "));
    // A killed process removes nothing: the kernel closes its socket.
    nix::unistd::close(steering.as_fd().as_raw_fd())?;
    mem::forget(steering);
    assert_eq!(tables(&wire)?, "");
    assert!(who(&wire, CLIENT, V4.into())?.starts_with("apiserver "));
    other.redirect(&both())?;
    Ok(())
}

#[test]
fn what_an_agent_on_an_older_kernel_has_left_is_removed() -> Result<()> {
    let wire = Wire::lay(&[HOLDER])?;
    wire.at(HOLDER, || steering::remove(NAME))??;
    for family in ["ip", "ip6"] {
        wire.run(HOLDER, "nft", &["add", "table", family, NAME])?;
    }
    wire.run(HOLDER, "nft", &["add", "table", "ip", "another"])?;
    wire.at(HOLDER, || steering::remove(NAME))??;
    let listed = tables(&wire)?;
    assert!(listed.contains("another") && !listed.contains(NAME), "{listed}");
    Ok(())
}
