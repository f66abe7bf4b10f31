//! The relay: moves bytes between a client and its upstream until both have said all they wanted to say.
//!
//! One task, both directions in one poll. What is read lies in a scratch buffer that all connections of the thread
//! share and is sent at once; only what the other side does not take is kept, so an idle connection owns no buffer and
//! a slow reader slows its writer. A pair can be stopped between two polls with its sockets and tails in hand.

mod direction;

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use self::direction::{Broken, Direction};
use crate::{ending::Ending, metrics::Metrics, net::socket::Fault, upstream::CloseSignal};

/// What is read at once, and so what one poll moves in one direction before the other connections get their turn: some
/// 100 µs. Half of it costs 4 to 5 % more CPU a byte, a quarter 25 %; twice as much lets small requests wait longer
/// behind four streams, with a p99 that is up to two thirds higher. A thread has one.
const SCRATCH: usize = 512 * 1024;

/// More than a client sends without wanting an answer: two HTTP/2 window updates in one TLS record.
const SMALL_TALK: u64 = 64;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A client and its upstream, with what is on the way between them.
#[derive(Debug)]
pub struct Pair {
    client: TcpStream,
    upstream: TcpStream,
    sent: Direction,
    received: Direction,
    heard: Heard,
}

/// What had been sent and received when the upstream was heard last, and whether the client waits since.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    sent: u64,
    received: u64,
    waiting: bool,
}

/// How a pair ended, and what it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why.
    pub ending: Ending,
    /// Bytes from the client to the upstream.
    pub sent: u64,
    /// Bytes from the upstream to the client.
    pub received: u64,
}

impl Pair {
    /// Pairs two connections; `unsent` was read from the client already.
    pub fn new(client: TcpStream, upstream: TcpStream, unsent: Bytes) -> Self {
        Self {
            client,
            upstream,
            sent: Direction::new(unsent),
            received: Direction::new(Bytes::new()),
            heard: Heard::default(),
        }
    }

    /// The client's side.
    pub fn client(&self) -> &TcpStream {
        &self.client
    }

    /// The upstream's side.
    pub fn upstream(&self) -> &TcpStream {
        &self.upstream
    }

    /// Relays until both sides have ended, one has broken, or the close_signal says so. Bytes are counted as they move.
    pub async fn run(&mut self, close_signal: &CloseSignal, metrics: &Metrics) -> Summary {
        let ending = poll_fn(|cx| {
            let (sent, received) = (self.sent.moved(), self.received.moved());
            let turn = self.poll(cx, close_signal);
            metrics.relayed(self.sent.moved() - sent, self.received.moved() - received);
            turn
        })
        .await;
        Summary {
            ending,
            sent: self.sent.moved(),
            received: self.received.moved(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, close_signal: &CloseSignal) -> Poll<Ending> {
        if let Poll::Ready(ending) = close_signal.poll_ended(cx) {
            return Poll::Ready(ending);
        }
        let Self {
            client,
            upstream,
            sent,
            received,
            ..
        } = self;
        let (sending, receiving) = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let sending = sent.poll(cx, client, upstream, scratch);
            (sending, received.poll(cx, upstream, client, scratch))
        });
        self.note_silence(close_signal);
        match (sending, receiving) {
            (Poll::Ready(Err(Broken::Source(_))), _) | (_, Poll::Ready(Err(Broken::Sink(_)))) => {
                Poll::Ready(Ending::ClientLeft)
            }
            (Poll::Ready(Err(Broken::Sink(error))), _) | (_, Poll::Ready(Err(Broken::Source(error)))) => {
                Poll::Ready(upstream_broke(&error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ending::Finished),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }
}

impl Pair {
    /// Traffic notices a hung upstream before the next probe does, if that is seconds away.
    fn note_silence(&mut self, close_signal: &CloseSignal) {
        let (sent, received) = (self.sent.moved(), self.received.moved());
        let waiting = if received == self.heard.received {
            sent - self.heard.sent > SMALL_TALK
        } else {
            self.heard.sent = sent;
            self.heard.received = received;
            false
        };
        if std::mem::replace(&mut self.heard.waiting, waiting) != waiting {
            close_signal.set_waiting(waiting);
        }
    }
}

fn upstream_broke(error: &io::Error) -> Ending {
    match Fault::of(error) {
        // A host that the kernel gave up on: no acknowledgement, or no answer to who has this address.
        Fault::Timeout | Fault::Unreachable => Ending::UpstreamTimeout,
        Fault::Refused | Fault::Reset | Fault::Local | Fault::Other => Ending::UpstreamReset,
    }
}
