//! The state of a listener address: bound or not, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::net::port_holders::Holder;

/// The state of a listener address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is not bound yet.
    Pending,
    /// The proxy accepts on it, alone or beside its own predecessor or successor.
    Held,
    /// The proxy holds its socket, and another process of this node accepts on it.
    Lent,
    /// The node does not have the address, for example because IPv6 is off: no client can connect to it.
    Lacking,
    /// Another process listens there, and the proxy does not.
    Taken(Vec<Holder>),
    /// The proxy accepts on it, and so does another program, to which the kernel gives a part of the clients.
    Contested(Vec<Holder>),
    /// Not bound, because a member of the document listens on this port of this node and needs it when it restarts.
    MembersPort,
    /// It cannot be bound, for this reason.
    Failed(String),
}

impl Holding {
    /// Whether the proxy accepts there.
    pub fn is_bound(&self) -> bool {
        match self {
            Self::Held | Self::Contested(_) => true,
            Self::Pending
            | Self::Lent
            | Self::Lacking
            | Self::Taken(_)
            | Self::MembersPort
            | Self::Failed(_) => false,
        }
    }

    /// What is wrong; none if the proxy alone holds the address, or if the node lacks it.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Held | Self::Lent | Self::Lacking => None,
            Self::Pending => Some("not bound yet".to_owned()),
            Self::Taken(holders) if holders.is_empty() => Some("taken by another process".to_owned()),
            Self::Taken(holders) => Some(format!("taken by {}", names(holders))),
            Self::Contested(holders) => Some(format!("shared with {}", names(holders))),
            Self::MembersPort => Some("not bound: a member listens on this port of this node".to_owned()),
            Self::Failed(reason) => Some(reason.clone()),
        }
    }

    /// The other programs that listen on the address.
    pub fn strangers(&self) -> &[Holder] {
        match self {
            Self::Taken(holders) | Self::Contested(holders) => holders,
            Self::Pending | Self::Held | Self::Lent | Self::Lacking | Self::MembersPort | Self::Failed(_) => {
                &[]
            }
        }
    }
}

fn names(holders: &[Holder]) -> String {
    let names = holders.iter().map(ToString::to_string);
    names.collect::<Vec<_>>().join(" and ")
}

/// The addresses of all listeners, and the state of each.
#[derive(Debug, Default)]
pub struct Holdings {
    attended: BTreeMap<SocketAddr, Holding>,
    members_ports: BTreeSet<SocketAddr>,
}

impl Holdings {
    /// The listeners that are not bound because a member needs their port.
    pub(super) fn set_members_ports(&mut self, addresses: BTreeSet<SocketAddr>) {
        self.members_ports = addresses;
    }

    /// Whether a member needs the port of this listener.
    pub(super) fn is_members_port(&self, address: SocketAddr) -> bool {
        self.members_ports.contains(&address)
    }

    /// Sets the state of an address. Returns the previous state if it differs.
    pub(super) fn set(&mut self, address: SocketAddr, holding: Holding) -> Option<Holding> {
        let before = self.attended.insert(address, holding.clone());
        let before = before.unwrap_or(Holding::Pending);
        (before != holding).then_some(before)
    }

    /// Removes an address that is no longer a listener. Returns its last state.
    pub(super) fn remove(&mut self, address: SocketAddr) -> Option<Holding> {
        self.attended.remove(&address)
    }

    /// The state of each address.
    pub fn all(&self) -> BTreeMap<SocketAddr, Holding> {
        let members_ports = self.members_ports.iter();
        let mut all = self.attended.clone();
        all.extend(members_ports.map(|address| (*address, Holding::MembersPort)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_well_where_it_is_held_or_the_node_lacks_its_address() {
        for well in [Holding::Held, Holding::Lacking] {
            assert_eq!(well.fault(), None);
        }
        for ill in [
            Holding::Pending,
            Holding::Taken(Vec::new()),
            Holding::Contested(Vec::new()),
            Holding::MembersPort,
            Holding::Failed("no".to_owned()),
        ] {
            assert!(ill.fault().is_some(), "{ill:?}");
        }
    }

    #[test]
    fn a_members_port_outweighs_what_the_task_says() {
        let address = SocketAddr::from(([127, 0, 0, 1], 6443));
        let mut holdings = Holdings::default();
        assert_eq!(holdings.set(address, Holding::Held), Some(Holding::Pending));
        assert_eq!(holdings.set(address, Holding::Held), None);
        holdings.set_members_ports([address].into());
        assert_eq!(holdings.all(), [(address, Holding::MembersPort)].into());
    }
}
