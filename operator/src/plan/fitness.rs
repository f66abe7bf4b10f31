//! Judges whether a set of members may be put in force.
//!
//! An edit that leaves no healthy member is most likely a mistake, and is rejected. That takes an operator that reaches the
//! members: where a NetworkPolicy or a missing address family keeps its pod from them, every edit looks like that mistake.
//! What the proxies of most nodes see counts as what it sees itself. An operator that reaches none of the members in
//! force either, and to which no proxy reports one, cannot judge, and obeys the edits of the owner. Proxies use what answers
//! them, and the members that an edit has removed as the last resort.

use trivet_crds::pool::{MemberSource, PoolMemberState};
use trivet_crds::wire::{self, MAX_MEMBERS};

use super::facts::{Facts, Memory};
use super::members::{Member, Wanted};
use super::permission::Permission;
use super::rejection::Rejection;
use super::sight;
use crate::health::Healths;

/// A message names up to this many members.
const NAMES_LIMIT: usize = 3;

/// How members may be put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// The edit leaves a healthy member, withdraws none, or cannot be judged.
    Fit,
    /// The edit leaves no healthy member, and the owner's permission is used for it.
    Permitted,
}

/// Members that are to be put in force.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// All of them, also those that the guard has kept.
    pub members: &'a [Member],
    /// What spec and discovery ask for.
    pub wanted: &'a Wanted,
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// What the owner permits.
    pub permission: &'a Permission,
}

impl Edit<'_> {
    /// Judges the edit.
    pub fn check(&self, facts: &Facts, memory: &Memory) -> Result<Fitness, Rejection> {
        let fitness = self.withdrawal(facts, memory)?;
        let used = |member: &&Member| member.state != PoolMemberState::Disabled;
        match self.members.iter().filter(used).count() {
            0 => Err(Rejection::NoMembers {
                notes: self.wanted.notes.clone(),
            }),
            found if found > MAX_MEMBERS => Err(Rejection::TooManyMembers { found }),
            _ => Ok(fitness),
        }
    }

    /// An edit that withdraws members must leave one that answers.
    fn withdrawal(&self, facts: &Facts, memory: &Memory) -> Result<Fitness, Rejection> {
        let withdrawn = self.withdrawn(facts);
        if withdrawn.is_empty() || self.members.iter().any(|member| is_healthy(member, facts)) {
            return Ok(Fitness::Fit);
        }
        // An edit that has been judged is not obeyed later, only because the operator loses sight of the members.
        let is_judged = self.generation.is_some() && memory.judged == self.generation;
        let is_owners = withdrawn.iter().all(|old| !self.is_moved_by_discovery(old));
        if is_owners && !is_judged && sight::is_blind(facts) {
            return Ok(Fitness::Fit);
        }
        if self.permission.is_open() {
            return Ok(Fitness::Permitted);
        }
        Err(Rejection::NoHealthyMember {
            withdrawn: withdrawn.iter().map(|old| old.name.clone()).collect(),
        })
    }

    /// The members in force that would get no new connection any more, and those that were ready and would lose the address
    /// at which they are.
    fn withdrawn<'a>(&self, facts: &'a Facts) -> Vec<&'a wire::Member> {
        let healths = &facts.healths;
        let is_as_ready = |new: &Member, old: &wire::Member| {
            healths.is_up(&new.addresses, new.port) || !healths.is_up(&old.addresses, old.port)
        };
        let stays = |old: &wire::Member| {
            let mut active = self.members.iter();
            active.any(|new| {
                new.state == PoolMemberState::Active && new.is_same_server(old) && is_as_ready(new, old)
            })
        };
        let members = facts.current.members.iter();
        members
            .filter(|old| old.state == wire::MemberState::Active && !stays(old))
            .collect()
    }

    /// Whether it is discovery that says that `old` has other addresses now.
    fn is_moved_by_discovery(&self, old: &wire::Member) -> bool {
        self.members.iter().any(|new| {
            new.source != MemberSource::Spec
                && new.name == old.name
                && new.port == old.port
                && !new.is_same_server(old)
        })
    }
}

/// Whether this member is active and Up, as seen from the operator or from most nodes.
pub fn is_healthy(member: &Member, facts: &Facts) -> bool {
    member.state == PoolMemberState::Active && facts.healths.is_up(&member.addresses, member.port)
}

/// Why the operator reaches none of the active members, by name. `None` if it reaches one, or if there is none.
pub fn unreached(members: &[Member], healths: &Healths) -> Option<String> {
    let is_active = |member: &&Member| member.state == PoolMemberState::Active;
    let active: Vec<_> = members.iter().filter(is_active).collect();
    let mut reached = active.iter();
    if active.is_empty() || reached.any(|member| healths.is_reached(&member.addresses, member.port)) {
        return None;
    }
    let why = |member: &&Member| {
        let health = healths.of(&member.addresses, member.port);
        let message = health.map_or("it has not been probed yet", |health| &health.message);
        format!("{}: {message}", member.name)
    };
    let named: Vec<_> = active.iter().take(NAMES_LIMIT).map(why).collect();
    let more = match active.len().saturating_sub(NAMES_LIMIT) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(format!("{}{more}", named.join("; ")))
}
