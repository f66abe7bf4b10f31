//! Further endpoints: those of `default/kubernetes` that are no member's. The document has them, so that a node on which no
//! member answers any more may find an apiserver.
//!
//! They come and go whenever an apiserver starts or ends, and proxies need them only when all else is lost. So each new
//! document has those that are listed at that moment, and they alone make a new one only for an endpoint that stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPoolSpec, PoolMemberState};
use trivet_crds::wire::MAX_FURTHER_ENDPOINTS;

use super::{Endpoint, name};
use crate::plan::facts::{Discovered, Facts, Memory};
use crate::plan::members::{Member, state_of, unlocated};

/// How long an endpoint must have been listed to be worth a document of its own. A master that joins is an endpoint for some
/// seconds before its node makes it a member, and proxies keep only a few documents.
const LASTING: Duration = Duration::from_secs(300);

/// The further endpoints of the next document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Further {
    /// In the order of their addresses, at most [`MAX_FURTHER_ENDPOINTS`].
    pub sockets: Vec<SocketAddr>,
    /// Whether the document in force lacks one of them that lasts.
    pub is_due: bool,
}

/// The further endpoints beside these members, of which none is an address of a member, nor may lead to a disabled one.
pub fn further(spec: &ApiserverPoolSpec, members: &[Member], facts: &Facts, memory: &Memory) -> Further {
    let in_force: Vec<_> = facts
        .current
        .document
        .iter()
        .flat_map(|document| document.further_endpoints.iter().copied())
        .collect();
    let Some(endpoints) = &facts.endpoints else {
        let is_known = facts.discovered != Discovered::Off && unlocated(spec, facts, members, &[]).is_empty();
        let kept = in_force
            .into_iter()
            .filter(|socket| is_known && is_free(*socket, members));
        return Further {
            sockets: kept.collect(),
            is_due: false,
        };
    };
    let has_doubt = !unlocated(spec, facts, members, endpoints).is_empty();
    let is_wanted = |endpoint: &&Endpoint| {
        let is_doubtful = has_doubt && endpoint.node_name.is_empty();
        is_free(endpoint.socket, members) && !is_disabled(endpoint, spec, members) && !is_doubtful
    };
    let wanted = endpoints.iter().filter(is_wanted).map(|endpoint| endpoint.socket);
    let sockets: Vec<_> = wanted.take(MAX_FURTHER_ENDPOINTS).collect();
    let lasts = |socket: &SocketAddr| {
        let since = memory.listed.get(socket);
        since.is_some_and(|since| facts.now.saturating_duration_since(*since) >= LASTING)
    };
    let mut new = sockets.iter().filter(|socket| !in_force.contains(socket));
    Further {
        is_due: new.any(lasts),
        sockets,
    }
}

/// Since when each endpoint is listed, this pass included.
pub fn listed(facts: &Facts) -> BTreeMap<SocketAddr, Instant> {
    let before = &facts.memory.listed;
    let Some(endpoints) = &facts.endpoints else {
        return before.clone();
    };
    let since = |endpoint: &Endpoint| before.get(&endpoint.socket).copied().unwrap_or(facts.now);
    endpoints
        .iter()
        .map(|endpoint| (endpoint.socket, since(endpoint)))
        .collect()
}

fn is_free(socket: SocketAddr, members: &[Member]) -> bool {
    !members
        .iter()
        .any(|member| member.sockets().any(|of_member| of_member == socket))
}

fn is_disabled(endpoint: &Endpoint, spec: &ApiserverPoolSpec, members: &[Member]) -> bool {
    let name = name(endpoint.socket.ip());
    state_of(&name, &endpoint.node_name, spec, members) == PoolMemberState::Disabled
}
