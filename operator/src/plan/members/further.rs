//! Members that only the EndpointSlices of `default/kubernetes` know: apiservers that do not listen at their node's
//! InternalIP.

use trivet_crds::pool::{ApiserverPoolSpec, DiscoveryPolicy, MemberSource, PoolMember, PoolMemberState};
use trivet_crds::wire;

use super::{Member, have, list, override_of};
use crate::plan::endpoints::{Endpoint, is_named_by_address, name};
use crate::plan::facts::{Discovered, Facts};

/// The endpoints that become members beside the discovered nodes. One source's word is not enough: an endpoint has to
/// answer as an apiserver of the cluster, and a node's own address must never have done so.
pub(super) fn members(
    spec: &ApiserverPoolSpec,
    facts: &Facts,
    members: &[Member],
    notes: &mut Vec<String>,
) -> Vec<Member> {
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
            .map(|old| Member {
                state: state_of(&old.name, &old.node_name, spec, members),
                ..Member::of_document(old, MemberSource::EndpointSlice)
            })
            .collect();
    };
    let is_in_force = |endpoint: &Endpoint| {
        let mut in_force = in_force.clone();
        in_force.any(|old| has(old, endpoint))
    };
    let may_add = are_wanted(spec, facts, members, endpoints);
    let unlocated = unlocated(spec, facts, members, endpoints);
    let mut found = Vec::new();
    let (mut doubtful_in_use, mut doubtful_unused) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        if !is_free(endpoint, facts, members) {
            continue;
        }
        let name = name(endpoint.socket.ip());
        let state = state_of(&name, &endpoint.node_name, spec, members);
        let is_in_force = is_in_force(endpoint);
        let is_located = state == PoolMemberState::Disabled || !endpoint.node_name.is_empty();
        let is_doubtful = !unlocated.is_empty() && !is_located;
        let is_verified = is_verified(endpoint, facts);
        let is_new = may_add && is_verified && !is_doubtful;
        if is_doubtful && is_in_force {
            doubtful_in_use.push(endpoint.socket.ip());
        } else if is_doubtful && is_verified {
            doubtful_unused.push(endpoint.socket.ip());
        }
        // A disabled one is a member too: proxies are told that they must not use it.
        if is_in_force || is_new || state == PoolMemberState::Disabled {
            found.push(Member {
                name,
                addresses: vec![endpoint.socket.ip()],
                port: endpoint.socket.port(),
                state,
                zone: String::new(),
                source: MemberSource::EndpointSlice,
                node_name: endpoint.node_name.clone(),
                note: "it is an endpoint of default/kubernetes that is no node's InternalIP".to_owned(),
            });
        }
    }
    let way_out = "to disable an endpoint, list its address as a name with state: Disabled";
    for (addresses, use_of_them) in [(doubtful_in_use, "in use"), (doubtful_unused, "not used")] {
        if !addresses.is_empty() {
            notes.push(format!(
                "{} is Disabled and does not answer at an address of its own, so its apiserver may be an endpoint of \
                 default/kubernetes that is {use_of_them} ({}): {way_out}",
                unlocated.join(", "),
                list(&addresses)
            ));
        }
    }
    found
}

/// What the owner wants of an endpoint: by its own name, else what is wanted of its node's apiserver.
pub fn state_of(
    name: &str,
    node_name: &str,
    spec: &ApiserverPoolSpec,
    members: &[Member],
) -> PoolMemberState {
    let mut of_node = members
        .iter()
        .filter(|member| !node_name.is_empty() && member.node_name == node_name);
    let entry = override_of(spec, name).or_else(|| override_of(spec, node_name));
    let state = entry.map(|entry| entry.state);
    state
        .or_else(|| of_node.next().map(|member| wanted_state(member, spec)))
        .unwrap_or_default()
}

/// The state of a member with what an entry without addresses says of it.
fn wanted_state(member: &Member, spec: &ApiserverPoolSpec) -> PoolMemberState {
    override_of(spec, &member.name).map_or(member.state, |entry| entry.state)
}

/// Whether some node's apiserver must be somewhere else: its own address has never answered, and every member that does
/// answer is among the endpoints, so that none of the others can be a second address of it. A disabled apiserver is not
/// looked for.
fn are_wanted(spec: &ApiserverPoolSpec, facts: &Facts, members: &[Member], endpoints: &[Endpoint]) -> bool {
    let has_answered = |member: &Member| {
        facts
            .healths
            .verified_at(&member.addresses, member.port)
            .is_some()
    };
    let is_missing = |member: &Member| {
        let is_probed = facts.healths.of(&member.addresses, member.port).is_some();
        let is_disabled = wanted_state(member, spec) == PoolMemberState::Disabled;
        member.source == MemberSource::Node && !is_disabled && is_probed && !has_answered(member)
    };
    let is_endpoint = |member: &Member| {
        let mut sockets = member.sockets();
        sockets.any(|socket| endpoints.iter().any(|endpoint| endpoint.socket == socket))
    };
    members.iter().any(is_missing)
        && members
            .iter()
            .filter(|member| has_answered(member))
            .all(is_endpoint)
}

/// The entries that disable an apiserver of which nobody knows where it is: it does not answer at an address of its
/// member, and no endpoint is told to be it. An endpoint that may be it must not bring it back under another name.
fn unlocated<'a>(
    spec: &'a ApiserverPoolSpec,
    facts: &Facts,
    members: &[Member],
    endpoints: &[Endpoint],
) -> Vec<&'a str> {
    let is_endpoint = |entry: &PoolMember| {
        endpoints
            .iter()
            .any(|endpoint| endpoint.node_name == entry.name || name(endpoint.socket.ip()) == entry.name)
    };
    let answers = |entry: &PoolMember| {
        let mut members = members.iter().filter(|member| member.name == entry.name);
        members.any(|member| facts.healths.is_verified(&member.addresses, member.port))
    };
    let disabled = spec
        .members
        .iter()
        .filter(|entry| entry.state == PoolMemberState::Disabled);
    let unlocated = disabled.filter(|entry| !is_endpoint(entry) && !answers(entry));
    unlocated.map(|entry| entry.name.as_str()).collect()
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
    let socket = endpoint.socket;
    facts.healths.is_verified(&[socket.ip()], socket.port())
}

fn has(member: &wire::Member, endpoint: &Endpoint) -> bool {
    member.sockets().any(|socket| socket == endpoint.socket)
}
