//! What the balancer is told.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    PathId, PathKey,
    disabled::Disabled,
    health::{Outcome, Policy},
    place::Distance,
};

/// A path of the document in force: one address of a member.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which.
    pub key: PathKey,
    /// Its place in the member's list of addresses: among paths that are equally well the first is used.
    pub preference: usize,
    /// Whether its member drains.
    pub draining: bool,
    /// Whether this node remembers a verified answer from it.
    pub proven: bool,
    /// How far its member is, as far as the pool's owner cares.
    pub distance: Distance,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new document is in force.
    Configured {
        /// All paths of its members, in order.
        targets: Vec<Target>,
        /// What it disables.
        disabled: Disabled,
        /// The thresholds of health.
        policy: Policy,
    },
    /// What is known beside the paths of the document in force.
    Remembered {
        /// The paths of earlier documents that are not in it.
        earlier: Vec<Target>,
        /// The further endpoints, none of which is an address of a known path.
        further: Vec<Target>,
    },
    /// Some time has gone by, in which nothing else need have happened.
    Elapsed,
    /// A probe of a path has ended.
    Probed {
        /// Which path.
        id: PathId,
        /// When the request was sent.
        asked: Instant,
        /// Whether the answer came with a certificate that the cluster's authorities signed and that is valid today.
        verified: bool,
        /// What it brought.
        outcome: Outcome,
    },
    /// A probe of it waits for its answer for longer than it should.
    ProbeOverdue(PathId),
    /// A probe could not be sent for a fault of this node.
    ProbeUnsent(PathId),
    /// A client's dial was refused.
    Refused(PathId),
    /// A client waits for this path longer than it should: to connect, or for its first byte.
    OpenOverdue(PathId),
    /// A client's connection has sent bytes and got none for longer than it should.
    ReplyOverdue(PathId),
    /// A client that had sent a request and waited for its reply got it at this time.
    Replied(PathId, Instant),
    /// The first byte came, so long after the client's first flight.
    Answered(PathId, Duration),
    /// A connection, or an attempt at one, counts for this path from now on.
    Opened(PathId),
    /// And from now on it does not.
    Closed(PathId),
}
