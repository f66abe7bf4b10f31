//! The last spec that was accepted, as far as it concerns members: the ConfigMap tells it.
//!
//! Its discovery is noted beside the document, and its entries are in the document and in the marks. So a rejected edit of
//! the discovery, or of an entry, does not decide who is found meanwhile.

use std::net::SocketAddr;

use trivet_crds::pool::{ApiserverPoolSpec, Discovery, DiscoveryPolicy, PoolMember, PoolMemberState};
use trivet_crds::wire::{DisabledMember, Document, Member, MemberState, Tls};

use super::endpoints::is_named_by_address;
use super::facts::{Current, Facts, Marks};
use super::members;

/// The longest removal delay that the CRD allows.
const MAX_REMOVAL_DELAY_SECONDS: u32 = 86_400;

/// The discovery of the last good spec; none where no document is in force, or where a later release has noted it so that this
/// one cannot read it.
pub fn discovery(current: &Current) -> Discovery {
    let told = current.marks.discovery.clone();
    match (&current.document, told) {
        (Some(_), Some(told)) => told,
        (Some(_), None) if current.marks.has_unread_discovery() => unknown(),
        (Some(document), None) => guessed(document, &current.marks),
        (None, _) => off(),
    }
}

/// The members that the last good spec asks for by now.
pub fn members(facts: &Facts) -> Vec<members::Member> {
    let Some(spec) = spec(&facts.current) else {
        return Vec::new();
    };
    members::wanted(&spec, &facts.by_last_good()).members
}

/// What apiservers are verified by as the document in force has it, if that is not what is `asked`.
pub fn other_tls<'a>(asked: &Tls, current: &'a Current) -> Option<&'a Tls> {
    let in_force = &current.document.as_ref()?.tls;
    (in_force != asked).then_some(in_force)
}

/// The addresses and names that the entries of the last good spec list.
pub fn listed(current: &Current) -> impl Iterator<Item = &String> {
    current.marks.named.values().flatten()
}

fn spec(current: &Current) -> Option<ApiserverPoolSpec> {
    let document = current.document.as_ref()?;
    let disabled = document.disabled_members.iter().map(disabled);
    let others = document.members.iter();
    let others = others.filter_map(|member| entry(member, &current.marks));
    Some(ApiserverPoolSpec {
        members: disabled.chain(others).collect(),
        discovery: discovery(current),
        ..ApiserverPoolSpec::default()
    })
}

/// The entry that a member in force had. One that discovery found has an entry only if it drains.
fn entry(member: &Member, marks: &Marks) -> Option<PoolMember> {
    let is_listed = marks.explicit.contains(&member.name);
    let in_force = || member.addresses.iter().map(ToString::to_string).collect();
    let addresses = match marks.named.get(&member.name) {
        _ if !is_listed => Vec::new(),
        Some(listed) => listed.clone(),
        None => in_force(),
    };
    let state = match member.state {
        MemberState::Active => PoolMemberState::Active,
        MemberState::Draining => PoolMemberState::Draining,
    };
    (is_listed || state == PoolMemberState::Draining).then(|| PoolMember {
        name: member.name.clone(),
        addresses,
        port: member.port,
        state,
        zone: member.zone.clone(),
    })
}

fn disabled(member: &DisabledMember) -> PoolMember {
    let first = member.sockets.first().map(SocketAddr::port);
    PoolMember {
        name: member.name.clone(),
        addresses: member
            .sockets
            .iter()
            .map(|socket| socket.ip().to_string())
            .collect(),
        port: first.unwrap_or_else(|| Discovery::default().port),
        state: PoolMemberState::Disabled,
        zone: String::new(),
    }
}

/// What the members in force tell of a discovery that an earlier release has not noted: a member of a node has the port
/// of the discovery, and one that is named by its address is an endpoint.
fn guessed(document: &Document, marks: &Marks) -> Discovery {
    let is_discovered =
        |member: &&Member| !marks.explicit.contains(&member.name) || !member.node_name.is_empty();
    let discovered: Vec<_> = document.members.iter().filter(is_discovered).collect();
    let of_node = discovered.iter().find(|member| !is_named_by_address(member));
    match (of_node, discovered.is_empty()) {
        (Some(member), _) => Discovery {
            port: member.port,
            ..Discovery::default()
        },
        (None, false) => Discovery {
            policy: DiscoveryPolicy::EndpointSlices,
            ..Discovery::default()
        },
        (None, true) => off(),
    }
}

/// A discovery that a later release has noted. It finds nothing, and its removal delay may be the longest.
fn unknown() -> Discovery {
    Discovery {
        removal_delay_seconds: MAX_REMOVAL_DELAY_SECONDS,
        ..off()
    }
}

fn off() -> Discovery {
    Discovery {
        policy: DiscoveryPolicy::None,
        ..Discovery::default()
    }
}

#[cfg(test)]
mod tests;
