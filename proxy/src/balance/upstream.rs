//! One upstream as the balancer keeps it.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{
    Identity, Standing, UpstreamId,
    choice::Facts,
    cross_check::CrossCheckBudget,
    health::{Health, Progress, Reason, State},
    place::Distance,
};

impl Standing {
    /// The order of the last resort: members that drain, then removed ones, then those of earlier documents.
    fn resort(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Draining => 1,
            Self::Removed => 2,
            Self::LastResort => 3,
        }
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Draining => "Draining",
            Self::Removed => "Removed",
            Self::LastResort => "LastResort",
        }
    }
}

/// One upstream as a table of the state shows it.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub id: UpstreamId,
    /// The member behind it.
    pub identity: Identity,
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
    /// Which of its addresses is dialled first.
    pub address: Option<SocketAddr>,
    /// How far it is from its next change of state.
    pub progress: Progress,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) identity: Identity,
    pub(super) standing: Standing,
    pub(super) proven: bool,
    pub(super) health: Health,
    pub(super) suspect: bool,
    pub(super) extra_probe: Option<Instant>,
    /// When the others were last asked because it was late.
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

impl Upstream {
    /// Whether new connections may go there, if only as a last resort. Nothing but an answer to this process makes the
    /// last resort usable: an address that a member left may be another host's by now.
    pub(super) fn is_usable(&self) -> bool {
        match self.standing {
            Standing::Active => true,
            Standing::Draining | Standing::Removed | Standing::LastResort => {
                self.proven && self.health.is_judged() && self.health.answers()
            }
        }
    }

    /// Whether it gets connections only while no member that is to be used answers.
    pub(super) fn is_last_resort(&self) -> bool {
        self.standing != Standing::Active
    }

    /// Whether its connections are drained.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.standing, Standing::Draining | Standing::Removed)
    }

    pub(super) fn preferred(&self) -> Option<SocketAddr> {
        self.health
            .via()
            .or_else(|| self.identity.addresses.first().copied())
    }

    pub(super) fn facts(&self, id: UpstreamId) -> Facts {
        Facts {
            id,
            proven: self.proven,
            state: self.health.state(),
            reason: self.health.reason(),
            resort: self.standing.resort(),
            suspect: self.suspect,
            distance: self.distance,
            connections: self.connections,
            turn: self.turn,
            rank: self.rank,
        }
    }

    pub(super) fn view(&self, id: UpstreamId) -> View {
        View {
            id,
            identity: self.identity.clone(),
            standing: self.standing,
            state: self.health.state(),
            reason: self.health.reason(),
            proven: self.proven,
            suspect: self.suspect,
            connections: self.connections,
            address: self.preferred(),
            progress: self.health.progress(),
        }
    }
}
