//! The connection guard: counts a connection, or a dial, for its upstream.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CloseSignal, Upstreams};
use crate::{
    balance::{Event, PathId},
    metrics::members::Series,
};

/// Counts a connection, or a dial, for a path until it is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    upstreams: Arc<Upstreams>,
    id: PathId,
    serial: u64,
    series: Arc<Series>,
    /// Ends the connection from outside.
    pub close_signal: Arc<CloseSignal>,
}

impl ConnectionGuard {
    /// The path of the connection.
    pub fn id(&self) -> PathId {
        self.id
    }

    /// The metrics of its member.
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
    /// Counts a connection, or a dial, for a path; none if the path may no longer be dialled, because it was chosen some time
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
        // The balancer makes no decision for this event.
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
