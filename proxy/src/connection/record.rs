//! The record of one connection, over all processes that have it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;

use super::transfer::{Given, Passport, Progress};
use crate::{
    balance::PathKey,
    ending::Ending,
    metrics::{Metrics, members::Series},
    open::Opened,
    relay::{PairState, Summary},
    upstream::ConnectionGuard,
};

/// The record of one connection. Its drop counts the connection and writes one line to the log, also when the task is
/// aborted.
#[derive(Debug)]
pub struct Record {
    client: SocketAddr,
    listener: SocketAddr,
    started: Instant,
    upstream: Option<GivenTo>,
    summary: Summary,
    was_offered: bool,
    is_taken: bool,
    metrics: Arc<Metrics>,
}

/// The upstream that a client was given to, and how.
#[derive(Debug)]
struct GivenTo {
    series: Arc<Series>,
    address: SocketAddr,
    first_byte: Option<Duration>,
    hedged: bool,
}

impl Record {
    /// A client was accepted on this listener.
    pub fn new(client: SocketAddr, listener: SocketAddr, metrics: Arc<Metrics>) -> Self {
        Self::since(client, listener, Instant::now(), metrics)
    }

    /// Another process has accepted it, so long ago.
    pub fn resumed(passport: &Passport, metrics: Arc<Metrics>) -> Self {
        let Passport {
            client,
            listener,
            age,
            ..
        } = passport;
        metrics.connection_taken();
        debug!(
            %client,
            %listener,
            milliseconds = age.as_millis(),
            "going on with a connection of another proxy of this node"
        );
        // Since the machine has started, at least.
        let started = Instant::now().checked_sub(*age).unwrap_or_else(Instant::now);
        Self::since(*client, *listener, started, metrics)
    }

    fn since(client: SocketAddr, listener: SocketAddr, started: Instant, metrics: Arc<Metrics>) -> Self {
        metrics.admitted();
        let summary = Summary {
            ending: Ending::Aborted,
            sent: 0,
            received: 0,
        };
        Self {
            client,
            listener,
            started,
            upstream: None,
            summary,
            was_offered: false,
            is_taken: false,
            metrics,
        }
    }

    pub(super) fn opened(&mut self, opened: &Opened) {
        let series = Arc::clone(opened.upstream.guard.series());
        series.opened.inc();
        // The bytes that the relay moves are counted there.
        self.metrics.relayed(opened.sent, 0);
        self.summary.sent = opened.sent;
        self.upstream = Some(GivenTo {
            series,
            address: opened.upstream.address,
            first_byte: opened.answered.then(|| self.started.elapsed()),
            hedged: opened.hedged,
        });
    }

    /// It was opened by another process.
    pub(super) fn given_before(&mut self, given: &Given, guard: &ConnectionGuard) {
        self.upstream = Some(GivenTo {
            series: Arc::clone(guard.series()),
            address: given.path.address,
            first_byte: given.first_byte,
            hedged: given.hedged,
        });
    }

    pub(super) fn relayed(&mut self, summary: Summary) {
        let sent = self.summary.sent + summary.sent;
        self.summary = Summary { sent, ..summary };
    }

    pub(super) fn refused(&mut self, ending: Ending) {
        self.summary.ending = ending;
    }

    /// Another process was offered the connection, and has not taken it.
    pub(super) fn offered(&mut self) {
        self.was_offered = true;
    }

    /// Whether another process may have duplicates of its sockets.
    pub(super) fn was_offered(&self) -> bool {
        self.was_offered
    }

    /// Another process goes on with the connection, and with its record.
    pub(super) fn taken(mut self) {
        self.is_taken = true;
    }

    /// What the next process needs to know.
    pub(super) fn passport(&self, progress: Progress) -> Passport {
        Passport {
            client: self.client,
            listener: self.listener,
            extra_listener: self.metrics.listener_name().map(str::to_owned),
            age: self.started.elapsed(),
            progress,
        }
    }

    /// The same of one that is relayed, and that has come this far.
    pub(super) fn passport_of_pair(
        &self,
        mut pair: PairState,
        drains_within: Option<Duration>,
    ) -> Option<Passport> {
        let GivenTo {
            series,
            address,
            first_byte,
            hedged,
        } = self.upstream.as_ref()?;
        // What was sent before the relay began belongs to it too.
        pair.sent.moved += self.summary.sent;
        let upstream = Given {
            path: PathKey {
                member: series.member.clone(),
                address: *address,
            },
            first_byte: *first_byte,
            hedged: *hedged,
            drains_within,
        };
        Some(self.passport(Progress::Established { upstream, pair }))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.left();
        if self.is_taken {
            return self.metrics.connection_given();
        }
        let Summary {
            ending,
            sent,
            received,
        } = self.summary;
        self.metrics.ended(ending);
        let upstream = self.upstream.as_ref();
        // Fields without a value are left out of the line.
        debug!(
            client = %self.client,
            listener = %self.listener,
            // Left out for clients of the apiservers.
            listener_name = self.metrics.listener_name(),
            member = upstream.map(|given| given.series.member.as_str()),
            upstream = upstream.map(|given| tracing::field::display(given.address)),
            reason = ending.as_str(),
            sent,
            received,
            milliseconds = self.started.elapsed().as_millis(),
            first_byte_milliseconds = upstream.and_then(|given| Some(given.first_byte?.as_millis())),
            hedged = upstream.map(|given| given.hedged),
            "connection ended"
        );
    }
}
