//! Discovery's masters as members: each where it is believed to be, and none at an address of another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use trivet_crds::pool::{ApiserverPoolSpec, MemberSource, PoolMemberState};
use trivet_crds::wire::{self, MAX_ADDRESSES};

use super::{Member, list, removal_delay};
use crate::plan::endpoints::is_named_by_address;
use crate::plan::facts::{Discovered, Facts};
use crate::plan::masters::{Master, Origin};
use crate::plan::sight;

/// The discovered members. One without any address is among them: the spec may give it one.
pub(super) fn members(spec: &ApiserverPoolSpec, facts: &Facts, notes: &mut Vec<String>) -> Vec<Member> {
    let Discovered::Masters(masters) = &facts.discovered else {
        return Vec::new();
    };
    let reported = masters.iter().map(|master| member(master, spec.discovery.port));
    let reported: Vec<_> = reported.collect();
    let mut members: Vec<_> = masters
        .iter()
        .zip(&reported)
        .map(|(master, member)| {
            let known = last_known(member, &reported, facts);
            followed(member.clone(), master, &known, spec, facts)
        })
        .collect();
    part(&mut members, &reported, facts, notes);
    members
}

fn member(master: &Master, port: u16) -> Member {
    let (source, port, node_name) = match &master.origin {
        Origin::Node => (MemberSource::Node, port, &master.name),
        Origin::EndpointSlice { port, node_name } => (MemberSource::EndpointSlice, *port, node_name),
    };
    Member {
        name: master.name.clone(),
        addresses: master.addresses.clone(),
        port,
        state: PoolMemberState::Active,
        zone: master.zone.clone(),
        source,
        node_name: node_name.clone(),
        note: String::new(),
    }
}

/// A master where its node says it is. A node that names another address than the one in force is not believed until the
/// new one answers: a kubelet started with the wrong flag must not take an apiserver away. For the same reason a node that
/// names no usable address is believed to be where it was. A blind operator cannot tell which is right, and uses both.
fn followed(
    mut member: Member,
    master: &Master,
    known: &[IpAddr],
    spec: &ApiserverPoolSpec,
    facts: &Facts,
) -> Member {
    if member.addresses.is_empty() {
        member.note = no_address(master);
        if !known.is_empty() {
            member.addresses = known.to_vec();
            member.note.push_str("; its last known addresses are used");
        }
        return member;
    }
    let (kept, lost): (Vec<_>, Vec<_>) = known.iter().partition(|ip| member.addresses.contains(ip));
    if lost.is_empty() || has_moved(&member, &lost, spec, facts) {
        return member;
    }
    let said = list(&member.addresses);
    let is_blind = sight::is_blind(facts);
    let is_believed = !kept.is_empty() || is_blind;
    member.note = if is_believed {
        format!(
            "its node no longer says {}: used until it is up at {said}",
            list(&lost)
        )
    } else {
        format!("its node now says {said}, where nothing is ready")
    };
    if is_believed {
        member.addresses = both(known, &member.addresses, is_blind);
    } else {
        member.addresses = known.to_vec();
    }
    member
}

/// The known addresses, and those of the reported ones that are new. Where a member has no room for both, new ones wait, but
/// for a blind operator nothing ends the wait: the oldest address that is no longer reported makes room, or the fourth move
/// would be the last one that proxies learn of. They go on with it as their last resort.
fn both(known: &[IpAddr], reported: &[IpAddr], is_blind: bool) -> Vec<IpAddr> {
    let new = reported.iter().filter(|ip| !known.contains(ip));
    let mut both: Vec<_> = known.iter().chain(new).copied().collect();
    let mut surplus = both.len().saturating_sub(MAX_ADDRESSES);
    both.retain(|ip| {
        let makes_room = is_blind && surplus > 0 && !reported.contains(ip);
        surplus -= usize::from(makes_room);
        !makes_room
    });
    both.truncate(MAX_ADDRESSES);
    both
}

