//! Metrics of clients' connections, over all members.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Durations, Metrics, ReasonLabel, durations};
use crate::ending::Ending;

#[derive(Clone, Debug)]
pub(super) struct ClientMetrics {
    open: Gauge,
    limit: Gauge,
    ended: Family<ReasonLabel, Counter>,
    given: Counter,
    taken: Counter,
    accept_failures: Counter,
    hedges_refused: Counter,
    failover: Durations,
    bytes_sent: Counter,
    bytes_received: Counter,
}

impl Default for ClientMetrics {
    fn default() -> Self {
        Self {
            open: Gauge::default(),
            limit: Gauge::default(),
            ended: Family::default(),
            given: Counter::default(),
            taken: Counter::default(),
            accept_failures: Counter::default(),
            hedges_refused: Counter::default(),
            failover: Durations(Histogram::new(durations::FAILOVER)),
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
        }
    }
}

impl ClientMetrics {
    pub(super) fn register(&self, root: &mut Registry) {
        root.register(
            "client_connections",
            "Client connections that are open or being opened",
            self.open.clone(),
        );
        root.register(
            "client_connections_limit",
            "The most client connections at once: connection.maxConnections, or what the open files allow; 0 before the first document",
            self.limit.clone(),
        );
        root.register(
            "connections_ended",
            "Client connections that ended, by reason",
            self.ended.clone(),
        );
        root.register(
            "connections_given",
            "Client connections with which another proxy of this node went on",
            self.given.clone(),
        );
        root.register(
            "connections_taken",
            "Client connections that another proxy of this node had before",
            self.taken.clone(),
        );
        root.register(
            "failover_duration_seconds",
            "From the start of a silence to the cut of the connections",
            self.failover.0.clone(),
        );
        root.register(
            "hedges_refused",
            "Hedges that were due but exceeded the hedge budget",
            self.hedges_refused.clone(),
        );
        root.register(
            "accept_failures",
            "Pauses of the accept loop because no file descriptor was left",
            self.accept_failures.clone(),
        );
        root.register(
            "sent_bytes",
            "Bytes from clients to members, counted as they flow; a hedged first flight counts once",
            self.bytes_sent.clone(),
        );
        root.register(
            "received_bytes",
            "Bytes from members to clients, counted as they flow",
            self.bytes_received.clone(),
        );
    }
}

impl Metrics {
    /// A client was admitted.
    pub fn admitted(&self) {
        self.clients.open.inc();
    }

    /// At most so many clients are held at once.
    pub fn connection_limit(&self, limit: u32) {
        self.clients.limit.set(limit.into());
    }

    /// An admitted client's connection ended.
    pub fn left(&self) {
        self.clients.open.dec();
    }

    /// A client's connection ended for this reason.
    pub fn ended(&self, ending: Ending) {
        self.clients
            .ended
            .get_or_create(&ReasonLabel {
                reason: ending.as_str(),
            })
            .inc();
    }

    /// Another process goes on with a client's connection.
    pub fn connection_given(&self) {
        self.clients.given.inc();
    }

    /// This process goes on with a client's connection that another had before.
    pub fn connection_taken(&self) {
        self.clients.taken.inc();
    }

    /// Counts bytes to and from members, at each turn of a relay, because some connections live for weeks. A turn usually
    /// moves bytes in one direction only; the other direction then costs no atomic operation.
    pub fn relayed(&self, sent: u64, received: u64) {
        if sent > 0 {
            self.clients.bytes_sent.inc_by(sent);
        }
        if received > 0 {
            self.clients.bytes_received.inc_by(received);
        }
    }

    /// A hedge was due but the hedge budget was spent.
    pub fn hedge_refused(&self) {
        self.clients.hedges_refused.inc();
    }

    /// The connections of a silent upstream were cut, this long after the start of its silence.
    pub fn failed_over(&self, after: Duration) {
        self.clients.failover.observe(after);
    }

    /// The accept loop paused.
    pub fn accept_failed(&self) {
        self.clients.accept_failures.inc();
    }
}
