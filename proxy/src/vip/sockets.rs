//! Sockets of a virtual address, each on one interface. They carry bytes that others make and judge.
//!
//! [`ipv4`] and [`ipv6`] carry advertisements; [`frames`] tells the neighbours who has the address, and hears others say so.
//! None of them ever waits: each is readable when there is something to receive.

mod filter;
pub mod frames;
pub mod ipv4;
pub mod ipv6;

use std::{io, net::IpAddr, os::fd::AsRawFd};

use nix::sys::socket::{MsgFlags, recv};
use socket2::Socket;

/// The protocol number of VRRP.
const VRRP: i32 = 112;

/// With this TTL or hop limit all is sent; who receives it with less got it from beyond a router (RFC 9568, 5.1.1.3).
const HOP_LIMIT: u8 = 255;

/// The class of network control, TOS or traffic class: switches and hosts send it first.
const NETWORK_CONTROL: u8 = 0xc0;

/// Whether advertisements to the group of all VRRP routers are received too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Only those to the own address.
    Unicast,
    /// Also those to the group.
    Multicast,
}

/// What a socket has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// To which address: the group's or the own.
    pub destination: IpAddr,
    /// Its TTL or hop limit.
    pub hop_limit: u8,
    /// Its bytes after the IP header.
    pub bytes: &'a [u8],
}

/// Throws away what has arrived before the socket had all of its options, from other interfaces perhaps.
fn forget(socket: &Socket) {
    while recv(socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

/// What was received; none if there is nothing at the moment.
fn unless_empty<T>(received: io::Result<T>) -> io::Result<Option<T>> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
