//! The close signal of a connection: the rest of the proxy ends it with a reason, and sees whether its client waits.

use std::{
    future::poll_fn,
    sync::{Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::ending::Ending;

/// Shared by a connection's one task and by what may end it.
#[derive(Debug, Default)]
pub struct CloseSignal {
    ending: OnceLock<Ending>,
    waker: AtomicWaker,
    waiting: Mutex<Option<Instant>>,
}

impl CloseSignal {
    /// Ends the connection. The first reason given is the one that counts.
    pub fn end(&self, ending: Ending) {
        // Losing the race to another reason is fine: the connection ends either way.
        if self.ending.set(ending).is_ok() {
            self.waker.wake();
        }
    }

    /// Ready once the connection is to end.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        // Register first: an ending between the look and the registration would be missed otherwise.
        self.waker.register(cx.waker());
        self.ending
            .get()
            .map_or(Poll::Pending, |ending| Poll::Ready(*ending))
    }

    /// Waits until the connection is to end.
    pub async fn ended(&self) -> Ending {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Says that the client begins to wait for an answer, or no longer does.
    pub fn set_waiting(&self, waiting: bool) {
        let mut since = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if waiting {
            since.or_else(|| Some(Instant::now()))
        } else {
            None
        };
    }

    /// Since when the client waits.
    pub fn waiting_since(&self) -> Option<Instant> {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
