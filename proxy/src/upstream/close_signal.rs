//! The close signal of a connection: other tasks end the connection with a reason, ask its task to hand it over, and read
//! whether its client waits.

use std::{
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::ending::Ending;

/// What another task wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It ends, for this reason.
    End(Ending),
    /// It stops where it is, to be handed over to another process.
    HandOver,
}

/// Shared by the task of a connection and by the tasks that may end it.
#[derive(Debug, Default)]
pub struct CloseSignal {
    ending: OnceLock<Ending>,
    /// Whether the connection can be handed over: it is relayed, and was not asked yet.
    is_established: AtomicBool,
    hand_over: AtomicBool,
    waker: AtomicWaker,
    replies: Mutex<Replies>,
}

/// A reply that comes later than this after its request was not under way when the request was sent: the farthest apiserver
/// is a few milliseconds away.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// The client's wait for replies.
#[derive(Clone, Copy, Debug, Default)]
struct Replies {
    awaited_since: Option<Instant>,
    /// When a reply came last that the upstream's process must have sent meanwhile.
    last: Option<Instant>,
}

impl CloseSignal {
    /// Ends the connection. Only the first reason counts.
    pub fn end(&self, ending: Ending) {
        // Losing the race to another reason is fine: the connection ends either way.
        if self.ending.set(ending).is_ok() {
            self.waker.wake();
        }
    }

    /// The connection is relayed from now on, so that it can be handed over.
    pub fn establish(&self) {
        self.hand_over.store(false, Ordering::Relaxed);
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// Asks for the connection, once after each [`Self::establish`]. Returns whether it is asked now.
    pub fn ask_to_hand_over(&self) -> bool {
        let is_asked = self.is_established.swap(false, Ordering::Relaxed);
        if is_asked {
            self.hand_over.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
        is_asked
    }

    /// Ready once the connection must end, or is asked for.
    pub fn poll_call(&self, cx: &mut Context<'_>) -> Poll<Call> {
        // Register first: otherwise an ending between the check and the registration would be missed.
        self.waker.register(cx.waker());
        match self.ending.get() {
            Some(ending) => Poll::Ready(Call::End(*ending)),
            None if self.hand_over.load(Ordering::Relaxed) => Poll::Ready(Call::HandOver),
            None => Poll::Pending,
        }
    }

    /// Waits until the connection must end. For one that is not relayed.
    pub async fn ended(&self) -> Ending {
        poll_fn(|cx| match self.poll_call(cx) {
            Poll::Ready(Call::End(ending)) => Poll::Ready(ending),
            Poll::Ready(Call::HandOver) | Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Records that the client begins to wait for a reply, or has got it.
    pub fn set_waiting(&self, waiting: bool) {
        let mut replies = self.replies();
        let now = Instant::now();
        if waiting {
            replies.awaited_since.get_or_insert(now);
        } else if let Some(since) = replies.awaited_since.take()
            && now.saturating_duration_since(since) >= UNDER_WAY
        {
            replies.last = Some(now);
        }
    }

    /// Since when the client waits.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.replies().awaited_since
    }

    /// When the client got a reply last that was not under way when it was asked for: only a process that runs has sent it.
    pub fn last_reply(&self) -> Option<Instant> {
        self.replies().last
    }

    fn replies(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
