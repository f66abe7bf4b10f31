//! Socket options and process limits: the only place that knows them.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        resource,
        socket::{MsgFlags, recv, send},
    },
};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::spare;

/// The longest queue of clients that are not yet accepted: when all pods of a node reconnect at once no SYN is dropped.
const BACKLOG: u32 = 4096;

/// The time between two keepalive packets while none is acknowledged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Keepalive packets without an acknowledgement after which the kernel ends a client's connection: 13 s after the last
/// packet with the default idle time. Only a probe may tell a dead member from a dead network, so the kernel waits long
/// enough for a fault of up to 7 s that hits all members, whatever the phase of a connection: a connection whose last
/// packet is 5 s old when the fault begins is 12 s old when it ends.
const CLIENT_KEEPALIVE_RETRIES: u32 = 8;

/// The same for a probe's connection, whose end only starts the next probe. Where a user timeout is set the kernel
/// counts time instead of packets (`tcp_keepalive_timer`): with the defaults it ends the connection when the second
/// packet is due, 6 s after the last answer.
const PROBE_KEEPALIVE_RETRIES: u32 = 3;

/// How the kernel judges the host behind an upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamOptions {
    keepalive_idle: Duration,
    keepalive_retries: u32,
    user_timeout: Option<Duration>,
}

impl UpstreamOptions {
    /// For a connection that serves a client, with its idle time before the first keepalive packet. It has no
    /// TCP_USER_TIMEOUT, because an apiserver may take its time to read: the kernel counts a window that is closed for so
    /// long as a dead host, though each of its probes is acknowledged (`tcp_probe_timer` of Linux, since 5.11).
    pub fn for_clients(keepalive_idle: Duration) -> Self {
        Self {
            keepalive_idle,
            keepalive_retries: CLIENT_KEEPALIVE_RETRIES,
            user_timeout: None,
        }
    }

    /// For a connection that serves probes, with its idle time and with how long sent bytes may stay unacknowledged.
    pub fn for_probes(keepalive_idle: Duration, user_timeout: Duration) -> Self {
        Self {
            keepalive_idle,
            keepalive_retries: PROBE_KEEPALIVE_RETRIES,
            user_timeout: Some(user_timeout),
        }
    }
}

/// Whether nobody listens on `address`, not even a process that would share it.
pub fn is_free(address: SocketAddr) -> io::Result<bool> {
    match bind(address, false) {
        Ok(_alone) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

/// Listens on `address`, with TCP_NODELAY for every accepted connection. Anybody who listens there already makes this
/// fail, and nobody can join later: without SO_REUSEPORT the kernel refuses the port even to a process of the same user.
pub fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address, false)?.listen(BACKLOG)
}

/// Listens on `address`, with TCP_NODELAY for every accepted connection. The port is shared with any process of the same
/// user that sets SO_REUSEPORT too, as this proxy's predecessor and successor do, so that an upgrade leaves no moment
/// without a listener.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address, true)?.listen(BACKLOG)
}

/// Lets a process of the same user that sets SO_REUSEPORT listen on the same address from now on, as a release does that
/// knows no hand-over. There is no way back: the kernel remembers it for the port for as long as anybody listens there.
pub fn open_for_joining(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).set_reuse_port(true)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = new_socket(address)?;
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    // A predecessor's connections in TIME_WAIT must not keep us from the port.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Connects to an upstream, with its options set before the first packet.
pub async fn connect(address: SocketAddr, options: UpstreamOptions) -> io::Result<TcpStream> {
    let socket = spare::with(|| new_socket(address))?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_idle)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(options.keepalive_retries);
    let view = SockRef::from(&socket);
    view.set_tcp_keepalive(&keepalive)?;
    if options.user_timeout.is_some() {
        view.set_tcp_user_timeout(options.user_timeout)?;
    }
    let dialled = socket.connect(address).await;
    dialled.map_err(|error| with_cause(error, address, || find_source(address)))
}

