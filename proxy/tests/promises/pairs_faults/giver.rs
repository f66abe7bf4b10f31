//! A process that gives connections which it relays, and does not come to its end as a proxy does.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use trivet_proxy::{
    balance::PathKey,
    connection::transfer::{Given, Passport, Progress},
    handover::{
        channel::Channel,
        directory,
        pairs::batch::{self, Written},
        record::{Message, Pairs},
    },
    relay::{DirectionState, PairState},
};

use crate::{
    pairs::SOON,
    relaying::{random, read_slowly, write_slowly},
    support::node::Node,
};

/// How much a client sends and gets after its connection was given.
const LENGTH: usize = 1_000_000;

/// What the process has read from a client and not written.
const UNSENT: &[u8] = b"read from the client, ";

/// What it has read from the upstream and not written, because the upstream is an echo.
const UNRECEIVED: &[u8] = b"read from the upstream, ";

/// A connection that the process relays, to an upstream that echoes.
pub(crate) struct Relayed {
    pub(crate) client: TcpStream,
    pub(crate) passport: Passport,
    /// The client's side, and the upstream's unless it is still being opened.
    pub(crate) sides: Vec<TcpStream>,
}

impl Relayed {
    /// One that was relayed for a while.
    pub(crate) async fn new(member: SocketAddr) -> Self {
        let mut relayed = Self::opening().await;
        let mut upstream = TcpStream::connect(member).await.unwrap();
        let mut received = vec![0; UNRECEIVED.len()];
        upstream.write_all(UNRECEIVED).await.unwrap();
        upstream.read_exact(&mut received).await.unwrap();
        let direction = |moved: &[u8], tail: &[u8]| DirectionState {
            moved: moved.len() as u64,
            tail: Bytes::copy_from_slice(tail),
            ..DirectionState::default()
        };
        relayed.passport.progress = Progress::Established {
            upstream: Given {
                path: PathKey {
                    member: "unknown".to_owned(),
                    address: member,
                },
                first_byte: None,
                hedged: false,
                drains_within: None,
            },
            pair: PairState {
                sent: direction(UNRECEIVED, UNSENT),
                received: direction(&[], &received),
                unanswered: 0,
            },
        };
        relayed.sides.push(upstream);
        relayed
    }

    /// One that is being opened.
    pub(crate) async fn opening() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (side, peer) = accepted.unwrap();
        let passport = Passport {
            client: peer,
            listener: address,
            extra_listener: None,
            age: Duration::from_secs(1),
            progress: Progress::Opening {
                heard: Bytes::from_static(UNSENT),
            },
        };
        Self {
            client: client.unwrap(),
            passport,
            sides: vec![side],
        }
    }

    /// The process closes what it has of the connection.
    pub(crate) fn leave(self) -> Client {
        let is_opening = matches!(self.passport.progress, Progress::Opening { .. });
        Client {
            stream: self.client,
            begun: if is_opening {
                UNSENT.to_vec()
            } else {
                [UNRECEIVED, UNSENT].concat()
            },
        }
    }
}

/// The client of such a connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// What it gets from before.
    begun: Vec<u8>,
}

impl Client {
    /// Sends bytes and gets them back, after what was on its way.
    pub(crate) async fn goes_on(self, seed: u64) {
        let sent = random(seed, LENGTH);
        let (mut reads, mut writes) = self.stream.into_split();
        let both = async {
            tokio::join!(
                write_slowly(&mut writes, &sent, seed),
                read_slowly(&mut reads, 60_000, seed)
            )
        };
        let ((), got) = timeout(SOON, both).await.unwrap();
        assert!(got == [self.begun, sent].concat(), "{} bytes", got.len());
    }

    /// Waits until nobody has the other end any more.
    pub(crate) async fn has_lost_all(mut self) {
        let end = timeout(SOON, self.stream.read(&mut [0; 100])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

/// A channel to the proxy that serves on this node.
pub(crate) fn connect(node: &Node) -> Channel {
    let directory = &node.handover.as_ref().unwrap().directory;
    directory::connect(directory).unwrap().unwrap()
}

/// Sends a batch with these connections.
pub(crate) fn give(channel: &Channel, number: u64, connections: &[Relayed]) {
    let passports = connections.iter().map(|relayed| &relayed.passport);
    let Written { file, text, bytes } = batch::write(passports).unwrap();
    let sides = connections.iter().flat_map(|relayed| &relayed.sides);
    let sides: Vec<_> = sides.map(AsFd::as_fd).collect();
    send(channel, (&file, text, bytes), number, &sides);
}

/// Sends a batch of this file, with the lengths that are said of it, and these sockets.
pub(crate) fn send(
    channel: &Channel,
    (file, text, bytes): (&OwnedFd, u64, u64),
    take: u64,
    sockets: &[BorrowedFd<'_>],
) {
    let descriptors = [&[file.as_fd()], sockets].concat();
    let pairs = Pairs {
        take,
        sockets: sockets.len() as u64,
        text,
        bytes,
    };
    channel.send(&Message::Pairs(pairs), &descriptors).unwrap();
}
