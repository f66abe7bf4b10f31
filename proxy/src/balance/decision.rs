//! What the balancer wants done.

use super::{
    PathId, PathKey,
    health::{Reason, State},
};

/// A change of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: (State, Reason),
    /// What it is.
    pub to: (State, Reason),
}

impl Change {
    /// Whether the state changed, not only its reason.
    pub fn is_of_state(self) -> bool {
        self.from.0 != self.to.0
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start to probe this path.
    Watch(PathId, PathKey),
    /// Probe it now.
    Probe(PathId),
    /// Say that its health changed, and that of its member with it, if that did.
    Tell {
        /// Whose.
        id: PathId,
        /// The path's health.
        path: Change,
        /// The member's health.
        member: Change,
    },
    /// Remember on disk that it is proven.
    Remember(PathId, PathKey),
    /// Reset all its connections.
    Cut(PathId),
    /// Close its connections gradually.
    Drain(PathId),
    /// Close its connections gradually, so that their clients find an upstream that has its etcd.
    Move(PathId),
    /// Close no more of its connections.
    Restore(PathId),
    /// Stop probing it; nothing is left of it.
    Forget(PathId, PathKey),
}
