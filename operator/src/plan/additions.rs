//! Adds members to a document, and changes nothing else of it.
//!
//! This is all that discovery may do while the spec is rejected. What the document has stays, in its order: the preferred
//! address of a member, its state, and the members that are gone.

use std::net::{IpAddr, SocketAddr};

use trivet_crds::pool::PoolMemberState;
use trivet_crds::wire::{self, Document, MAX_ADDRESSES, MAX_MEMBERS, is_reachable};

use super::endpoints::{self, is_named_by_address};
use super::members::Member;

/// A document with what was added to it.
#[derive(Clone, Debug)]
pub struct Additions {
    /// The document. Its revision and its hash are still those from before.
    pub document: Document,
    /// The names of the members that are new or have new addresses, one for each time.
    pub grown: Vec<String>,
    /// What the bounds of a document leave no room for, one sentence each.
    pub left_out: Vec<String>,
}

/// Adds to `document` those of the `found` members that it does not have, and to a member that it has those of its found
/// addresses that it does not have. A disabled member is not added.
pub fn additions(document: &Document, found: &[Member]) -> Additions {
    let mut additions = Additions {
        document: document.clone(),
        grown: Vec::new(),
        left_out: Vec::new(),
    };
    // What is added for one may be what another is known by.
    while additions.grow(found) {}
    additions
}

impl Additions {
    /// Adds what it can, and tells of the rest. Whether anything was added.
    fn grow(&mut self, found: &[Member]) -> bool {
        self.left_out.clear();
        let before = self.grown.len();
        for member in found {
            self.add(member);
        }
        self.grown.len() > before
    }

    fn add(&mut self, member: &Member) {
        let state = match member.state {
            PoolMemberState::Active => wire::MemberState::Active,
            PoolMemberState::Draining => wire::MemberState::Draining,
            PoolMemberState::Disabled => return,
        };
        let new = self.new_addresses(member);
        if new.is_empty() || self.is_disabled(member) {
            return;
        }
        if let Some(known) = self.known(member) {
            self.extend(&known, new);
        } else if !self.has_namesake_or_address(member) {
            self.push(member, new, state);
        }
    }

    /// The addresses of `member` that a document may have, and that are no other member's, not disabled, and no listener of
    /// the proxies.
    fn new_addresses(&self, member: &Member) -> Vec<IpAddr> {
        let Document {
            members,
            disabled_members,
            listeners,
            ..
        } = &self.document;
        let mut new: Vec<IpAddr> = Vec::new();
        for socket in member.sockets() {
            let is_taken = members.iter().any(|old| has(old, socket))
                || disabled_members.iter().any(|old| old.sockets.contains(&socket));
            let is_listener = listeners
                .iter()
                .any(|listener| listener.port == socket.port() && listener.addresses.contains(&socket.ip()));
            // Marks that were edited by hand may name what makes a document that proxies refuse.
            let is_allowed = is_reachable(socket.ip()) && socket.port() > 0;
            if is_allowed && !(is_taken || is_listener || new.contains(&socket.ip())) {
                new.push(socket.ip());
            }
        }
        new
    }

    fn is_disabled(&self, member: &Member) -> bool {
        let mut disabled = self.document.disabled_members.iter();
        disabled.any(|old| old.name == member.name || old.name == member.node_name)
    }

    /// The name under which the document has the apiserver of `member`: its own, else that of the member on its node.
    fn known(&self, member: &Member) -> Option<String> {
        let members = &self.document.members;
        let at_port = || members.iter().filter(|old| old.port == member.port);
        let by_name = at_port().find(|old| old.name == member.name);
        let known = by_name.or_else(|| at_port().find(|old| is_on_its_node(old, member)));
        known.map(|old| old.name.clone())
    }

    /// Whether another member has its name, or one of its addresses: an apiserver is one member.
    fn has_namesake_or_address(&self, member: &Member) -> bool {
        let mut members = self.document.members.iter();
        members.any(|old| old.name == member.name || member.is_same_server(old))
    }

    fn extend(&mut self, name: &str, mut new: Vec<IpAddr>) {
        let mut members = self.document.members.iter_mut();
        let Some(old) = members.find(|old| old.name == *name) else {
            return;
        };
        let surplus = new.split_off(MAX_ADDRESSES.saturating_sub(old.addresses.len()).min(new.len()));
        if !new.is_empty() {
            old.addresses.extend(new);
            self.grown.push(name.to_owned());
        }
        self.leave_out(name, &surplus);
    }

    fn push(&mut self, member: &Member, mut new: Vec<IpAddr>, state: wire::MemberState) {
        if self.document.members.len() >= MAX_MEMBERS {
            self.left_out.push(format!(
                "{} is not added, because a pool has at most {MAX_MEMBERS} members",
                member.name
            ));
            return;
        }
        let surplus = new.split_off(MAX_ADDRESSES.min(new.len()));
        self.document.members.push(wire::Member {
            name: member.name.clone(),
            addresses: new,
            port: member.port,
            state,
            zone: member.zone.clone(),
            node_name: member.node_name.clone(),
        });
        self.grown.push(member.name.clone());
        self.leave_out(&member.name, &surplus);
    }

    fn leave_out(&mut self, name: &str, surplus: &[IpAddr]) {
        for ip in surplus {
            self.left_out.push(format!(
                "{ip} of {name} is not added, because a member has at most {MAX_ADDRESSES} addresses"
            ));
        }
    }
}

fn has(old: &wire::Member, socket: SocketAddr) -> bool {
    old.sockets().any(|other| other == socket)
}

/// Whether both are the apiserver of one node. A node may have several endpoints, so those that are named by their address
/// are compared by their names alone.
fn is_on_its_node(old: &wire::Member, member: &Member) -> bool {
    let is_endpoint = member
        .addresses
        .iter()
        .any(|ip| member.name == endpoints::name(*ip));
    !member.node_name.is_empty()
        && old.node_name == member.node_name
        && !is_endpoint
        && !is_named_by_address(old)
}

#[cfg(test)]
mod tests;
