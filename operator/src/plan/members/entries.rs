//! Puts the entries of `spec.members` that have addresses in the place of the apiservers that they name.

mod hold;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use trivet_crds::pool::{ApiserverPoolSpec, MemberSource, PoolMember};
use trivet_crds::wire::{self, MAX_ADDRESSES};

use super::{Member, Wanted, adjust, list, source_of, without_those_of};
use crate::plan::facts::{Discovered, Facts};

/// An entry with its addresses, names resolved.
struct Claim<'a> {
    entry: &'a PoolMember,
    addresses: Vec<IpAddr>,
    /// Those of `addresses` that are in force and to which no name resolves any more.
    held: Vec<IpAddr>,
    /// Which names failed.
    note: String,
}

/// Merges the entries over the discovered members.
pub(super) fn merge(spec: &ApiserverPoolSpec, facts: &Facts, wanted: &mut Wanted) {
    let listed = spec.members.iter().filter(|entry| !entry.addresses.is_empty());
    let mut claims: Vec<_> = listed
        .map(|entry| hold::hold(resolved(entry, facts), spec, facts, &wanted.members))
        .collect();
    part(&mut claims, facts, &mut wanted.notes);
    let others = held_back(facts, &wanted.members);
    // An entry that has a member's name comes before one that has only an address of it.
    let names = |name: &str| {
        wanted
            .members
            .iter()
            .chain(&others)
            .any(|member| member.name == name)
    };
    let (by_name, by_address): (Vec<_>, Vec<_>) =
        claims.into_iter().partition(|claim| names(&claim.entry.name));
    for claim in by_name.into_iter().chain(by_address) {
        place(claim, &others, facts, wanted);
    }
}

/// The members in force that discovery has not named in this pass. The guard may keep them, so an entry must not swallow
/// them.
fn held_back(facts: &Facts, discovered: &[Member]) -> Vec<Member> {
    if facts.discovered == Discovered::Off {
        return Vec::new();
    }
    let in_force = facts.current.members.iter();
    in_force
        .filter(|old| !discovered.iter().any(|member| member.name == old.name))
        .map(|old| Member {
            addresses: without_those_of(discovered, old),
            ..Member::of_document(old, source_of(old, facts))
        })
        .filter(|member| member.source != MemberSource::Spec && !member.addresses.is_empty())
        .collect()
}

/// The member in force that has the name and the port of an entry.
fn in_force<'a>(entry: &PoolMember, facts: &'a Facts) -> Option<&'a wire::Member> {
    let mut members = facts.current.members.iter();
    members.find(|old| old.name == entry.name && old.port == entry.port)
}

/// An entry's addresses, names resolved. While a name fails, the addresses in force stay, in their order.
fn resolved<'a>(entry: &'a PoolMember, facts: &Facts) -> Claim<'a> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut failures = Vec::new();
    for text in &entry.addresses {
        match (text.parse(), facts.resolved.get(text)) {
            (Ok(ip), _) => found.push(ip),
            (Err(_), Some(Ok(addresses))) => found.extend(addresses),
            (Err(_), Some(Err(why))) => failures.push(format!("{text} cannot be resolved: {why}")),
            (Err(_), None) => failures.push(format!("{text} is not resolved yet")),
        }
    }
    let mut addresses = Vec::new();
    let mut note = failures.join("; ");
    if let Some(old) = in_force(entry, facts).filter(|_| !failures.is_empty()) {
        addresses.clone_from(&old.addresses);
        note = format!("its last known addresses are used: {note}");
    }
    for ip in found {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    Claim {
        entry,
        addresses,
        held: Vec::new(),
        note,
    }
}

/// Leaves an address that two entries have to one of them: to the one that spells it out, else to the one that has it and
/// whose name resolves to it, else to the first whose name does.
fn part(claims: &mut [Claim<'_>], facts: &Facts, notes: &mut Vec<String>) {
    let mut owners: BTreeMap<SocketAddr, String> = BTreeMap::new();
    let has = |claim: &Claim<'_>, ip: IpAddr| {
        in_force(claim.entry, facts).is_some_and(|old| old.addresses.contains(&ip))
    };
    let rank = |claim: &Claim<'_>, ip: IpAddr| match () {
        () if claim.spells_out(ip) => 0,
        () if claim.held.contains(&ip) => 3,
        () if has(claim, ip) => 1,
        () => 2,
    };
    for this in 0..=3 {
        for claim in claims.iter() {
            for ip in claim.addresses.iter().filter(|ip| rank(claim, **ip) == this) {
                let owner = owners.entry(SocketAddr::new(*ip, claim.entry.port));
                owner.or_insert_with(|| claim.entry.name.clone());
            }
        }
    }
    for claim in claims {
        let owner_of = |ip: IpAddr| owners.get(&SocketAddr::new(ip, claim.entry.port)).cloned();
        let foreign = claim.addresses.iter().filter_map(|ip| {
            let owner = owner_of(*ip).filter(|owner| *owner != claim.entry.name);
            owner.map(|owner| (*ip, owner))
        });
        let foreign: Vec<_> = foreign.collect();
        claim.give_up(&foreign, notes);
    }
}

