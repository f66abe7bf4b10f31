//! What counts a connection, or an attempt at one, for its upstream.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CloseSignal, Upstreams};
use crate::{
    balance::{Event, PathId},
    metrics::members::Series,
};

/// A connection, or an attempt at one, that counts for a path until this is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    upstreams: Arc<Upstreams>,
    id: PathId,
    serial: u64,
    series: Arc<Series>,
    /// By which the connection is ended from outside.
    pub close_signal: Arc<CloseSignal>,
}

impl ConnectionGuard {
    /// Whose connection it is.
    pub fn id(&self) -> PathId {
        self.id
    }

    /// What is counted of its member.
    pub fn series(&self) -> &Arc<Series> {
        &self.series
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.upstreams.release(self.id, self.serial);
    }
}

impl Upstreams {
    /// Counts a connection, or an attempt at one, for a path; none if it may not be dialled any more: it was chosen a while
    /// ago.
    pub fn guard_connection(self: &Arc<Self>, id: PathId) -> Option<ConnectionGuard> {
        let mut inner = self.lock();
        if !inner.balance.is_usable(id) {
            return None;
        }
        let serial = inner.serial;
        let live = inner.live.get_mut(&id)?;
        let close_signal = Arc::new(CloseSignal::default());
        live.close_signals.insert(serial, Arc::clone(&close_signal));
        let series = Arc::clone(&live.series);
        series.connections.inc();
        inner.serial = serial.wrapping_add(1);
        // Counting never asks for anything to be done.
        inner.balance.observe(Event::Opened(id), Instant::now());
        drop(inner);
        Some(ConnectionGuard {
            upstreams: Arc::clone(self),
            id,
            serial,
            series,
            close_signal,
        })
    }

    fn release(self: &Arc<Self>, id: PathId, serial: u64) {
        if let Some(live) = self.lock().live.get_mut(&id) {
            live.close_signals.remove(&serial);
            live.series.connections.dec();
        }
        self.observe(Event::Closed(id), "");
    }
}
