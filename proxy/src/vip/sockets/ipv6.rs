//! VRRP's raw IPv6 socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{HOP_LIMIT, NETWORK_CONTROL, Received, Transport, VRRP, forget, unless_empty};
use crate::vip::interface::Interface;

/// All VRRP routers of a link (RFC 9568, 5.1.2.2).
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Sends and receives IPv6 advertisements over one interface.
#[derive(Debug)]
pub struct Ipv6Socket {
    socket: Socket,
    interface: u32,
}

impl Ipv6Socket {
    /// Needs `CAP_NET_RAW`.
    pub fn open(interface: &Interface, transport: Transport) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(VRRP)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_tclass_v6(NETWORK_CONTROL.into())?;
        socket.set_multicast_loop_v6(false)?;
        // Otherwise it receives what others on this host have joined.
        socket.set_multicast_all_v6(false)?;
        socket.set_recv_hoplimit_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        match transport {
            Transport::Unicast => {}
            Transport::Multicast => socket.join_multicast_v6(&GROUP, interface.index)?,
        }
        forget(&socket);
        Ok(Self {
            socket,
            interface: interface.index,
        })
    }

    /// Sends from this address of the interface. The destination is a peer's address or [`GROUP`]. The kernel does not
    /// fill in a checksum.
    pub fn send(&self, source: Ipv6Addr, destination: Ipv6Addr, bytes: &[u8]) -> io::Result<()> {
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: source.octets(),
            },
            ipi6_ifindex: self.interface,
        };
        let to = SocketAddrV6::new(destination, 0, 0, self.interface);
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&SockaddrIn6::from(to)),
        )?;
        Ok(())
    }

    /// The next advertisement; none if there is none at the moment. What is longer than the buffer is cut.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let Some(envelope) = unless_empty(self.envelope(buffer))? else {
            return Ok(None);
        };
        Ok(Some(Received {
            source: envelope.source.into(),
            destination: envelope.destination.into(),
            hop_limit: envelope.hop_limit,
            bytes: buffer.get(..envelope.length).unwrap_or_default(),
        }))
    }

    fn envelope(&self, buffer: &mut [u8]) -> io::Result<Envelope> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let message = recvmsg::<SockaddrIn6>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let (mut destination, mut hop_limit) = (None, None);
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(info.ipi6_addr.s6_addr.into());
                }
                ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).ok(),
                _ => {}
            }
        }
        let source = message.address.map(|address| address.ip());
        // The kernel always tells what this socket has asked for.
        source
            .zip(destination)
            .zip(hop_limit)
            .map(|((source, destination), hop_limit)| Envelope {
                source,
                destination,
                hop_limit,
                length: message.bytes,
            })
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for Ipv6Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel tells of a packet: raw IPv6 sockets do not receive its header.
struct Envelope {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    length: usize,
}
