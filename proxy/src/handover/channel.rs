//! One connection between two processes: records with descriptors, over a unix socket that keeps both together
//! (`SOCK_SEQPACKET`).
//!
//! Sending never waits. What a peer has not read lies in the kernel's send buffer, and a peer that lets it fill does not
//! read: it is stopped or hangs, and who serves must not hang with it.

use std::{
    future::pending,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use nix::unistd::geteuid;
use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
        SocketType, sockopt,
    },
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};
use tracing::trace;

use super::{
    codec::{self, MAX_RECORD},
    record::Message,
};
use crate::net::spare;

/// The most descriptors in one record (`SCM_MAX_FD` of the kernel).
pub const MAX_DESCRIPTORS: usize = 253;

/// How much a peer may leave unread, as far as `net.core.wmem_max` allows: a few records of the largest size, and many
/// minutes of those that are sent while nothing changes.
const SEND_BUFFER: usize = 256 * 1024;

/// The most peers that wait to be accepted. Four processes at most run on a node at once; one that gave up waiting and
/// came back takes another place.
const BACKLOG: i32 = 64;

/// What goes wrong with a channel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process at the other end has another user.
    #[error("the peer is uid {peer}, and this process is uid {own}")]
    ForeignUser {
        /// The peer's user.
        peer: u32,
        /// The user of this process.
        own: u32,
    },
    /// The kernel's queue to the peer is full.
    #[error("the peer does not read")]
    NotReading,
    /// The peer's queue of connections is full.
    #[error("the peer does not accept connections")]
    NotAccepting,
    /// The peer has closed the channel, or reads no more. What it sent before can still be received.
    #[error("the peer has closed the channel")]
    Closed,
    /// The record holds more descriptors than the kernel passes at once.
    #[error("{count} descriptors do not fit into one record")]
    TooManyDescriptors {
        /// How many.
        count: usize,
    },
    /// The kernel could not pass all descriptors, as when this process may open no more files. Those that came were
    /// closed.
    #[error("not all descriptors of a record could be received")]
    DescriptorsLost,
    /// The record is longer than any that this release sends or reads.
    #[error("received a record of more than {MAX_RECORD} bytes")]
    TooLong,
    /// The record cannot be written or read.
    #[error(transparent)]
    Record(#[from] codec::Error),
    /// The kernel refuses the call.
    #[error("failed to use the channel")]
    Socket(#[from] io::Error),
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::Socket(error.into())
    }
}

/// A message with its descriptors, which close with it.
#[derive(Debug)]
pub struct Record {
    /// What it says.
    pub message: Message,
    /// What came along, as many as the sender has put in.
    pub descriptors: Vec<OwnedFd>,
}

/// What a read of a channel brings.
#[derive(Debug)]
pub enum Received {
    /// The next record.
    Record(Record),
    /// The peer has closed its end, by itself or by its death, and everything that it sent has been received.
    End,
}

