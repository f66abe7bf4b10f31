//! The close signal of a connection: other tasks end the connection with a reason, and read whether its client waits.

use std::{
    future::poll_fn,
    sync::{Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::ending::Ending;

/// Shared by the task of a connection and by the tasks that may end it.
#[derive(Debug, Default)]
pub struct CloseSignal {
    ending: OnceLock<Ending>,
    waker: AtomicWaker,
    waiting: Mutex<Option<Instant>>,
}

impl CloseSignal {
    /// Ends the connection. Only the first reason counts.
    pub fn end(&self, ending: Ending) {
        // Losing the race to another reason is fine: the connection ends either way.
        if self.ending.set(ending).is_ok() {
            self.waker.wake();
        }
    }

    /// Ready once the connection must end.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        // Register first: otherwise an ending between the check and the registration would be missed.
        self.waker.register(cx.waker());
        self.ending
            .get()
            .map_or(Poll::Pending, |ending| Poll::Ready(*ending))
    }

    /// Waits until the connection must end.
    pub async fn ended(&self) -> Ending {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Records that the client begins to wait for an answer, or no longer does.
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
