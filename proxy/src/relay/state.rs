//! The state of a pair at a poll boundary: all that another relay needs besides its sockets.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The state of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairState {
    /// From the client to the upstream.
    pub sent: DirectionState,
    /// From the upstream to the client.
    pub received: DirectionState,
    /// How many bytes the client has sent since the upstream last sent something.
    pub unanswered: u64,
}

/// The state of one direction of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectionState {
    /// Bytes that the sink took.
    pub moved: u64,
    /// Bytes that were read from the source and not yet taken by the sink.
    pub tail: Bytes,
    /// How far it is.
    pub phase: Phase,
}

/// The phase of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The source may send more.
    #[default]
    Open,
    /// The source has ended; the sink is shut down once it has the tail.
    Ended,
    /// The sink is shut down.
    Done,
}
