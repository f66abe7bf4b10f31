//! Further endpoints: those of `default/kubernetes` that are no member's. The document has them, so that a node on which no
//! member answers any more may find an apiserver.
//!
//! They come and go whenever an apiserver starts or ends, and proxies need them only when all else is lost. So each new
//! document has those that are listed at that moment, and they alone make a new one only for an endpoint that stays, and to
//! take back one that may be a disabled apiserver: proxies recognise that by the addresses of its member only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPoolSpec, PoolMember, PoolMemberState};
use trivet_crds::wire::MAX_FURTHER_ENDPOINTS;

use super::{Endpoint, name};
use crate::plan::facts::{Discovered, Facts, Memory};
use crate::plan::members::{Member, state_of};

/// How long an endpoint must have been a further one to be worth a document of its own. A master that joins is an endpoint
/// for some seconds before its node makes it a member, and proxies keep only a few documents.
const LASTING: Duration = Duration::from_secs(300);

/// The further endpoints of the next document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Further {
    /// In the order of their addresses, at most [`MAX_FURTHER_ENDPOINTS`].
    pub sockets: Vec<SocketAddr>,
    /// Whether the document in force lacks one of them that lasts, or has one that no proxy may use.
    pub is_due: bool,
    /// Since when each endpoint is a further one, this pass included.
    pub since: BTreeMap<SocketAddr, Instant>,
}

/// The further endpoints beside these members, of which none is an address of a member, nor may lead to a disabled one.
pub fn further(spec: &ApiserverPoolSpec, members: &[Member], facts: &Facts, memory: &Memory) -> Further {
    let document = facts.current.document.as_ref();
    let in_force = document.map_or_else(Vec::new, |document| document.further_endpoints.clone());
    if facts.discovered == Discovered::Off {
        return Further {
            is_due: !in_force.is_empty(),
            ..Further::default()
        };
    }
    let Some(endpoints) = &facts.endpoints else {
        return unread(spec, members, in_force, memory);
    };
    let doubt = Doubt::of(spec, members, endpoints);
    let is_barred = |endpoint: &Endpoint| is_disabled(endpoint, spec, members) || doubt.is_about(endpoint);
    let is_wanted = |endpoint: &&Endpoint| is_free(endpoint.socket, members) && !is_barred(endpoint);
    let wanted = endpoints.iter().filter(is_wanted).map(|endpoint| endpoint.socket);
    let since: BTreeMap<_, _> = wanted
        .map(|socket| (socket, memory.further.get(&socket).copied().unwrap_or(facts.now)))
        .collect();
    let sockets: Vec<_> = since.keys().copied().take(MAX_FURTHER_ENDPOINTS).collect();
    let lasts = |socket: &&SocketAddr| {
        let since = since.get(*socket);
        since.is_some_and(|since| facts.now.saturating_duration_since(*since) >= LASTING)
    };
    let lacks = sockets
        .iter()
        .filter(lasts)
        .any(|socket| !in_force.contains(socket));
    let must_go = |socket: &SocketAddr| is_barred(&as_listed(*socket, endpoints));
    Further {
        is_due: lacks || in_force.iter().any(must_go),
        sockets,
        since,
    }
}

/// Without the endpoints nobody knows which of those in force are gone, nor on which nodes they are. So they stay, but no new
/// document tells them again where one may be a disabled apiserver.
fn unread(
    spec: &ApiserverPoolSpec,
    members: &[Member],
    mut in_force: Vec<SocketAddr>,
    memory: &Memory,
) -> Further {
    let is_any_disabled = disabled(spec).next().is_some();
    in_force.retain(|socket| !is_any_disabled && is_free(*socket, members));
    Further {
        sockets: in_force,
        is_due: false,
        since: memory.further.clone(),
    }
}

/// The disabled apiservers that none of the endpoints is known to be: any other endpoint may be one of them. That one answers
/// where its member is says nothing, because an apiserver may tell another of its addresses.
struct Doubt {
    exists: bool,
    /// Whether one is known by another name than its node's, so that the node of an endpoint says nothing about it.
    is_of_any_node: bool,
}

impl Doubt {
    fn of(spec: &ApiserverPoolSpec, members: &[Member], endpoints: &[Endpoint]) -> Self {
        let is_found = |entry: &PoolMember| endpoints.iter().any(|endpoint| is_of(endpoint, entry, members));
        let unfound: Vec<_> = disabled(spec).filter(|entry| !is_found(entry)).collect();
        Self {
            exists: !unfound.is_empty(),
            is_of_any_node: unfound.iter().any(|entry| !entry.addresses.is_empty()),
        }
    }

    fn is_about(&self, endpoint: &Endpoint) -> bool {
        self.exists && (self.is_of_any_node || endpoint.node_name.is_empty())
    }
}

/// Whether an endpoint is known to be the apiserver of an entry. The name of an entry with addresses may be that of another
/// apiserver's node.
fn is_of(endpoint: &Endpoint, entry: &PoolMember, members: &[Member]) -> bool {
    let ip = endpoint.socket.ip();
    let is_named = entry.name == endpoint.node_name || entry.name == name(ip);
    let mut own = members.iter().filter(|member| member.name == entry.name);
    entry.addresses.is_empty() && is_named
        || own.any(|member| {
            let is_same_node = !member.node_name.is_empty() && member.node_name == endpoint.node_name;
            is_same_node || member.addresses.contains(&ip)
        })
}

fn disabled(spec: &ApiserverPoolSpec) -> impl Iterator<Item = &PoolMember> {
    let entries = spec.members.iter();
    entries.filter(|entry| entry.state == PoolMemberState::Disabled)
}

/// The endpoint at this address; one that is gone is of no known node.
fn as_listed(socket: SocketAddr, endpoints: &[Endpoint]) -> Endpoint {
    let listed = endpoints.iter().find(|endpoint| endpoint.socket == socket);
    listed.cloned().unwrap_or_else(|| Endpoint {
        socket,
        node_name: String::new(),
    })
}

fn is_free(socket: SocketAddr, members: &[Member]) -> bool {
    !members
        .iter()
        .any(|member| member.sockets().any(|of_member| of_member == socket))
}

/// Whether it is disabled by its own name, by that of its node, or by its IP address: the port of the entry may be wrong.
fn is_disabled(endpoint: &Endpoint, spec: &ApiserverPoolSpec, members: &[Member]) -> bool {
    let ip = endpoint.socket.ip();
    let mut disabled = members
        .iter()
        .filter(|member| member.state == PoolMemberState::Disabled);
    state_of(&name(ip), &endpoint.node_name, spec, members) == PoolMemberState::Disabled
        || disabled.any(|member| member.addresses.contains(&ip))
}
