//! Merges what the spec lists with what discovery found. One apiserver is one member: no address belongs to two of them, and
//! an entry of the spec takes the place of one discovered apiserver at most.

mod discovered;
mod entries;
mod further;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use trivet_crds::pool::{ApiserverPoolSpec, MemberSource, PoolMember, PoolMemberState};
use trivet_crds::wire;

pub use self::further::state_of;
use super::endpoints;
use super::facts::Facts;

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
            MemberSource::Node | MemberSource::Spec | MemberSource::EndpointSlice => &member.node_name,
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

    /// Its addresses with its port.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.port;
        self.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
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

/// Merges the sources. An entry of the spec wins over discovery by its name and by its addresses.
pub fn wanted(spec: &ApiserverPoolSpec, facts: &Facts) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.members = discovered::members(spec, facts, &mut wanted.notes);
    entries::merge(spec, facts, &mut wanted);
    let further = further::members(spec, facts, &wanted.members, &mut wanted.notes);
    wanted.members.extend(further);
    for entry in spec.members.iter().filter(|entry| entry.addresses.is_empty()) {
        adjust(entry, facts, &mut wanted);
    }
    leave_out_unreachable(&mut wanted);
    wanted
}

/// For how long nothing must answer where a member was: before it is removed, and before its address is given up.
pub fn removal_delay(spec: &ApiserverPoolSpec) -> Duration {
    Duration::from_secs(u64::from(spec.discovery.removal_delay_seconds))
}

/// The state and zone that the spec gives a member it lists without addresses.
pub fn override_of<'a>(spec: &'a ApiserverPoolSpec, name: &str) -> Option<&'a PoolMember> {
    spec.members
        .iter()
        .find(|entry| entry.addresses.is_empty() && entry.name == name)
}

/// The same for a member in force: one that is named by its address is also meant by an entry for its node.
pub fn override_in_force<'a>(spec: &'a ApiserverPoolSpec, old: &wire::Member) -> Option<&'a PoolMember> {
    let of_node = || override_of(spec, &old.node_name).filter(|_| endpoints::is_named_by_address(old));
    override_of(spec, &old.name).or_else(of_node)
}

/// Where a member in force comes from.
pub fn source_of(member: &wire::Member, facts: &Facts) -> MemberSource {
    if facts.current.marks.explicit.contains(&member.name) {
        MemberSource::Spec
    } else if endpoints::is_named_by_address(member) {
        MemberSource::EndpointSlice
    } else {
        MemberSource::Node
    }
}

/// Whether `members` have the apiserver of `old`: by its name, by its node, by an address unless that has gone over to
/// another node, or by all of its addresses.
pub fn have(members: &[Member], old: &wire::Member) -> bool {
    let is_same = |member: &Member| {
        let is_node_known = !member.node_name.is_empty() && !old.node_name.is_empty();
        let is_same_node = is_node_known && member.node_name == old.node_name;
        member.name == old.name
            || is_same_node && !endpoints::is_named_by_address(old)
            || member.is_same_server(old) && (is_same_node || !is_node_known)
    };
    members.iter().any(is_same) || without_those_of(members, old).is_empty()
}

/// The addresses of `old` that none of `members` has.
pub fn without_those_of(members: &[Member], old: &wire::Member) -> Vec<IpAddr> {
    let is_free = |ip: &&IpAddr| {
        let mut taken = members.iter().filter(|member| member.port == old.port);
        !taken.any(|member| member.addresses.contains(ip))
    };
    old.addresses.iter().filter(is_free).copied().collect()
}

fn adjust(entry: &PoolMember, facts: &Facts, wanted: &mut Wanted) {
    if let Some(member) = wanted.members.iter_mut().find(|member| member.name == entry.name) {
        member.state = entry.state;
        if !entry.zone.is_empty() {
            member.zone.clone_from(&entry.zone);
        }
    } else if !facts.current.members.iter().any(|old| old.name == entry.name) {
        let way_out = match entry.state {
            PoolMemberState::Active | PoolMemberState::Draining => "add addresses or remove it",
            PoolMemberState::Disabled => {
                "keep it while its apiserver runs, so that proxies with an earlier document do not use it"
            }
        };
        wanted.notes.push(format!(
            "spec.members entry {} has no addresses and no discovered member has its name: {way_out}",
            entry.name
        ));
    }
}

/// A discovered apiserver without an address that is its own can be no member.
fn leave_out_unreachable(wanted: &mut Wanted) {
    let Wanted { members, notes } = wanted;
    members.retain(|member| {
        let is_told = member.addresses.is_empty() && member.state != PoolMemberState::Disabled;
        if is_told {
            notes.push(format!(
                "{} is left out: {}; list it in spec.members with an address of its own",
                member.name, member.note
            ));
        }
        !member.addresses.is_empty()
    });
}

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
