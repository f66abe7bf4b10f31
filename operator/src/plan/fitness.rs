//! Judges whether a set of members may be put in force.

use trivet_crds::pool::PoolMemberState;
use trivet_crds::wire::{self, MAX_MEMBERS};

use super::facts::Facts;
use super::members::{Member, Wanted};
use super::permission::Permission;
use super::rejection::Rejection;

/// How members may be put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Nothing speaks against them.
    Fit,
    /// The edit leaves no healthy member, and the owner's permission is used for it.
    Permitted,
}

/// Judges `members`, which `wanted` and the guard have brought about.
pub fn check(
    members: &[Member],
    wanted: &Wanted,
    facts: &Facts,
    permission: &Permission,
) -> Result<Fitness, Rejection> {
    let fitness = edit(members, facts, permission)?;
    let used = |member: &&Member| member.state != PoolMemberState::Disabled;
    match members.iter().filter(used).count() {
        0 => Err(Rejection::NoMembers {
            notes: wanted.notes.clone(),
        }),
        found if found > MAX_MEMBERS => Err(Rejection::TooManyMembers { found }),
        _ => Ok(fitness),
    }
}

/// Whether this member is active and Up as seen from the operator.
pub fn is_healthy(member: &Member, facts: &Facts) -> bool {
    member.state == PoolMemberState::Active && facts.healths.is_up(&member.addresses, member.port)
}

/// An edit that withdraws members must leave one that answers.
fn edit(members: &[Member], facts: &Facts, permission: &Permission) -> Result<Fitness, Rejection> {
    let withdrawn = withdrawn(members, facts);
    if withdrawn.is_empty() || members.iter().any(|member| is_healthy(member, facts)) {
        return Ok(Fitness::Fit);
    }
    if permission.is_open() {
        return Ok(Fitness::Permitted);
    }
    Err(Rejection::NoHealthyMember { withdrawn })
}

/// The members in force that would get no new connection any more.
fn withdrawn(members: &[Member], facts: &Facts) -> Vec<String> {
    let stays = |old: &wire::Member| {
        members
            .iter()
            .any(|new| new.state == PoolMemberState::Active && new.is_same_server(old))
    };
    let active = facts
        .current
        .members
        .iter()
        .filter(|old| old.state == wire::MemberState::Active);
    active
        .filter(|old| !stays(old))
        .map(|old| old.name.clone())
        .collect()
}
