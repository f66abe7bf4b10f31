//! VRRP's raw IPv4 socket.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, recv, sendmsg},
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{HOP_LIMIT, NETWORK_CONTROL, Received, Transport, VRRP, forget, unless_empty};
use crate::vip::interface::Interface;

/// All VRRP routers of a link (RFC 9568, 5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Sends and receives IPv4 advertisements over one interface.
#[derive(Debug)]
pub struct Ipv4Socket {
    socket: Socket,
    interface: u32,
}

impl Ipv4Socket {
    /// Needs `CAP_NET_RAW`.
    pub fn open(interface: &Interface, transport: Transport) -> io::Result<Self> {
        let index = InterfaceIndexOrAddress::Index(interface.index);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(VRRP)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.set_ttl_v4(HOP_LIMIT.into())?;
        socket.set_multicast_ttl_v4(HOP_LIMIT.into())?;
        socket.set_tos_v4(NETWORK_CONTROL.into())?;
        socket.set_multicast_loop_v4(false)?;
        // Otherwise it receives what others on this host have joined.
        socket.set_multicast_all_v4(false)?;
        match transport {
            Transport::Unicast => {}
            Transport::Multicast => socket.join_multicast_v4_n(&GROUP, &index)?,
        }
        forget(&socket);
        Ok(Self {
            socket,
            interface: interface.index,
        })
    }

    /// Sends from this address of the interface. The destination is a peer's address or [`GROUP`].
    pub fn send(&self, source: Ipv4Addr, destination: Ipv4Addr, bytes: &[u8]) -> io::Result<()> {
        let info = libc::in_pktinfo {
            ipi_ifindex: self.interface.cast_signed(),
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(source.octets()),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(SocketAddrV4::new(destination, 0))),
        )?;
        Ok(())
    }

    /// The next advertisement; none if there is none at the moment. The buffer takes the IP header too; what is longer than
    /// the buffer is cut.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let received = recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty());
        let length = unless_empty(received.map_err(io::Error::from))?;
        let packet = length.and_then(|length| buffer.get(..length));
        packet
            .map(|packet| read(packet).ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .transpose()
    }
}

impl AsFd for Ipv4Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes a packet apart: raw IPv4 sockets receive its header (raw(7)), so the TTL needs no control message.
fn read(packet: &[u8]) -> Option<Received<'_>> {
    let &[first, ..] = packet else { return None };
    let address = |offset: usize| {
        packet
            .get(offset..)?
            .first_chunk::<4>()
            .copied()
            .map(Ipv4Addr::from)
    };
    let header = usize::from(first & 0x0f) * 4;
    Some(Received {
        source: address(12)?.into(),
        destination: address(16)?.into(),
        hop_limit: *packet.get(8)?,
        bytes: packet.get(header.max(20)..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_the_header_are_no_part_of_the_advertisement() {
        let mut packet = vec![0; 24];
        packet[0] = 0x46;
        packet[8] = 254;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&GROUP.octets());
        packet.extend([0x31, 51]);
        let received = read(&packet).unwrap();
        assert_eq!(received.bytes, [0x31, 51]);
        assert_eq!((received.hop_limit, received.destination), (254, GROUP.into()));
        assert_eq!(received.source, Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn what_is_cut_within_the_header_is_not_read() {
        let packet = [0x45; 60];
        assert!(read(&packet[..20]).is_some_and(|received| received.bytes.is_empty()));
        for length in 0..20 {
            assert_eq!(read(&packet[..length]), None, "{length}");
        }
        let mut longer = packet;
        longer[0] = 0x4f;
        assert_eq!(read(&longer[..59]), None);
    }
}
