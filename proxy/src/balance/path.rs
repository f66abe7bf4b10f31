//! One path as the balancer keeps it: an address of a member.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{
    cross_check::budget::CrossCheckBudget,
    event::Target,
    health::{Health, Progress, Reason, State},
    place::Distance,
};

/// One path for as long as this process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub(crate) u64);

/// A member for as long as this process knows a path to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberId(pub(super) u64);

/// What makes a path the same across documents, and what a proof is about: another server may answer at another address
/// of the same member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey {
    /// The member's name.
    pub member: String,
    /// The address and port.
    pub address: SocketAddr,
}

/// What the pool's owner wants of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets connections.
    Active,
    /// It gets no new ones, and its old ones are closed gradually.
    Draining,
    /// As Draining; and it is forgotten with its last connection.
    Removed,
    /// Of an earlier document: used while none of the current one's answers. Or a further endpoint: used while no member
    /// does.
    LastResort,
    /// Its owner has disabled it: as Removed, and no new connection goes there, whatever answers.
    Disabled,
}

impl Standing {
    /// Whether the document in force does not have it, so that it is forgotten with its last connection.
    pub(super) fn is_gone(self) -> bool {
        matches!(self, Self::Removed | Self::Disabled)
    }

    /// The order of the last resort: members that drain, then removed paths, then those of earlier documents. A disabled
    /// path is none of it.
    pub(super) fn resort(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Draining => 1,
            Self::Removed => 2,
            Self::LastResort => 3,
            Self::Disabled => 4,
        }
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Draining => "Draining",
            Self::Removed => "Removed",
            Self::LastResort => "LastResort",
            Self::Disabled => "Disabled",
        }
    }
}

/// One path as a table of the state shows it.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub id: PathId,
    /// The member behind it, and its address.
    pub key: PathKey,
    /// What its owner wants of it.
    pub standing: Standing,
    /// What it may get.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Whether this node ever had a verified answer from it.
    pub proven: bool,
    /// Whether it left a client waiting since its last good answer.
    pub suspect: bool,
    /// Connections and attempts it has now.
    pub connections: usize,
    /// Its place in the member's list of addresses.
    pub preference: usize,
    /// How far it is from its next change of state.
    pub progress: Progress,
}

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts of which none follows from another"
)]
pub(super) struct Path {
    pub(super) key: PathKey,
    pub(super) member: MemberId,
    pub(super) preference: usize,
    pub(super) standing: Standing,
    /// Whether it is a further endpoint: no member is known there.
    pub(super) is_further: bool,
    pub(super) proven: bool,
    pub(super) health: Health,
    pub(super) suspect: bool,
    pub(super) extra_probe: Option<Instant>,
    /// When others were last asked because it was late.
    pub(super) called: Option<Instant>,
    /// What it may still be asked because of others.
    pub(super) cross_checks: CrossCheckBudget,
    /// When it last answered a probe or a client.
    pub(super) heard: Option<Instant>,
    pub(super) moving: bool,
    pub(super) connections: usize,
    pub(super) turn: u64,
    pub(super) rank: u64,
    pub(super) distance: Distance,
}

impl Path {
    /// A path that has no connection yet and is in this health, of a member with this rank on this node.
    pub(super) fn new(
        target: Target,
        standing: Standing,
        (member, rank): (MemberId, u64),
        health: Health,
    ) -> Self {
        Self {
            key: target.key,
            member,
            preference: target.preference,
            standing,
            is_further: false,
            proven: target.proven,
            health,
            suspect: false,
            extra_probe: None,
            called: None,
            cross_checks: CrossCheckBudget::default(),
            heard: None,
            moving: false,
            connections: 0,
            turn: 0,
            rank,
            distance: target.distance,
        }
    }

    /// Whether new connections may go there, if only as a last resort. Nothing but an answer to this process makes the
    /// last resort usable: an address that a member left may be another host's by now.
    pub(super) fn is_usable(&self) -> bool {
        match self.standing {
            Standing::Active => true,
            Standing::Draining | Standing::Removed | Standing::LastResort => {
                let has_answered = self.health.is_judged() && self.heard.is_some();
                self.proven && has_answered && self.health.answers()
            }
            Standing::Disabled => false,
        }
    }

    /// Whether it gets connections whenever it is well.
    pub(super) fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    /// Whether it gets connections because of what it has answered to this process.
    pub(super) fn is_known_to_be_well(&self) -> bool {
        self.is_reference() && self.health.is_judged() && self.health.state() == State::Up
    }

    /// Whether it gets connections only while no active path answers.
    pub(super) fn is_last_resort(&self) -> bool {
        matches!(
            self.standing,
            Standing::Draining | Standing::Removed | Standing::LastResort
        )
    }

    /// Whether a member is expected to answer a new connection there, if only as a last resort.
    pub(super) fn is_member_that_answers(&self) -> bool {
        !self.is_further && self.is_usable() && self.health.answers()
    }

    /// Whether its connections are drained.
    pub(super) fn is_leaving(&self) -> bool {
        self.standing == Standing::Draining || self.standing.is_gone()
    }

    /// Whether its address is of the same family, so that the same fault of this node silences both.
    pub(super) fn shares_family(&self, other: &Self) -> bool {
        self.key.address.is_ipv4() == other.key.address.is_ipv4()
    }

    /// Whether its answers can tell of this node's network. One that has never proved itself may be a typo.
    pub(super) fn is_reference(&self) -> bool {
        self.is_active() && self.proven
    }

    pub(super) fn view(&self, id: PathId) -> View {
        View {
            id,
            key: self.key.clone(),
            standing: self.standing,
            state: self.health.state(),
            reason: self.health.reason(),
            proven: self.proven,
            suspect: self.suspect,
            connections: self.connections,
            preference: self.preference,
            progress: self.health.progress(),
        }
    }
}
