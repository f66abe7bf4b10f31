//! The relay: moves bytes between a client and its upstream until both have closed their direction.
//!
//! One task polls both directions. It reads bytes into a scratch buffer that all connections of the thread share, and
//! writes them at once. It keeps only the tail: the bytes that the other side's socket does not take. So an idle connection
//! owns no buffer, and a slow reader slows its writer down.

mod direction;
mod state;
mod tail;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{io::Interest, net::TcpStream};

pub use self::{
    state::{DirectionState, PairState, Phase},
    tail::{TAILS_LIMIT, TailBudget},
};

use self::direction::{Broken, Direction};
use crate::{
    ending::Ending,
    metrics::Metrics,
    net::socket::Fault,
    upstream::{Call, CloseSignal},
};

/// The most that one read takes, and so the most that one poll moves in one direction before the other connections are
/// polled: about 100 µs. Measured: half of it costs 4 to 5 % more CPU for each byte, a quarter 25 %; twice as much raises
/// the p99 of small requests beside four streams by up to two thirds.
const SCRATCH: usize = 512 * 1024;

/// A client that has sent at most this many bytes since the last reply does not wait for an answer: two HTTP/2 window
/// updates in one TLS record.
const SMALL_TALK: u64 = 64;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A client's connection, its upstream connection, and the bytes that one side has sent and the other has not taken.
#[derive(Debug)]
pub struct Pair {
    client: TcpStream,
    upstream: TcpStream,
    flow: Flow,
}

/// Both directions of a pair.
#[derive(Debug)]
struct Flow {
    sent: Direction,
    received: Direction,
    last_reply: LastReply,
}

/// The bytes sent and received when the upstream last sent something, and whether the client waits for a reply since.
#[derive(Clone, Copy, Debug, Default)]
struct LastReply {
    sent: u64,
    received: u64,
    waiting: bool,
}

/// How a pair ended, and how many bytes it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why.
    pub ending: Ending,
    /// Bytes from the client to the upstream.
    pub sent: u64,
    /// Bytes from the upstream to the client.
    pub received: u64,
}

/// Why a relay stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The pair has ended.
    Ended(Summary),
    /// The pair is to be handed over: nothing is moved until the next [`Pair::run`], here or in another process.
    HandOver,
}

impl Pair {
    /// Pairs two connections. `unsent` was read from the client before. The tails of both directions count in `tails`.
    pub fn new(client: TcpStream, upstream: TcpStream, unsent: Bytes, tails: &Arc<TailBudget>) -> Self {
        let sent = DirectionState {
            tail: unsent,
            ..DirectionState::default()
        };
        let state = PairState {
            sent,
            ..PairState::default()
        };
        Self::resume(client, upstream, state, tails)
    }

    /// Goes on with a pair from where another relay has left it.
    pub fn resume(client: TcpStream, upstream: TcpStream, state: PairState, tails: &Arc<TailBudget>) -> Self {
        let PairState {
            sent,
            received,
            unanswered,
        } = state;
        Self {
            client,
            upstream,
            flow: Flow {
                last_reply: LastReply {
                    sent: sent.moved.saturating_sub(unanswered),
                    received: received.moved,
                    waiting: false,
                },
                sent: Direction::new(sent, Arc::clone(tails)),
                received: Direction::new(received, Arc::clone(tails)),
            },
        }
    }

    /// The two connections and the state from which another relay can go on.
    pub fn into_parts(self) -> (TcpStream, TcpStream, PairState) {
        let Flow {
            sent,
            received,
            last_reply,
        } = self.flow;
        let unanswered = if received.moved() == last_reply.received {
            sent.moved().saturating_sub(last_reply.sent)
        } else {
            0
        };
        let state = PairState {
            sent: sent.into_state(),
            received: received.into_state(),
            unanswered,
        };
        (self.client, self.upstream, state)
    }

    /// The client's side.
    pub fn client(&self) -> &TcpStream {
        &self.client
    }

    /// The upstream's side.
    pub fn upstream(&self) -> &TcpStream {
        &self.upstream
    }

    /// Relays until both sides have closed, one has failed, or the close signal ends it or asks for it. Bytes are counted as
    /// they move.
    pub async fn run(&mut self, close_signal: &CloseSignal, metrics: &Metrics) -> Stop {
        let Self {
            client,
            upstream,
            flow,
        } = self;
        // Boxed, because only a pair whose upstream is slow needs it.
        let mut reset = None;
        let call = poll_fn(|cx| {
            if let Poll::Ready(call) = close_signal.poll_call(cx) {
                return Poll::Ready(call);
            }
            let (sent, received) = (flow.sent.moved(), flow.received.moved());
            let turn = flow.poll(cx, client, upstream);
            metrics.relayed(flow.sent.moved() - sent, flow.received.moved() - received);
            flow.note_overdue_reply(close_signal);
            // No read shows the client's reset while the upstream is slow and nothing is read from the client.
            if turn.is_pending() && flow.sent.is_blocked() {
                let reset = reset.get_or_insert_with(|| Box::pin(client.ready(Interest::ERROR)));
                if reset.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Call::End(Ending::ClientLeft));
                }
            } else {
                reset = None;
            }
            turn.map(Call::End)
        })
        .await;
        match call {
            Call::End(ending) => Stop::Ended(Summary {
                ending,
                sent: flow.sent.moved(),
                received: flow.received.moved(),
            }),
            Call::HandOver => Stop::HandOver,
        }
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>, client: &TcpStream, upstream: &TcpStream) -> Poll<Ending> {
        let Self { sent, received, .. } = self;
        let (sending, receiving) = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let sending = sent.poll(cx, client, upstream, scratch);
            (sending, received.poll(cx, upstream, client, scratch))
        });
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

    /// Records whether the client waits for a reply: in a large cluster this shows a hung upstream before a probe does.
    fn note_overdue_reply(&mut self, close_signal: &CloseSignal) {
        let (sent, received) = (self.sent.moved(), self.received.moved());
        let waiting = if received == self.last_reply.received {
            sent - self.last_reply.sent > SMALL_TALK
        } else {
            self.last_reply.sent = sent;
            self.last_reply.received = received;
            false
        };
        if std::mem::replace(&mut self.last_reply.waiting, waiting) != waiting {
            close_signal.set_waiting(waiting);
        }
    }
}

fn upstream_broke(error: &io::Error) -> Ending {
    match Fault::of(error) {
        // The kernel gave the host up: no acknowledgement, or no answer to ARP or neighbour discovery.
        Fault::Timeout | Fault::Unreachable => Ending::UpstreamTimeout,
        Fault::Refused | Fault::Reset | Fault::Local | Fault::Other => Ending::UpstreamReset,
    }
}
