//! What the balancer wants done.

use super::{
    Identity, UpstreamId,
    health::{Reason, State},
};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start to probe this upstream.
    Watch(UpstreamId, Identity),
    /// Probe it now.
    Probe(UpstreamId),
    /// Say that its health changed.
    Tell {
        /// Whose.
        id: UpstreamId,
        /// From what.
        from: (State, Reason),
        /// To what.
        to: (State, Reason),
    },
    /// Remember on disk that it is proven.
    Remember(UpstreamId, Identity),
    /// Reset all its connections.
    Cut(UpstreamId),
    /// Close its connections gradually.
    Drain(UpstreamId),
    /// Close its connections gradually, so that their clients find an upstream that has its etcd.
    Move(UpstreamId),
    /// Close no more of its connections.
    Restore(UpstreamId),
    /// Stop probing it; nothing is left of it.
    Forget(UpstreamId, Identity),
}