/// A connection to a peer. The type of the socket is Tokio's for streams: it only waits for readiness here, and all reads
/// and writes are of whole records.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// Connects to the socket at this path; none if there is no socket, or nobody listens on it.
    pub fn connect(path: &Path) -> Result<Option<Self>, Error> {
        let socket = spare::with(|| Ok(new_socket()?))?;
        match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
            Ok(()) => Self::new(socket).map(Some),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(Errno::AGAIN) => Err(Error::NotAccepting),
            Err(error) => Err(error.into()),
        }
    }

    fn new(socket: OwnedFd) -> Result<Self, Error> {
        Self::of(UnixStream::from_std(socket.into())?)
    }

    /// The channel of a connected socket, unless its peer has another user. The kernel remembers who connected and who
    /// listened.
    fn of(socket: UnixStream) -> Result<Self, Error> {
        // Not by rustix: the peer's process id is 0 here if it is in another PID namespace, as in every other pod, and
        // rustix's type of process ids cannot hold 0.
        let (peer, own) = (socket.peer_cred()?.uid(), geteuid().as_raw());
        if peer != own {
            return Err(Error::ForeignUser { peer, own });
        }
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        Ok(Self { socket })
    }

    /// Sends a message with these descriptors, at once or not at all. The sender keeps its own duplicates.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let record = codec::encode(message, descriptors.len())?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let is_placed =
            descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        // The buffer may have room for one more than the kernel takes.
        if descriptors.len() > MAX_DESCRIPTORS || !is_placed {
            let count = descriptors.len();
            return Err(Error::TooManyDescriptors { count });
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let record = [IoSlice::new(&record)];
        // A record is sent whole or not at all, so its length says nothing.
        match rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, &record, &mut ancillary, flags))
        {
            Ok(_sent) => {
                trace!(record = ?message, "sent");
                Ok(())
            }
            Err(Errno::AGAIN) => {
                self.wait_for(Interest::WRITABLE);
                Err(Error::NotReading)
            }
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::Closed),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next record. After an error that is of the record and not of the socket the next one can be read.
    pub async fn receive(&self) -> Result<Received, Error> {
        let raw = self
            .socket
            .async_io(Interest::READABLE, || Ok(Raw::receive(&self.socket)?))
            .await?;
        raw.read()
    }

    /// The next record if one is there, without waiting.
    pub fn receive_now(&self) -> Result<Option<Received>, Error> {
        match Raw::receive(&self.socket) {
            Ok(raw) => raw.read().map(Some),
            Err(Errno::AGAIN) => {
                self.wait_for(Interest::READABLE);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a record may be there, or until one may be sent that could not be sent before.
    pub async fn ready(&self, to_read: bool, to_send: bool) {
        let interest = match (to_read, to_send) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return pending().await,
        };
        // An error shows at the next call.
        let _ready = self.socket.ready(interest).await;
    }

    /// Lets [`Self::ready`] wait for the next event: the event loop does not see calls that it did not make.
    fn wait_for(&self, interest: Interest) {
        let _cleared: io::Result<()> = self
            .socket
            .try_io(interest, || Err(io::ErrorKind::WouldBlock.into()));
    }

    /// Ends what the peer can send, and returns what it sent before. Whatever is not among it has failed at the peer
    /// ([`Error::Closed`]), so both know which message was the last. This end can still send.
    pub fn shut_receive(&self) -> Vec<Result<Record, Error>> {
        let mut rest = Vec::new();
        if let Err(error) = rustix::net::shutdown(&self.socket, Shutdown::Read) {
            rest.push(Err(error.into()));
        }
        loop {
            match self.receive_now() {
                Ok(Some(Received::Record(record))) => rest.push(Ok(record)),
                Ok(Some(Received::End) | None) => return rest,
                Err(error @ Error::Socket(_)) => {
                    rest.push(Err(error));
                    return rest;
                }
                Err(error) => rest.push(Err(error)),
            }
        }
    }
}

/// A record as the kernel hands it over.
struct Raw {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    flags: ReturnFlags,
}

impl Raw {
    fn receive(socket: &UnixStream) -> rustix::io::Result<Self> {
        let mut bytes = vec![0; MAX_RECORD];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            let buffer = &mut [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(socket, buffer, &mut ancillary, flags) {
                // A peer that ends with unread records of ours resets the channel. The kernel says so once, before it
                // hands over what the peer had sent.
                Err(Errno::CONNRESET | Errno::INTR) => {}
                received => break received?,
            }
        };
        let descriptors = ancillary
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        bytes.truncate(received.bytes);
        Ok(Self {
            bytes,
            descriptors,
            flags: received.flags,
        })
    }

    fn read(self) -> Result<Received, Error> {
        if self.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Error::DescriptorsLost);
        }
        if self.flags.contains(ReturnFlags::TRUNC) {
            return Err(Error::TooLong);
        }
        // No sender writes an empty record.
        if self.bytes.is_empty() && self.descriptors.is_empty() {
            return Ok(Received::End);
        }
        let message = codec::decode(&self.bytes, self.descriptors.len())?;
        trace!(record = ?message, "received");
        Ok(Received::Record(Record {
            message,
            descriptors: self.descriptors,
        }))
    }
}

/// A socket on which peers connect.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UnixListener,
}

impl PeerSocket {
    /// Listens on a socket at this path, where nothing may be.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let socket = new_socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self {
            socket: UnixListener::from_std(socket.into())?,
        })
    }

    /// Waits for the next peer. An error is of this peer, or of this process: one that may open no more files gets the
    /// same error at once again, so the caller waits before the next call.
    pub async fn accept(&self) -> Result<Channel, Error> {
        let (socket, _unnamed) = self.socket.accept().await?;
        Channel::of(socket)
    }
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

#[cfg(test)]
pub(super) mod tests;