impl Claim<'_> {
    fn spells_out(&self, ip: IpAddr) -> bool {
        let mut texts = self.entry.addresses.iter();
        texts.any(|text| text.parse() == Ok(ip))
    }

    /// Takes addresses out that are those of others, and tells of it.
    fn give_up(&mut self, foreign: &[(IpAddr, String)], notes: &mut Vec<String>) {
        if foreign.is_empty() {
            return;
        }
        self.addresses
            .retain(|ip| !foreign.iter().any(|(other, _)| other == ip));
        let told: Vec<_> = foreign
            .iter()
            .map(|(ip, owner)| format!("{ip} of {owner}"))
            .collect();
        let what = if self.addresses.is_empty() {
            "all of its addresses"
        } else {
            "these addresses"
        };
        notes.push(format!(
            "spec.members entry {} is without {what} that are those of other members ({}): one apiserver is one member, so \
             give each entry the addresses of one",
            self.entry.name,
            told.join(", ")
        ));
    }
}

/// Puts an entry in the place of the one apiserver that it names. Where it has addresses of several, those stay members of
/// their own.
fn place(mut claim: Claim<'_>, others: &[Member], facts: &Facts, wanted: &mut Wanted) {
    let entry = claim.entry;
    let rivals = || {
        let discovered = wanted
            .members
            .iter()
            .filter(|member| member.source != MemberSource::Spec);
        discovered.chain(others)
    };
    let owner_of = |ip: &IpAddr| {
        let mut owners = rivals().filter(|member| member.port == entry.port && member.addresses.contains(ip));
        owners.next().map(|member| member.name.clone())
    };
    let owned: Vec<_> = claim
        .addresses
        .iter()
        .filter_map(|ip| owner_of(ip).map(|owner| (*ip, owner)))
        .collect();
    let replaced = if rivals().any(|member| member.name == entry.name) {
        Some(entry.name.clone())
    } else {
        let first = owned.first().map(|(_, owner)| owner.clone());
        first.filter(|first| owned.iter().all(|(_, owner)| owner == first))
    };
    let foreign = owned
        .into_iter()
        .filter(|(_, owner)| Some(owner) != replaced.as_ref());
    let foreign: Vec<_> = foreign.collect();
    claim.give_up(&foreign, &mut wanted.notes);
    if claim.addresses.is_empty() {
        if foreign.is_empty() {
            wanted.notes.push(format!(
                "spec.members entry {} is left out: {}",
                entry.name, claim.note
            ));
        }
        if wanted.members.iter().any(|member| member.name == entry.name) {
            adjust(entry, facts, wanted);
        }
        return;
    }
    let mut member = claim.member();
    wanted.members.retain(|other| {
        let is_replaced = other.source != MemberSource::Spec && Some(&other.name) == replaced.as_ref();
        if is_replaced {
            member.node_name.clone_from(&other.node_name);
            if member.zone.is_empty() {
                member.zone.clone_from(&other.zone);
            }
        }
        !is_replaced
    });
    let mut in_force = facts.current.members.iter();
    if facts.discovered != Discovered::Off
        && !facts.discovered.has_masters()
        && let Some(old) = in_force.find(|old| member.is_same_server(old))
    {
        keep_place(&mut member, old);
    }
    wanted.members.push(member);
}

impl Claim<'_> {
    fn member(self) -> Member {
        let Self {
            entry,
            mut addresses,
            mut note,
            ..
        } = self;
        if let Some(surplus) = addresses
            .split_at_checked(MAX_ADDRESSES)
            .map(|(_, surplus)| surplus)
            && !surplus.is_empty()
        {
            let told = format!(
                "a member has at most {MAX_ADDRESSES} addresses, so {} are not used",
                list(surplus)
            );
            note = if note.is_empty() {
                told
            } else {
                format!("{note}; {told}")
            };
        }
        addresses.truncate(MAX_ADDRESSES);
        Member {
            name: entry.name.clone(),
            addresses,
            port: entry.port,
            state: entry.state,
            zone: entry.zone.clone(),
            source: MemberSource::Spec,
            node_name: String::new(),
            note,
        }
    }
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