/// Tells the two causes of EADDRNOTAVAIL apart: this node's ports are exhausted, or it has no address of that family, as
/// with net.ipv6.conf.all.disable_ipv6=1. The first passes; the second makes the peer unreachable from here for good.
/// `source` is [`find_source`], which needs no port of TCP.
fn with_cause(error: io::Error, address: SocketAddr, source: impl FnOnce() -> io::Result<()>) -> io::Error {
    let is_without_address = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    if is_without_address(&error) && source().as_ref().is_err_and(is_without_address) {
        let message = format!("this node has no address from which it reaches {address}: {error}");
        return io::Error::new(io::ErrorKind::NetworkUnreachable, message);
    }
    error
}

/// Whether the kernel finds an address of this node to reach `address` from. No packet is sent.
fn find_source(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.connect(&address.into())
}

/// Reads what there is. A read that does not fill the buffer took all: then the next poll for readability waits without
/// a system call.
pub fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    once(stream, Interest::READABLE, buffer.len(), || {
        Ok(recv(stream.as_raw_fd(), buffer, MsgFlags::empty())?)
    })
}

/// Writes what the kernel takes. A write that it does not take whole has filled its buffer: then the next poll for
/// writability waits without a system call.
pub fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    once(stream, Interest::WRITABLE, bytes.len(), || {
        Ok(send(stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    })
}

/// Copies what there is and leaves it unread.
pub fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream.try_io(Interest::READABLE, || {
        Ok(recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?)
    })
}

/// Takes as many bytes as `peeked` holds from the stream, without a copy (`MSG_TRUNC` of tcp(7)).
pub fn discard(stream: &TcpStream, peeked: &mut [u8]) -> io::Result<()> {
    let mut rest = peeked;
    while !rest.is_empty() {
        let taken = recv(stream.as_raw_fd(), rest, MsgFlags::MSG_TRUNC)?;
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest = rest.get_mut(taken..).unwrap_or_default();
    }
    Ok(())
}

/// Moves up to `whole` bytes once. Tokio takes a short count for the end of readiness only where the operation itself
/// reports that it would block.
fn once(
    stream: &TcpStream,
    interest: Interest,
    whole: usize,
    operation: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let outcome = stream.try_io(interest, || {
        let length = *moved.insert(operation()?);
        if length < whole {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(length)
        }
    });
    moved.map_or(outcome, Ok)
}

/// Ends one or both directions of a connection.
pub fn shutdown(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    SockRef::from(stream).shutdown(how)
}

/// Makes the connection's end a reset: its drop discards what its buffers hold.
pub fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "failed to set SO_LINGER");
    }
}

/// Ends both directions of a connection, also for other processes that have the socket.
pub fn end(stream: &TcpStream) {
    if let Err(error) = shutdown(stream, Shutdown::Both) {
        tracing::debug!(%error, "failed to end a connection");
    }
}

/// Resets a connection, also for other processes that have the socket: `connect(2)` with `AF_UNSPEC` disconnects it.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = rustix::net::connect_unspec(stream) {
        tracing::debug!(%error, "failed to reset a connection");
    }
}

