//! What the balancer is told.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{
    Identity, UpstreamId,
    health::{Outcome, Policy},
    place::Distance,
};

/// A member of the document in force.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which.
    pub identity: Identity,
    /// Whether it drains.
    pub draining: bool,
    /// Whether this node remembers a verified answer from it.
    pub proven: bool,
    /// How far it is, as far as the pool's owner cares.
    pub distance: Distance,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new document is in force: all its members, in order.
    Configured(Vec<Target>, Policy),
    /// The members of earlier documents that are not in the current one.
    Remembered(Vec<Target>),
    /// A question to an upstream found its end.
    Probed {
        /// Whom it was put to.
        id: UpstreamId,
        /// When.
        asked: Instant,
        /// By which address.
        via: Option<SocketAddr>,
        /// Whether the answer came with a certificate that the cluster's authorities signed and that is valid today.
        verified: bool,
        /// What it brought.
        outcome: Outcome,
    },
    /// A question to it waits for its answer for longer than it should.
    ProbeOverdue(UpstreamId),
    /// A client's dial was refused.
    Refused(UpstreamId),
    /// A client waits for this upstream longer than it should: to connect, or for its first byte.
    OpenOverdue(UpstreamId),
    /// A client's connection has sent bytes and got none for longer than it should.
    ReplyOverdue(UpstreamId),
    /// The first byte came, so long after the client's first flight.
    Answered(UpstreamId, Duration),
    /// A connection, or an attempt at one, counts for this upstream from now on.
    Opened(UpstreamId),
    /// And from now on it does not.
    Closed(UpstreamId),
}
