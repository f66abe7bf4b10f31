//! What the pool's owner has disabled: it gets no connection, not even as the last resort.

use std::{collections::BTreeSet, net::SocketAddr};

use super::PathKey;

/// Where disabled members listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    sockets: BTreeSet<SocketAddr>,
}

impl Disabled {
    /// Those that a document lists.
    pub fn of(sockets: &[SocketAddr]) -> Self {
        Self {
            sockets: sockets.iter().copied().collect(),
        }
    }

    /// Whether a path that the document in force does not have leads to a disabled member.
    pub(super) fn has(&self, path: &PathKey) -> bool {
        self.sockets.contains(&path.address)
    }
}
