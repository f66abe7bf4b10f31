//! Members that only the EndpointSlices of `default/kubernetes` know: apiservers that do not listen at their node's
//! InternalIP.

use trivet_crds::pool::{ApiserverPoolSpec, DiscoveryPolicy, MemberSource, PoolMemberState};
use trivet_crds::wire;

use super::{Member, have};
use crate::plan::endpoints::{Endpoint, is_named_by_address, name};
use crate::plan::facts::{Discovered, Facts};

/// The endpoints that become members beside the discovered nodes. One source's word is not enough: an endpoint has to
/// answer as an apiserver of the cluster, and a node's own address must never have done so.
pub(super) fn members(spec: &ApiserverPoolSpec, facts: &Facts, members: &[Member]) -> Vec<Member> {
    if spec.discovery.policy != DiscoveryPolicy::Nodes {
        return Vec::new();
    }
    let in_force = facts.current.members.iter().filter(|old| {
        let is_listed = facts.current.marks.explicit.contains(&old.name);
        is_named_by_address(old) && !is_listed && !have(members, old)
    });
    let Some(endpoints) = &facts.endpoints else {
        // Nothing is known to be gone.
        return in_force
            .map(|old| Member::of_document(old, MemberSource::EndpointSlice))
            .collect();
    };
    let is_in_force = |endpoint: &Endpoint| {
        let mut in_force = in_force.clone();
        in_force.any(|old| has(old, endpoint))
    };
    let may_add = are_wanted(spec, facts, members, endpoints);
    endpoints
        .iter()
        .filter(|endpoint| is_free(endpoint, facts, members))
        .filter(|endpoint| is_in_force(endpoint) || may_add && is_verified(endpoint, facts))
        .map(|endpoint| Member {
            name: name(endpoint.socket.ip()),
            addresses: vec![endpoint.socket.ip()],
            port: endpoint.socket.port(),
            state: PoolMemberState::Active,
            zone: String::new(),
            source: MemberSource::EndpointSlice,
            node_name: endpoint.node_name.clone(),
            note: "it is an endpoint of default/kubernetes that is no node's InternalIP".to_owned(),
        })
        .collect()
}

/// Whether some node's apiserver must be somewhere else: its own address has never answered, and every member that does
/// answer is among the endpoints, so that none of the others can be a second address of it.
fn are_wanted(spec: &ApiserverPoolSpec, facts: &Facts, members: &[Member], endpoints: &[Endpoint]) -> bool {
    let has_answered = |member: &Member| {
        facts
            .healths
            .verified_at(&member.addresses, member.port)
            .is_some()
    };
    let is_missing = |member: &Member| {
        let is_probed = facts.healths.of(&member.addresses, member.port).is_some();
        member.source == MemberSource::Node && is_probed && !has_answered(member)
    };
    let is_endpoint = |member: &Member| {
        let mut sockets = member.sockets();
        sockets.any(|socket| endpoints.iter().any(|endpoint| endpoint.socket == socket))
    };
    // The endpoint of an apiserver that its owner has retired must not bring it back under another name.
    let is_retired = spec.members.iter().any(|entry| {
        let is_known = members.iter().any(|member| member.name == entry.name);
        entry.state == PoolMemberState::Disabled && entry.addresses.is_empty() && !is_known
    });
    !is_retired
        && members.iter().any(is_missing)
        && members
            .iter()
            .filter(|member| has_answered(member))
            .all(is_endpoint)
}

/// Whether the endpoint may be an apiserver that is no member yet: it is no member's address, nor that of a node that
/// discovery leaves out.
fn is_free(endpoint: &Endpoint, facts: &Facts, members: &[Member]) -> bool {
    let is_members = members.iter().any(|member| {
        member.name == name(endpoint.socket.ip()) || member.sockets().any(|socket| socket == endpoint.socket)
    });
    let mut in_force = facts
        .current
        .members
        .iter()
        .filter(|old| !is_named_by_address(old));
    let is_kept = in_force.any(|old| has(old, endpoint));
    let is_of_master = match &facts.discovered {
        Discovered::Masters(masters) => masters.iter().any(|master| master.name == endpoint.node_name),
        Discovered::Off | Discovered::Unknown => false,
    };
    !is_members && !is_kept && (endpoint.node_name.is_empty() || is_of_master)
}

fn is_verified(endpoint: &Endpoint, facts: &Facts) -> bool {
    let health = facts.healths.get(&endpoint.socket);
    health.is_some_and(|health| health.verified_at == Some(health.probed_at))
}

fn has(member: &wire::Member, endpoint: &Endpoint) -> bool {
    member.sockets().any(|socket| socket == endpoint.socket)
}