/// Raises the limit of open files as far as this process may. Returns the limit.
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = resource::getrlimit(resource::Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        resource::setrlimit(resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// What an I/O error says about the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer's kernel answers that nothing listens there.
    Refused,
    /// A router reports that there is no route to the peer, or this node's kernel got no answer to ARP or neighbour
    /// discovery. A host without power looks like that from its own subnet, so it is silence of the peer. So does every
    /// address of a family that this node lacks.
    Unreachable,
    /// The peer ended the connection.
    Reset,
    /// The peer was silent for as long as the kernel waits.
    Timeout,
    /// This node cannot open a connection to any peer: files, ports, memory or connection tracking are exhausted, or a
    /// local rule forbids it. It is no evidence against the peer.
    Local,
    /// Something else.
    Other,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Unreachable,
        Self::Reset,
        Self::Timeout,
        Self::Local,
        Self::Other,
    ];

    /// Classifies an error.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED) => Self::Refused,
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::EAFNOSUPPORT) => {
                Self::Unreachable
            }
            Some(Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED) => Self::Reset,
            Some(Errno::ETIMEDOUT) => Self::Timeout,
            Some(
                Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EPERM
                | Errno::EACCES,
            ) => Self::Local,
            Some(_) | None => match error.kind() {
                io::ErrorKind::TimedOut => Self::Timeout,
                io::ErrorKind::NetworkUnreachable => Self::Unreachable,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    Self::Reset
                }
                _ => Self::Other,
            },
        }
    }

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Unreachable => "Unreachable",
            Self::Reset => "Reset",
            Self::Timeout => "Timeout",
            Self::Local => "Local",
            Self::Other => "Other",
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn an_address_of_a_family_that_this_node_lacks_is_unreachable_and_exhausted_ports_are_local() {
        let failed = |errno: Errno| io::Error::from(errno);
        let address = "[fd00::1]:6443".parse().unwrap();
        let fault = |dial, datagram| Fault::of(&with_cause(failed(dial), address, || datagram));
        // A node with net.ipv6.conf.all.disable_ipv6=1 answers both so.
        let lacking = Err(failed(Errno::EADDRNOTAVAIL));
        assert_eq!(fault(Errno::EADDRNOTAVAIL, lacking), Fault::Unreachable);
        // Datagrams have ports of their own, so that a socket for them still finds its address.
        assert_eq!(fault(Errno::EADDRNOTAVAIL, Ok(())), Fault::Local);
        let exhausted_too = Err(failed(Errno::EAGAIN));
        assert_eq!(fault(Errno::EADDRNOTAVAIL, exhausted_too), Fault::Local);
        let lacking = Err(failed(Errno::EADDRNOTAVAIL));
        assert_eq!(fault(Errno::ECONNREFUSED, lacking), Fault::Refused);
        // A kernel without IPv6.
        assert_eq!(fault(Errno::EAFNOSUPPORT, Ok(())), Fault::Unreachable);
    }

    #[test]
    fn a_datagram_socket_finds_the_loopback_address() {
        find_source("127.0.0.1:1".parse().unwrap()).unwrap();
    }

    /// Both ends of a connection, and a duplicate of the first one as another process has it.
    async fn shared_connection() -> (TcpStream, TcpStream, Socket) {
        let listener = listen_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let duplicate = SockRef::from(&near).try_clone().unwrap();
        (near, far, duplicate)
    }

    #[tokio::test]
    async fn a_connection_of_which_another_process_has_a_duplicate_is_reset_and_ended_all_the_same() {
        let (near, mut far, _duplicate) = shared_connection().await;
        reset(&near);
        drop(near);
        let error = far.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (near, mut far, _duplicate) = shared_connection().await;
        end(&near);
        drop(near);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn accepted_connections_have_no_delay() {
        for listen in [listen, listen_alone] {
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            assert!(accepted.nodelay().unwrap());
            assert!(!client.nodelay().unwrap(), "it is not the default");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_held_alone_is_shared_with_nobody() {
        let is_taken = |again: io::Result<TcpListener>| again.unwrap_err().kind() == io::ErrorKind::AddrInUse;
        let alone = listen_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = alone.local_addr().unwrap();
        assert!(is_taken(listen_alone(address)));
        assert!(is_taken(listen(address)));
        let shared = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = shared.local_addr().unwrap();
        assert!(is_taken(listen_alone(address)));
        drop(listen(address).unwrap());
    }

    #[tokio::test]
    async fn a_port_that_was_held_alone_can_be_opened_for_another_process_of_the_user() {
        let alone = listen_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = alone.local_addr().unwrap();
        open_for_joining(&alone).unwrap();
        let joined = listen(address).unwrap();
        drop(alone);
        let _client = TcpStream::connect(address).await.unwrap();
        joined.accept().await.unwrap();
    }
}
