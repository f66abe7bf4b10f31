//! What becomes of the document in force while the spec is rejected.
//!
//! The last good spec stays in force, and its discovery goes on, or nodes would lose all apiservers while masters are
//! replaced one by one and nobody mends the spec. But discovery only adds, and only what the operator has verified.
//! Whatever takes something away waits for a spec that is accepted.

use std::net::IpAddr;

use trivet_crds::pool::{ApiserverPool, DiscoveryPolicy, PoolMember, PoolMemberState};
use trivet_crds::wire::{self, Document, MAX_MEMBERS};

use super::additions::additions;
use super::facts::{Facts, Memory};
use super::members::Member;
use super::{last_good, ports, restored, revision, sight};
use crate::health::Healths;

/// A message names up to this many members.
const NAMES_LIMIT: usize = 5;

/// What discovery adds, and what the owner should know of it.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// The next document; `None` if nothing is added, and proxies follow the one in force.
    pub document: Option<Document>,
    /// What stays in force, and what is added to it or not.
    pub notes: Vec<String>,
}

/// What is added to the document in force. `memory` includes this pass.
pub fn growth(pool: &ApiserverPool, facts: &Facts, memory: &Memory) -> Result<Growth, wire::Error> {
    // Without it, proxies go on with earlier documents, and what is good in them is not known.
    let Some(document) = revision::followed(facts) else {
        return Ok(Growth::default());
    };
    let found = found(pool, facts);
    let is_blind = sight::is_blind(facts);
    let healths = facts.healths_in_force();
    let has_discovery = last_good::discovery(&facts.current).policy != DiscoveryPolicy::None;
    // A blind operator cannot tell apiservers from other nodes where a selector matches too many.
    let is_unchecked = is_blind && found.len() <= MAX_MEMBERS;
    let checked: Vec<_> = if is_unchecked {
        found.clone()
    } else {
        found.iter().map(|member| verified(member, healths)).collect()
    };
    let added = additions(document, &checked);
    let waiting = additions(&added.document, &found).grown;

    let mut notes = vec![standing(has_discovery).to_owned()];
    if facts.current.marks.has_unread_discovery() {
        notes.push(
            "a later release has noted its discovery, which this one cannot read, so discovery adds nothing"
                .to_owned(),
        );
    }
    if is_unchecked && has_discovery {
        notes.push("the operator reaches none of the members, so it adds masters without a check".to_owned());
    } else if !waiting.is_empty() {
        let waiting = list(&waiting);
        notes.push(format!(
            "not added yet, because nothing is verified there: {waiting}"
        ));
    }
    if !added.left_out.is_empty() {
        notes.push(list(&added.left_out));
    }
    let records = revision::records(facts, memory);
    if added.grown.is_empty() && !restored::is_of_backup(document, facts, &records) {
        return Ok(Growth {
            document: None,
            notes,
        });
    }
    let document = Document {
        revision: revision::next(facts, &records),
        ..added.document
    };
    Ok(Growth {
        document: Some(document.seal_with(&facts.current.later)?),
        notes,
    })
}

/// The members of the last good spec, without those that the rejected one disables: its owner does not want them, whatever
/// else is wrong with it.
fn found(pool: &ApiserverPool, facts: &Facts) -> Vec<Member> {
    let mut found = last_good::members(facts);
    for member in &mut found {
        let said = pool
            .spec
            .members
            .iter()
            .filter(|entry| is_meant(entry, member, facts));
        let states: Vec<_> = said.map(|entry| entry.state).chain([member.state]).collect();
        let mut restrictions = [PoolMemberState::Disabled, PoolMemberState::Draining].into_iter();
        member.state = restrictions
            .find(|state| states.contains(state))
            .unwrap_or_default();
    }
    found.retain(|member| !ports::is_of_proxies(member, facts));
    found
}

/// Whether an entry means this member: by its name, by its node, or by an address.
fn is_meant(entry: &PoolMember, member: &Member, facts: &Facts) -> bool {
    let is_address = |text: &String| match (text.parse::<IpAddr>(), facts.resolved.get(text)) {
        (Ok(ip), _) => member.addresses.contains(&ip),
        (Err(_), Some(Ok(resolved))) => resolved.iter().any(|ip| member.addresses.contains(ip)),
        (Err(_), Some(Err(_)) | None) => false,
    };
    entry.name == member.name
        || entry.name == member.node_name
        || entry.port == member.port && entry.addresses.iter().any(is_address)
}

/// The member with those of its addresses at which an apiserver of the cluster answers.
fn verified(member: &Member, healths: &Healths) -> Member {
    let is_verified = |ip: &&IpAddr| healths.is_verified(&[**ip], member.port);
    Member {
        addresses: member.addresses.iter().filter(is_verified).copied().collect(),
        ..member.clone()
    }
}

fn standing(has_discovery: bool) -> &'static str {
    if has_discovery {
        "the last good configuration stays in force, and new masters that answer are still added to it"
    } else {
        "the last good configuration stays in force"
    }
}

fn list(items: &[String]) -> String {
    let named = items.iter().take(NAMES_LIMIT).map(String::as_str);
    let named = named.collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(NAMES_LIMIT) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}
