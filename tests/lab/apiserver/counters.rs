//! The counters of an apiserver, and whether it listens.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use trivet_lab::behaviour::{Counts, Door};

/// Counts of one kind of request.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    total: AtomicU64,
    now: AtomicU64,
    at_once: AtomicU64,
}

impl Asked {
    /// Counts a request, which counts as unanswered until the guard is dropped.
    pub(crate) fn count(&self) -> Waiting<'_> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.at_once.fetch_max(now, Ordering::Relaxed);
        Waiting(self)
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Asked);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests for `/readyz`.
    pub(crate) readyz: Asked,
    /// Requests for `/livez`.
    pub(crate) livez: Asked,
    /// Requests of clients.
    pub(crate) requests: Asked,
    connections: AtomicU64,
    listens: watch::Sender<bool>,
}

impl Counters {
    /// The current counts.
    pub(crate) fn read(&self) -> Counts {
        let total = |asked: &Asked| asked.total.load(Ordering::Relaxed);
        let at_once = |asked: &Asked| asked.at_once.load(Ordering::Relaxed);
        Counts {
            readyz: total(&self.readyz),
            livez: total(&self.livez),
            readyz_at_once: at_once(&self.readyz),
            livez_at_once: at_once(&self.livez),
            requests: total(&self.requests),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection that was accepted.
    pub(crate) fn accepted(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Records whether the listener is open.
    pub(crate) fn listens(&self, open: bool) {
        self.listens.send_replace(open);
    }

    /// Waits until the listener is open.
    pub(crate) async fn listening(&self) {
        self.obeyed(Door::Open).await;
    }

    /// Waits until the listener is open or closed as this door requires.
    pub(crate) async fn obeyed(&self, door: Door) {
        let open = door != Door::Closed;
        // The sender is ours: it cannot be gone.
        drop(
            self.listens
                .subscribe()
                .wait_for(|listens| *listens == open)
                .await,
        );
    }
}
