//! What the pool's owner has disabled: it gets no connection, not even as the last resort.

use std::{collections::BTreeSet, net::SocketAddr};

use trivet_crds::wire::DisabledMember;

use super::PathKey;

/// The disabled members of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    names: BTreeSet<String>,
    sockets: BTreeSet<SocketAddr>,
}

impl Disabled {
    /// Those that a document lists.
    pub fn of(members: &[DisabledMember]) -> Self {
        Self {
            names: members.iter().map(|member| member.name.clone()).collect(),
            sockets: members
                .iter()
                .flat_map(|member| &member.sockets)
                .copied()
                .collect(),
        }
    }

    /// The same by other servers of these members, which listen on this port.
    #[must_use]
    pub fn at_port(self, port: u16) -> Self {
        let sockets = self.sockets.into_iter();
        Self {
            sockets: sockets.map(|socket| SocketAddr::new(socket.ip(), port)).collect(),
            ..self
        }
    }

    /// Whether a path that the document in force does not have leads to a disabled member. Its name is enough, because
    /// an earlier document may have another address of it; so is its address, because it may have had another name.
    pub(super) fn has(&self, path: &PathKey) -> bool {
        self.names.contains(&path.member) || self.sockets.contains(&path.address)
    }
}
