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

/// Which side broke, and how.
#[derive(Debug)]
pub(super) enum Broken {
    /// The side that is read.
    Source(io::Error),
    /// The side that is written.
    Sink(io::Error),
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The source has ended; the sink is told once it has all.
    Ended,
    Done,
}

/// What is read from one side and not yet taken by the other, and how far it is.
#[derive(Debug)]
pub(super) struct Direction {
    tail: Bytes,
    phase: Phase,
    moved: u64,
}

impl Direction {
    /// A direction whose sink is owed `tail`.
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

    /// Moves what there is, but only once as much as `scratch` holds; ready once the source has ended and the sink was
    /// told so.
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
                    others_first(cx);
                    return Poll::Pending;
                }
                Phase::Open => {}
            }
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *source).poll_read(cx, &mut buffer)).map_err(Broken::Source)?;
            // What did not fill it was all there was: tokio knows that, and the next read waits without asking.
            more = buffer.remaining() == 0;
            let read = buffer.filled();
            if read.is_empty() {
                self.phase = Phase::Ended;
                continue;
            }
            // Sent at once; the kernel takes all of it unless the reader is slow.
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
        // An empty slice of a large buffer would keep it.
        self.tail = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Has the task polled again once all others that are ready, and those that the kernel has news for, had their turn:
/// tokio wakes who yields after it has asked the kernel. Who is woken at once would be in line before the news.
fn others_first(cx: &mut Context<'_>) {
    // Its first poll does it all, and is pending.
    let _pending = pin!(yield_now()).poll(cx);
}
