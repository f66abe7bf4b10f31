//! Ethernet frames that say who has an address: gratuitous ARP and neighbour advertisements, sent and heard.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, MsgFlags, bind, recv},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{filter, forget, unless_empty};
use crate::vip::interface::Interface;

/// The numbers of ARP and IPv6 in an Ethernet frame.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Sends frames over one interface, and hears those of others that claim an address, or would like to have it.
#[derive(Debug)]
pub struct FrameSocket {
    socket: Socket,
}

impl FrameSocket {
    /// Hears ARP about these addresses, up to 16. Needs `CAP_NET_RAW`.
    pub fn arp(interface: &Interface, addresses: &[Ipv4Addr]) -> io::Result<Self> {
        Self::open(interface, ARP, addresses.len(), &filter::arp(addresses))
    }

    /// Hears neighbour discovery about these addresses, up to 16. Needs `CAP_NET_RAW`. The kernel runs the filter on each IPv6
    /// packet that the interface receives.
    pub fn neighbor_discovery(interface: &Interface, addresses: &[Ipv6Addr]) -> io::Result<Self> {
        let program = filter::neighbor_discovery(addresses);
        Self::open(interface, IPV6, addresses.len(), &program)
    }

    fn open(
        interface: &Interface,
        protocol: u16,
        addresses: usize,
        program: &[SockFilter],
    ) -> io::Result<Self> {
        if addresses > filter::ADDRESSES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(program)?;
        bind(socket.as_raw_fd(), &link(interface)?)?;
        forget(&socket);
        Ok(Self { socket })
    }

    /// Sends a whole frame, from its Ethernet header on. The kernel fills it up to Ethernet's least length.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame of another host, from its Ethernet header on; none if there is none at the moment. What is longer than
    /// the buffer is cut.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let received = recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty());
        let length = unless_empty(received.map_err(io::Error::from))?;
        Ok(length.and_then(|length| buffer.get(..length)))
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address of an interface for packet(7) sockets. The list of all addresses has it; its protocol is zero, with which a
/// socket that is bound keeps its own.
fn link(interface: &Interface) -> io::Result<LinkAddr> {
    let mut links = getifaddrs()?.filter_map(|entry| entry.address?.as_link_addr().copied());
    links
        .find(|link| u32::try_from(link.ifindex()) == Ok(interface.index))
        .ok_or_else(|| Errno::ENODEV.into())
}
