//! Listening sockets that one process lends to another: duplicates of the same sockets, with the same queues of clients.
//!
//! A socket is registered with the event loop only while this process accepts from it. The kernel keeps a registration for
//! as long as any process has the socket open, so one that outlives its descriptor here would be reported for ever.
//!
//! Nothing here calls `listen(2)`. It would revive a socket that another process has ended with `shutdown(2)`, in every
//! process that has a duplicate.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::errno::Errno;
use socket2::{Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Why a descriptor is not the listener that was announced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is a file, or a socket of another protocol.
    #[error("the descriptor received for {address} is not a TCP socket")]
    NotTcp {
        /// The announced address.
        address: SocketAddr,
    },
    /// It does not listen. Its owner may have ended it while it was on its way.
    #[error("the socket received for {address} does not listen")]
    NotListening {
        /// The announced address.
        address: SocketAddr,
    },
    /// It is bound elsewhere.
    #[error("the socket received for {announced} listens on another address")]
    OtherAddress {
        /// The announced address.
        announced: SocketAddr,
        /// Where it listens; none if that is not an IP address.
        actual: Option<SocketAddr>,
    },
    /// The kernel refuses the call.
    #[error("failed to use the socket received for {address}")]
    Socket {
        /// The announced address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A listening socket that is held and not accepted from.
#[derive(Debug)]
pub struct LentListener {
    socket: Socket,
    address: SocketAddr,
}

impl LentListener {
    /// The listener of a descriptor that came for `address`.
    pub fn receive(descriptor: OwnedFd, address: SocketAddr) -> Result<Self, Error> {
        let failure = |source| Error::Socket { address, source };
        let socket = Socket::from(descriptor);
        if !is_tcp(&socket).map_err(failure)? {
            return Err(Error::NotTcp { address });
        }
        if !socket.is_listener().map_err(failure)? {
            return Err(Error::NotListening { address });
        }
        let actual = socket.local_addr().map_err(failure)?.as_socket();
        if actual != Some(address) {
            return Err(Error::OtherAddress {
                announced: address,
                actual,
            });
        }
        // A socket of this proxy does not block, but one that systemd made may.
        socket.set_nonblocking(true).map_err(failure)?;
        Ok(Self { socket, address })
    }

    /// A duplicate of a listener that this process accepts from, to be lent.
    pub fn duplicate(listener: &TcpListener) -> io::Result<Self> {
        Ok(Self {
            address: listener.local_addr()?,
            socket: SockRef::from(listener).try_clone()?,
        })
    }

    /// Ends accepting from this listener and keeps its socket.
    pub fn keep(listener: TcpListener) -> io::Result<Self> {
        Ok(Self {
            address: listener.local_addr()?,
            // This removes the registration too.
            socket: listener.into_std()?.into(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to accept, on a duplicate. Every process that does so gets its share of the clients.
    pub fn accept(&self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket.try_clone()?.into())
    }

    /// Ends it for every holder: the port is closed, and clients that wait are reset. Never for a socket that systemd made.
    pub fn end(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Both)
    }

    /// Whether it listens still. A process that ends a listener ends it for every holder.
    pub fn is_listening(&self) -> io::Result<bool> {
        self.socket.is_listener()
    }
}

impl AsFd for LentListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for LentListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Whether `accept` fails with this error because the listener was ended, here or by another process that has a
/// duplicate.
pub fn is_ended(accept: &io::Error) -> bool {
    accept.raw_os_error() == Some(Errno::EINVAL as i32)
}

fn is_tcp(socket: &Socket) -> io::Result<bool> {
    match socket.r#type() {
        Ok(Type::STREAM) => Ok(socket.protocol()? == Some(Protocol::TCP)),
        Ok(_other) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTSOCK as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{TcpStream, UdpSocket},
        os::unix::net::UnixListener,
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;
    use crate::net::socket::listen_alone;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = listen_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn received(socket: impl Into<OwnedFd>, address: SocketAddr) -> Result<LentListener, Error> {
        LentListener::receive(socket.into(), address)
    }

    #[tokio::test]
    async fn clients_that_waited_at_one_holder_are_accepted_by_the_other() {
        let (giver, address) = listener();
        let lent = LentListener::duplicate(&giver).unwrap();
        let client = TcpStream::connect(address).unwrap();
        drop(giver);
        let taken = lent.accept().unwrap();
        let (_connection, peer) = taken.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_listener_that_is_kept_can_accept_again() {
        let (first, address) = listener();
        let kept = LentListener::keep(first).unwrap();
        assert_eq!(kept.address(), address);
        for _turn in 0..2 {
            let accepting = kept.accept().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            accepting.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_listener_is_received_where_it_was_announced() {
        let (giver, address) = listener();
        let duplicate = |listener: &TcpListener| SockRef::from(listener).try_clone().unwrap();
        let lent = received(duplicate(&giver), address).unwrap();
        assert_eq!(lent.address(), address);
        assert!(lent.is_listening().unwrap());
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], address.port()));
        let refused = received(duplicate(&giver), elsewhere).unwrap_err();
        assert!(
            matches!(refused, Error::OtherAddress { actual, .. } if actual == Some(address)),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn what_is_no_listener_is_refused() {
        let (giver, address) = listener();
        let client = TcpStream::connect(address).unwrap();
        let refused = received(client, address).unwrap_err();
        assert!(matches!(refused, Error::NotListening { .. }), "{refused:?}");
        drop(giver);
        let directory = tempfile::tempdir().unwrap();
        let others: [OwnedFd; 3] = [
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            UnixListener::bind(directory.path().join("socket"))
                .unwrap()
                .into(),
            fs::File::open(directory.path()).unwrap().into(),
        ];
        for other in others {
            let refused = received(other, address).unwrap_err();
            assert!(matches!(refused, Error::NotTcp { .. }), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_listener_that_another_holder_ended_is_recognised_and_not_revived() {
        let (giver, address) = listener();
        let lent = LentListener::duplicate(&giver).unwrap();
        let accepting = lent.accept().unwrap();
        // Far beyond what a loaded machine needs: a listener that was revived waits for ever.
        let bounded = async |listener: &TcpListener| {
            let accepted = timeout(Duration::from_secs(20), listener.accept()).await;
            accepted.expect("the listener does not end").unwrap_err()
        };
        let (ended, ()) = tokio::join!(bounded(&accepting), async {
            LentListener::duplicate(&giver).unwrap().end().unwrap();
        });
        assert!(is_ended(&ended));
        assert!(!lent.is_listening().unwrap());
        let refused = received(SockRef::from(&giver).try_clone().unwrap(), address).unwrap_err();
        assert!(matches!(refused, Error::NotListening { .. }), "{refused:?}");
        // Accepting anew changes nothing: the port stays closed.
        let again = lent.accept().unwrap();
        assert!(is_ended(&bounded(&again).await));
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn other_errors_of_accept_end_no_listener() {
        for errno in [Errno::EMFILE, Errno::ECONNABORTED, Errno::EAGAIN] {
            assert!(!is_ended(&errno.into()), "{errno}");
        }
    }
}
