//! Records which kinds of objects have been listed once, for `/readyz` and for the passes that wait for a kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::watchdog::Watchdog;
use crate::logging::chain;

/// The kinds that are watched.
pub const KINDS: [&str; 5] = ["ApiserverPool", "Node", "ConfigMap", "DaemonSet", "Pod"];

/// Which kinds have been read once.
///
/// (kube's own `Store::wait_until_ready` wakes only one of its waiters, and for pools that one is `Controller`.)
#[derive(Debug)]
pub struct Readiness {
    metrics: Arc<Metrics>,
    watchdog: Arc<Watchdog>,
    unread: watch::Sender<BTreeSet<&'static str>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::default())
    }
}

impl Readiness {
    /// No kind has been read. `metrics` counts the events and errors of the watches, and `watchdog` sees that they go on.
    pub fn new(metrics: Arc<Metrics>, watchdog: Arc<Watchdog>) -> Self {
        Self {
            metrics,
            watchdog,
            unread: watch::Sender::new(KINDS.into()),
        }
    }

    /// Whether every kind has been read once.
    pub fn is_complete(&self) -> bool {
        self.unread.borrow().is_empty()
    }

    /// Whether this kind has been read once.
    pub fn has_read(&self, kind: &str) -> bool {
        !self.unread.borrow().contains(kind)
    }

    /// Waits until this kind has been read once.
    pub async fn read(&self, kind: &'static str) {
        // The sender lives as long as `self`, so the wait cannot fail.
        self.unread
            .subscribe()
            .wait_for(|unread| !unread.contains(kind))
            .await
            .ok();
    }

    /// Records that the watch of this kind is looked at.
    pub fn polled(&self, kind: &'static str) {
        self.watchdog.beat(&format!("watch {kind}"));
    }

    /// Records an event or error of the watch of this kind.
    pub fn observe<K>(&self, kind: &'static str, item: &Result<Event<K>, watcher::Error>) {
        match item {
            Ok(event) => {
                self.metrics.watch_moved(kind, Instant::now());
                if matches!(event, Event::InitDone) {
                    self.unread.send_if_modified(|unread| unread.remove(kind));
                }
            }
            Err(error) => {
                self.metrics.watch_failed(kind);
                tracing::warn!(kind, error = chain(error), "watch failed; starting it again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    #[tokio::test]
    async fn it_is_complete_once_every_kind_has_been_read() {
        let readiness = Readiness::default();
        for kind in KINDS {
            assert!(!readiness.is_complete());
            readiness.observe::<Node>(kind, &Ok(Event::Init));
            readiness.observe::<Node>(kind, &Ok(Event::InitDone));
            readiness.read(kind).await;
        }
        assert!(readiness.is_complete());
    }
}
