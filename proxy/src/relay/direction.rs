//! One direction of a pair.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::yield_now,
};

/// Which side failed, and how.
#[derive(Debug)]
pub(super) enum Broken {
    /// The side that is read.
    Source(io::Error),
    /// The side that is written.
    Sink(io::Error),
}

/// The phase of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The source has ended; the sink is shut down once it has the tail.
    Ended,
    Done,
}

/// One direction: the bytes that were read from the source and not yet taken by the sink, and its phase.
#[derive(Debug)]
pub(super) struct Direction {
    tail: Bytes,
    phase: Phase,
    moved: u64,
}

impl Direction {
    /// A direction whose sink gets `tail` first.
    pub(super) fn new(tail: Bytes) -> Self {
        Self {
            tail,
            phase: Phase::Open,
            moved: 0,
        }
    }

    /// Bytes that the sink took.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Moves what there is, at most as much as `scratch` holds in one poll. Ready once the source has ended and the sink
    /// is shut down.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        let mut more = false;
        loop {
            ready!(self.poll_flush_tail(cx, sink))?;
            match self.phase {
                Phase::Done => return Poll::Ready(Ok(())),
                Phase::Ended => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                    self.phase = Phase::Done;
                    return Poll::Ready(Ok(()));
                }
                Phase::Open if more => {
                    yield_to_others(cx);
                    return Poll::Pending;
                }
                Phase::Open => {}
            }
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *source).poll_read(cx, &mut buffer)).map_err(Broken::Source)?;
            // A read that did not fill the buffer took all there was: tokio knows that, and the next read waits without
            // a system call.
            more = buffer.remaining() == 0;
            let read = buffer.filled();
            if read.is_empty() {
                self.phase = Phase::Ended;
                continue;
            }
            // The kernel takes all of it unless the reader is slow.
            match Pin::new(&mut *sink).poll_write(cx, read) {
                Poll::Ready(Ok(taken)) => {
                    self.moved += taken as u64;
                    self.tail = Bytes::copy_from_slice(read.get(taken..).unwrap_or_default());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Sink(error))),
                Poll::Pending => self.tail = Bytes::copy_from_slice(read),
            }
        }
    }

    fn poll_flush_tail(&mut self, cx: &mut Context<'_>, sink: &mut TcpStream) -> Poll<Result<(), Broken>> {
        while !self.tail.is_empty() {
            let taken = ready!(Pin::new(&mut *sink).poll_write(cx, &self.tail)).map_err(Broken::Sink)?;
            self.moved += taken as u64;
            self.tail.advance(taken);
        }
        // An empty slice would keep its large buffer.
        self.tail = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Has the task polled again after all tasks that are ready now and all that the kernel has events for. Tokio polls a task
/// that yields after it has asked the kernel; a task that wakes itself would be polled before.
fn yield_to_others(cx: &mut Context<'_>) {
    // The first poll registers the task, and is pending.
    let _pending = pin!(yield_now()).poll(cx);
}
