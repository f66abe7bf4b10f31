//! The connection guard: counts a connection, or a dial, for its upstream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{CloseSignal, Inner, Upstreams};
use crate::{
    balance::{Decision, Event, PathId, PathKey},
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
        self.guard(&mut inner, id)
    }

    /// Counts a connection that another process of this node has opened. A path that this process does not know was removed
    /// from the pool: it drains. `drains_within` is the time left to the connections of a member that drains.
    pub fn adopt_connection(
        self: &Arc<Self>,
        path: &PathKey,
        drains_within: Option<Duration>,
    ) -> Option<ConnectionGuard> {
        let proven = self.proven.borrow().contains(path);
        let (id, decisions) = self.lock().balance.adopt(path, proven, Instant::now());
        for decision in decisions {
            self.carry_out(decision, "");
        }
        let mut inner = self.lock();
        let guard = self.guard(&mut inner, id)?;
        let is_moving = inner.balance.is_moving(id);
        drop(inner);
        if is_moving {
            // The move may be over by now, because it found no connections.
            self.carry_out(Decision::Move(id), "");
        }
        self.go_on_draining(id, drains_within);
        Some(guard)
    }

    fn guard(self: &Arc<Self>, inner: &mut Inner, id: PathId) -> Option<ConnectionGuard> {
        let serial = inner.serial;
        let live = inner.live.get_mut(&id)?;
        let close_signal = Arc::new(CloseSignal::default());
        live.close_signals.insert(serial, Arc::clone(&close_signal));
        let series = Arc::clone(&live.series);
        series.connections.inc();
        inner.serial = serial.wrapping_add(1);
        // The balancer makes no decision for this event.
        inner.balance.observe(Event::Opened(id), Instant::now());
        Some(ConnectionGuard {
            upstreams: Arc::clone(self),
            id,
            serial,
            series,
            close_signal,
        })
    }

    /// Asks up to so many established connections to be handed over, the oldest of each path first. Returns how many are
    /// asked.
    pub fn ask_to_hand_over(&self, most: usize) -> usize {
        let inner = self.lock();
        let close_signals = inner.connections(None).flat_map(BTreeMap::values);
        let asked = close_signals.filter(|close_signal| close_signal.ask_to_hand_over());
        asked.take(most).count()
    }

    fn release(self: &Arc<Self>, id: PathId, serial: u64) {
        if let Some(live) = self.lock().live.get_mut(&id) {
            live.close_signals.remove(&serial);
            live.series.connections.dec();
        }
        self.observe(Event::Closed(id), "");
    }
}
