//! What the kernel of a node does with a virtual address, and how long it takes.

mod a_lost_carrier_is_told_at_once;
mod advertisements_tell_how_far_they_came;
mod clients_are_told_who_has_the_address;
mod clients_of_the_address_reach_the_proxy;
mod the_address_is_nobodys_source;
mod the_kernel_removes_the_address_of_a_dead_agent;
mod who_holds_a_moved_address_resets_its_connections;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::{
    address,
    interface::{self, Interface},
    netlink::Netlink,
    steering,
};

/// A virtual address on the wire of all places.
const V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

/// The port of the apiservers, and that to which the proxy takes redirected clients.
const APISERVER: u16 = 6443;
const PROXY: u16 = 7445;

/// More seconds than a test takes that is not about the end of an address.
const AMPLE: u32 = 60;

/// What kernel and machine may take for anything before a test gives up.
const LIMIT: Duration = Duration::from_secs(10);

/// A place that may hold the address.
struct Node<'a> {
    wire: &'a Wire,
    place: Place,
    netlink: Netlink,
    interface: Interface,
}

impl<'a> Node<'a> {
    fn at(wire: &'a Wire, place: Place) -> Result<Self> {
        let mut netlink = wire.at(place, Netlink::route)??;
        let interface = interface::by_name(&mut netlink, "eth0")?.context("no eth0")?;
        Ok(Self {
            wire,
            place,
            netlink,
            interface,
        })
    }

    fn put(&mut self, address: IpAddr) -> Result<()> {
        self.put_for(address, AMPLE)
    }

    fn put_for(&mut self, address: IpAddr, lifetime: u32) -> Result<()> {
        let index = self.interface.index;
        Ok(address::put(&mut self.netlink, index, address, lifetime)?)
    }

    fn remove(&mut self, address: IpAddr) -> Result<bool> {
        Ok(address::remove(&mut self.netlink, self.interface.index, address)?)
    }

    fn link_local(&mut self) -> Result<Ipv6Addr> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let assigned = address::list(&mut self.netlink)?;
            if let Some(found) = interface::link_local(&assigned, self.interface.index) {
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < deadline, "no link-local address: {assigned:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A frame of gratuitous ARP, a request (1) or a reply (2): this MAC address has the address.
fn gratuitous(operation: u8, mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { mac };
    let octets = address.octets();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, operation],
        &mac[..],
        &octets,
        &target,
        &octets,
    ];
    [&[0xff; 6], &mac[..], &[8, 6], &arp.concat()].concat()
}

/// A frame of neighbour discovery, an advertisement (136) that replaces what is known, or a solicitation (135).
fn neighbor_discovery(kind: u8, mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut message = [&[kind, 0, 0, 0, 0x20, 0, 0, 0], &target.octets()[..]].concat();
    if kind == 136 {
        message.extend([&[2, 1], &mac[..]].concat());
    }
    let length = u8::try_from(message.len()).unwrap_or_default();
    let addresses = [source.octets(), all_nodes].concat();
    let summed = [&addresses[..], &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let mut sum: u32 = summed
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!sum).to_be_bytes();
    message[2..4].copy_from_slice(&[high, low]);
    let header = [0x60, 0, 0, 0, 0, length, 58, 255];
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1], &mac[..], &[0x86, 0xdd]].concat();
    [&ethernet[..], &header, &addresses, &message].concat()
}

/// Waits until there is something to receive; whether there was within this time.
fn is_readable(socket: &impl AsFd, within: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(within)?;
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, timeout)? == 1)
}

/// A server that tells each client its name and which address the client has connected to, and then waits for its end.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens everywhere at a place, as an apiserver does.
    fn start(wire: &Wire, place: Place, port: u16, name: &'static str) -> Result<Self> {
        let listener = wire.at(place, || -> Result<TcpListener> {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(16)?;
            Ok(socket.into())
        })??;
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                thread::spawn(move || serve(client, name));
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(SockRef::from(&self.listener).shutdown(Shutdown::Both));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(mut client: TcpStream, name: &str) {
    let destination = match steering::original_destination(&client) {
        Ok(destination) => destination.to_string(),
        Err(error) => error.to_string(),
    };
    let answer = format!("{name} {destination}\n");
    drop(client.write_all(answer.as_bytes()));
    while matches!(client.read(&mut [0; 64]), Ok(1..)) {}
}

/// Connects from a place and returns the connection and what the server says.
fn connect(wire: &Wire, place: Place, to: (IpAddr, u16)) -> Result<(TcpStream, String)> {
    let to = SocketAddr::from(to);
    let connected = wire.at(place, || TcpStream::connect_timeout(&to, LIMIT))?;
    let mut stream = connected.with_context(|| format!("failed to connect to {to}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let mut answer = String::new();
    while !answer.ends_with('\n') {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0].into());
    }
    Ok((stream, answer.trim_end().to_owned()))
}

/// Writes to a connection until the peer resets it, and returns after how long it did.
fn time_to_reset(stream: &mut TcpStream) -> Result<Duration> {
    let begun = Instant::now();
    let mut outcome = stream.write(b"?");
    if outcome.is_ok() {
        outcome = stream.read(&mut [0; 64]);
    }
    let took = begun.elapsed();
    match outcome {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(took),
        Err(error) => Err(error).with_context(|| format!("no reset, but this after {took:?}")),
        Ok(length) => anyhow::bail!("{length} bytes and no reset"),
    }
}
