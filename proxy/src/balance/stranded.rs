//! Stranded upstreams: alive, but cut off from their etcd. Their connections move to others.

use std::time::Duration;

/// How long an upstream may be cut off from its etcd before its connections are moved: a change of etcd's leader or a
/// short loss of its network passes by itself, and moving costs every client its watches.
pub const MOVE_AFTER: Duration = Duration::from_secs(30);

/// The time over which they are moved, so that the last has moved within 45 s whatever the pace of the probes adds.
pub const MOVE_WITHIN: Duration = Duration::from_secs(10);

/// The least time between the moves of two upstreams: if several are cut off one after the other, their clients must not
/// be chased from one to the next.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(30);