/// Whether a member has left the addresses that its node has `lost`: it is Up at the ones that its node names, or answers
/// only there, or has not answered at the lost ones for the removal delay. An apiserver that restarts is silent for a
/// moment, and once an address has left the document nothing tells of it any more. To an operator that reaches no member
/// every address is silent.
fn has_moved(member: &Member, lost: &[IpAddr], spec: &ApiserverPoolSpec, facts: &Facts) -> bool {
    let Facts { healths, .. } = facts;
    let port = member.port;
    let answers_only_here = healths.is_verified(&member.addresses, port) && !healths.is_verified(lost, port);
    healths.is_up(&member.addresses, port)
        || answers_only_here
        || healths.is_gone(lost, port, removal_delay(spec)) && !sight::reaches_no_member(facts)
}

/// The addresses in force of a member, without those that other nodes report now.
fn last_known(member: &Member, reported: &[Member], facts: &Facts) -> Vec<IpAddr> {
    let mut in_force = facts.current.members.iter();
    let old = in_force.find(|old| was(old, member) && old.port == member.port);
    let is_of_another = |ip: &&IpAddr| {
        let mut others = reported.iter().filter(|other| other.name != member.name);
        others.any(|other| other.port == member.port && other.addresses.contains(ip))
    };
    let known = old.into_iter().flat_map(|old| &old.addresses);
    known.filter(|ip| !is_of_another(ip)).copied().collect()
}

fn no_address(master: &Master) -> String {
    let reported = if master.unusable.is_empty() {
        "none".to_owned()
    } else {
        format!("only {}", master.unusable.join(", "))
    };
    format!("its node reports no InternalIP that other hosts can reach ({reported})")
}

/// An address that several nodes report, such as a virtual IP, leads to one apiserver of which nobody knows which. It is
/// taken from all of them if each has another; else one keeps it.
fn part(members: &mut [Member], reported: &[Member], facts: &Facts, notes: &mut Vec<String>) {
    let mut holders: BTreeMap<SocketAddr, Vec<String>> = BTreeMap::new();
    for member in members.iter() {
        for socket in member.sockets() {
            holders.entry(socket).or_default().push(member.name.clone());
        }
    }
    holders.retain(|_, names| names.len() > 1);

    // Members that have no other address.
    let mut bare = BTreeSet::new();
    for member in members.iter_mut() {
        if !member.sockets().any(|socket| holders.contains_key(&socket)) {
            continue;
        }
        let own = member.sockets().filter(|socket| !holders.contains_key(socket));
        let mut own: Vec<_> = own.map(|socket| socket.ip()).collect();
        if own.is_empty() {
            own = last_known(member, reported, facts);
        }
        if own.is_empty() {
            bare.insert(member.name.clone());
        } else {
            member.addresses = own;
        }
    }
    for (socket, names) in &holders {
        let is_candidate = |member: &&Member| bare.contains(&member.name) && names.contains(&member.name);
        let keeper = keeper(*socket, reported.iter().filter(is_candidate), facts);
        for member in members.iter_mut().filter(|member| bare.contains(&member.name)) {
            if Some(&member.name) != keeper && member.sockets().any(|other| other == *socket) {
                member.addresses.retain(|ip| *ip != socket.ip());
                member.note = format!("its address {} is also that of {}", socket.ip(), names.join(", "));
            }
        }
        let used = keeper.map_or_else(
            || "it is used for none of them".to_owned(),
            |keeper| format!("it is used for {keeper} alone"),
        );
        notes.push(format!(
            "{} is an address of {}, and one apiserver is one member: {used}; give each node an InternalIP of its own",
            socket.ip(),
            names.join(", ")
        ));
    }
}

/// Who keeps a shared address: the member that has it already, else the first.
fn keeper<'a>(
    socket: SocketAddr,
    candidates: impl Iterator<Item = &'a Member> + Clone,
    facts: &Facts,
) -> Option<&'a String> {
    let has_it = |member: &&Member| {
        let mut in_force = facts.current.members.iter();
        in_force.any(|old| was(old, member) && old.sockets().any(|other| other == socket))
    };
    let first = || candidates.clone().next();
    let keeper = candidates.clone().find(has_it).or_else(first);
    keeper.map(|member| &member.name)
}

/// Whether a discovered apiserver is this member in force: by its node, and by its name only where no node is known. An
/// entry of the spec may have been named after another node than its own.
fn was(old: &wire::Member, member: &Member) -> bool {
    let is_node_known = !old.node_name.is_empty() && !member.node_name.is_empty();
    if is_node_known && !is_named_by_address(old) {
        old.node_name == member.node_name
    } else {
        old.name == member.name
    }
}
