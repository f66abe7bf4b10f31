//! Merges what the spec lists with what discovery found.

use std::net::IpAddr;

use trivet_crds::pool::{ApiserverPoolSpec, MemberSource, PoolMember, PoolMemberState};
use trivet_crds::wire::{self, MAX_ADDRESSES};

use super::facts::{Discovered, Facts};
use super::masters::Master;

/// One apiserver of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique in the pool.
    pub name: String,
    /// Resolved, the preferred first.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// What the owner wants of it.
    pub state: PoolMemberState,
    /// Its failure domain, or nothing.
    pub zone: String,
    /// Who says so.
    pub source: MemberSource,
    /// The node it runs on, or nothing.
    pub node_name: String,
    /// What the owner should know about it.
    pub note: String,
}

/// What spec and discovery ask for, before anything holds it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The members, disabled ones included.
    pub members: Vec<Member>,
    /// What had to be left out.
    pub notes: Vec<String>,
}

impl Member {
    /// The member as the proxies know it.
    pub fn of_document(member: &wire::Member, source: MemberSource) -> Self {
        // A document of a release that told no nodes: a discovered member has its node's name.
        let node_name = match source {
            MemberSource::Node if member.node_name.is_empty() => &member.name,
            MemberSource::Node | MemberSource::Spec => &member.node_name,
        };
        Self {
            name: member.name.clone(),
            addresses: member.addresses.clone(),
            port: member.port,
            state: match member.state {
                wire::MemberState::Active => PoolMemberState::Active,
                wire::MemberState::Draining => PoolMemberState::Draining,
            },
            zone: member.zone.clone(),
            source,
            node_name: node_name.clone(),
            note: String::new(),
        }
    }

    /// Whether connections to `other` reach this member.
    pub fn is_same_server(&self, other: &wire::Member) -> bool {
        self.port == other.port
            && self
                .addresses
                .iter()
                .any(|address| other.addresses.contains(address))
    }
}

/// Merges the two sources: an entry of the spec wins over discovery by its name and by its addresses.
pub fn wanted(spec: &ApiserverPoolSpec, facts: &Facts) -> Wanted {
    let mut wanted = Wanted {
        members: discovered(spec, facts),
        notes: Vec::new(),
    };
    for entry in &spec.members {
        if entry.addresses.is_empty() {
            adjust(entry, facts, &mut wanted);
        } else {
            replace(entry, facts, &mut wanted);
        }
    }
    wanted
}

/// The state and zone that the spec gives a member it lists without addresses.
pub fn override_of<'a>(spec: &'a ApiserverPoolSpec, name: &str) -> Option<&'a PoolMember> {
    spec.members
        .iter()
        .find(|entry| entry.addresses.is_empty() && entry.name == name)
}

fn discovered(spec: &ApiserverPoolSpec, facts: &Facts) -> Vec<Member> {
    let Discovered::Masters(masters) = &facts.discovered else {
        return Vec::new();
    };
    masters
        .iter()
        .map(|master| followed(master, spec.discovery.port, facts))
        .collect()
}

/// A master where its node says it is. A node that names another address than the one that answers is not believed
/// until the new one answers: a kubelet started with the wrong flag must not take an apiserver away.
fn followed(master: &Master, port: u16, facts: &Facts) -> Member {
    let mut member = Member {
        name: master.name.clone(),
        addresses: master.addresses.clone(),
        port,
        state: PoolMemberState::Active,
        zone: master.zone.clone(),
        source: MemberSource::Node,
        node_name: master.name.clone(),
        note: String::new(),
    };
    let known = facts.current.members.iter().find(|old| old.name == member.name);
    if let Some(old) = known.filter(|old| old.port == port && !member.is_same_server(old))
        && facts.healths.is_up(&old.addresses, port)
        && !facts.healths.is_up(&member.addresses, port)
    {
        member.note = format!(
            "its node now says {}, where nothing is ready",
            list(&member.addresses)
        );
        member.addresses.clone_from(&old.addresses);
    }
    member
}

fn adjust(entry: &PoolMember, facts: &Facts, wanted: &mut Wanted) {
    if let Some(member) = wanted.members.iter_mut().find(|member| member.name == entry.name) {
        member.state = entry.state;
        if !entry.zone.is_empty() {
            member.zone.clone_from(&entry.zone);
        }
    } else if !facts.current.members.iter().any(|old| old.name == entry.name) {
        wanted.notes.push(format!(
            "spec.members entry {} has no addresses and no discovered member has its name: add addresses or remove it",
            entry.name
        ));
    }
}

fn replace(entry: &PoolMember, facts: &Facts, wanted: &mut Wanted) {
    let known = facts.current.members.iter().find(|old| old.name == entry.name);
    let (mut addresses, failures) = resolved(entry, facts);
    let mut note = failures.join("; ");
    if addresses.is_empty() {
        let Some(old) = known else {
            wanted
                .notes
                .push(format!("spec.members entry {} is left out: {note}", entry.name));
            return;
        };
        note = format!("its last known addresses are used: {note}");
        addresses.clone_from(&old.addresses);
    }
    let mut member = Member {
        name: entry.name.clone(),
        addresses,
        port: entry.port,
        state: entry.state,
        zone: entry.zone.clone(),
        source: MemberSource::Spec,
        node_name: String::new(),
        note,
    };
    wanted.members.retain(|other| {
        let is_replaced = other.source == MemberSource::Node
            && (other.name == member.name
                || other.port == member.port
                    && other
                        .addresses
                        .iter()
                        .any(|address| member.addresses.contains(address)));
        if is_replaced {
            member.node_name.clone_from(&other.node_name);
            if member.zone.is_empty() {
                member.zone.clone_from(&other.zone);
            }
        }
        !is_replaced
    });
    let mut in_force = facts.current.members.iter();
    if matches!(&facts.discovered, Discovered::Unknown | Discovered::Masters(_))
        && !facts.discovered.has_masters()
        && let Some(old) = in_force.find(|old| member.is_same_server(old))
    {
        keep_place(&mut member, old);
    }
    wanted.members.push(member);
}

/// What discovery said of the member that an entry replaces holds while discovery says nothing: a source that cannot be
/// read, or that finds nothing, must not make proxies choose another way, and the entry's end must not remove a member
/// that discovery had.
fn keep_place(member: &mut Member, old: &wire::Member) {
    member.node_name.clone_from(&old.node_name);
    if member.zone.is_empty() {
        member.zone.clone_from(&old.zone);
    }
}

/// An entry's addresses, names resolved, and what failed.
fn resolved(entry: &PoolMember, facts: &Facts) -> (Vec<IpAddr>, Vec<String>) {
    let mut addresses = Vec::new();
    let mut failures = Vec::new();
    for text in &entry.addresses {
        match (text.parse(), facts.resolved.get(text)) {
            (Ok(ip), _) => addresses.push(ip),
            (Err(_), Some(Ok(found))) => addresses.extend(found),
            (Err(_), Some(Err(why))) => failures.push(format!("{text} cannot be resolved: {why}")),
            (Err(_), None) => failures.push(format!("{text} is not resolved yet")),
        }
    }
    let mut unique = Vec::new();
    for ip in addresses {
        if !unique.contains(&ip) && unique.len() < MAX_ADDRESSES {
            unique.push(ip);
        }
    }
    (unique, failures)
}

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
