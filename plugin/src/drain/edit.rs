//! The state of one entry of `spec.members`. Pure: what else is in the list stays as it is.

use anyhow::{Result, anyhow};
use trivet_crds::pool::{ApiserverPool, PoolMember, PoolMemberState};

use crate::BadUsage;

/// What an edit of the members comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// They are as wanted.
    None,
    /// The whole list, as it should be.
    Members(Vec<PoolMember>),
}

/// What the pool's owner wants of a member. An error names the members that there are.
pub(super) fn state(pool: &ApiserverPool, member: &str) -> Result<PoolMemberState> {
    if let Some(entry) = entry(pool, member) {
        return Ok(entry.state);
    }
    let known = pool.status.iter().flat_map(|status| &status.members);
    if known.clone().any(|known| known.name == member) {
        return Ok(PoolMemberState::Active);
    }
    let mut names: Vec<_> = known.map(|known| known.name.as_str()).collect();
    names.extend(pool.spec.members.iter().map(|entry| entry.name.as_str()));
    names.sort_unstable();
    names.dedup();
    let there = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Err(anyhow!(BadUsage(format!(
        "there is no member {member:?}; there are: {there}"
    ))))
}

/// The members with another state of this one. An entry that only overrides the state of a discovered member is removed once that
/// is Active again.
pub(super) fn with_state(pool: &ApiserverPool, member: &str, wanted: PoolMemberState) -> Result<Change> {
    if state(pool, member)? == wanted {
        return Ok(Change::None);
    }
    let mut members = pool.spec.members.clone();
    match members.iter_mut().find(|entry| entry.name == member) {
        Some(entry) => entry.state = wanted,
        None => members.push(PoolMember {
            name: member.to_owned(),
            addresses: Vec::new(),
            port: 6443,
            state: wanted,
            zone: String::new(),
        }),
    }
    let says_nothing = |entry: &PoolMember| {
        entry.state == PoolMemberState::Active && entry.addresses.is_empty() && entry.zone.is_empty()
    };
    members.retain(|entry| entry.name != member || !says_nothing(entry));
    Ok(Change::Members(members))
}

fn entry<'a>(pool: &'a ApiserverPool, member: &str) -> Option<&'a PoolMember> {
    pool.spec.members.iter().find(|entry| entry.name == member)
}
