//! One direction of a pair.

use std::{
    io,
    net::Shutdown,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{net::TcpStream, task::yield_now};

use super::{
    state::{DirectionState, Phase},
    tail::{Tail, TailBudget},
};
use crate::net::socket;

/// The smallest and the first read size of a direction. In the long run the tail of a slow reader is no larger.
pub(super) const LEAST: usize = 64 * 1024;

/// Which side failed, and how.
#[derive(Debug)]
pub(super) enum Broken {
    /// The side that is read.
    Source(io::Error),
    /// The side that is written.
    Sink(io::Error),
}

/// One direction: the bytes that were read from the source and not yet taken by the sink, and its phase.
#[derive(Debug)]
pub(super) struct Direction {
    tail: Tail,
    phase: Phase,
    /// How much one read takes. It doubles after a read that fills it and that the sink takes whole, halves after a read
    /// that fills less than a quarter, and falls to [`LEAST`] when the sink is slow.
    read_size: usize,
    /// Whether nothing is read from the source, because the sink is slow.
    blocked: bool,
    moved: u64,
}

/// The result of one turn of an open direction.
enum Turn {
    /// All available bytes were moved: nothing to do until the source or the sink is ready again.
    Moved,
    /// One read's worth of bytes was moved, and there may be more.
    More,
    /// The source has ended.
    Ended,
}

impl Direction {
    /// A direction in this state. Its sink gets the tail first.
    pub(super) fn new(state: DirectionState, budget: Arc<TailBudget>) -> Self {
        let DirectionState { moved, tail, phase } = state;
        Self {
            tail: Tail::new(tail, budget),
            phase,
            read_size: LEAST,
            blocked: false,
            moved,
        }
    }

    /// Its state, from which another relay can go on.
    pub(super) fn into_state(self) -> DirectionState {
        DirectionState {
            moved: self.moved,
            tail: self.tail.into_bytes(),
            phase: self.phase,
        }
    }

    /// Bytes that the sink took.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether nothing is read from the source, because the sink is slow.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Moves the available bytes, at most one read's worth in one poll. Ready once the source has ended and the sink is
    /// shut down.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        let mut more = false;
        loop {
            self.blocked = true;
            ready!(self.poll_flush_tail(cx, sink)).map_err(Broken::Sink)?;
            self.blocked = false;
            match self.phase {
                Phase::Done => return Poll::Ready(Ok(())),
                Phase::Ended => {
                    socket::shutdown(sink, Shutdown::Write).map_err(Broken::Sink)?;
                    self.phase = Phase::Done;
                    return Poll::Ready(Ok(()));
                }
                Phase::Open if more => {
                    yield_to_others(cx);
                    return Poll::Pending;
                }
                Phase::Open => {}
            }
            ready!(source.poll_read_ready(cx)).map_err(Broken::Source)?;
            let turn = if let Some(size) = self.tail.budget().read_size(self.read_size, LEAST) {
                self.move_some(source, sink, scratch.get_mut(..size).unwrap_or_default())
            } else {
                self.blocked = true;
                ready!(sink.poll_write_ready(cx)).map_err(Broken::Sink)?;
                self.blocked = false;
                self.move_without_tail(source, sink, scratch.get_mut(..LEAST).unwrap_or_default())
            };
            match turn? {
                Turn::Moved => {}
                Turn::More => more = true,
                Turn::Ended => self.phase = Phase::Ended,
            }
        }
    }

    /// Reads, writes, and keeps what the sink does not take.
    fn move_some(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        scratch: &mut [u8],
    ) -> Result<Turn, Broken> {
        let Some(length) = unless_blocked(socket::read(source, scratch)).map_err(Broken::Source)? else {
            return Ok(Turn::Moved);
        };
        let (size, read) = (scratch.len(), scratch.get(..length).unwrap_or_default());
        if read.is_empty() {
            return Ok(Turn::Ended);
        }
        // The kernel takes all of it unless the reader is slow.
        let taken = unless_blocked(socket::write(sink, read)).map_err(Broken::Sink)?;
        let taken = taken.unwrap_or_default();
        self.moved += taken as u64;
        if taken < length {
            self.read_size = LEAST;
            self.tail.keep(read.get(taken..).unwrap_or_default());
        } else if length == size {
            self.read_size = (self.read_size * 2).min(super::SCRATCH);
        } else if length < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(LEAST);
        }
        // A read that did not fill the buffer took all available bytes.
        Ok(if length == size { Turn::More } else { Turn::Moved })
    }

    /// Peeks at the source, writes to the sink, and removes from the source only what the sink took.
    fn move_without_tail(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        scratch: &mut [u8],
    ) -> Result<Turn, Broken> {
        let Some(length) = unless_blocked(socket::peek(source, scratch)).map_err(Broken::Source)? else {
            return Ok(Turn::Moved);
        };
        let seen = scratch.get(..length).unwrap_or_default();
        if seen.is_empty() {
            return Ok(Turn::Ended);
        }
        let Some(taken) = unless_blocked(socket::write(sink, seen)).map_err(Broken::Sink)? else {
            return Ok(Turn::Moved);
        };
        self.moved += taken as u64;
        let taken = scratch.get_mut(..taken).unwrap_or_default();
        socket::discard(source, taken).map_err(Broken::Source)?;
        Ok(Turn::More)
    }

    fn poll_flush_tail(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<io::Result<()>> {
        while !self.tail.is_empty() {
            ready!(sink.poll_write_ready(cx))?;
            let taken = unless_blocked(self.tail.offer(|bytes| socket::write(sink, bytes)))?;
            self.moved += taken.unwrap_or_default() as u64;
        }
        Poll::Ready(Ok(()))
    }
}

/// None if the call would block: tokio has cleared the readiness, and the next poll waits.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Schedules the task behind all tasks that are ready now and all for which the kernel has events. After a yield tokio polls
/// a task only after the next `epoll_wait`; it would poll a task that wakes itself before that.
fn yield_to_others(cx: &mut Context<'_>) {
    // The first poll registers the task, and is pending.
    let _pending = pin!(yield_now()).poll(cx);
}
