//! The order in which upstreams are tried for a new connection.

use std::cmp::Reverse;

use super::UpstreamId;
use super::health::{Reason, State};

/// What the choice knows of one upstream.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Which one.
    pub id: UpstreamId,
    /// Whether this node ever had a verified answer from it.
    pub proven: bool,
    /// What it may get.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Whether it is no member of the current document.
    pub last_resort: bool,
    /// Whether it left a client waiting since its last good answer.
    pub suspect: bool,
    /// Connections it has now.
    pub connections: usize,
    /// When it got its latest connection, counted in connections; 0 if never.
    pub turn: u64,
    /// Its rendezvous rank on this node.
    pub rank: u64,
}

/// All of them, the best first: proven before unproven, Up before Unready before Down, the current document's before earlier ones', then least connections, then
/// whose turn it is (short connections leave no trace in the count), in rendezvous order at first. Nobody is left out:
/// the last resort is still a resort.
pub fn order(mut facts: Vec<Facts>) -> Vec<UpstreamId> {
    let suspicion = suspicion_counts(&facts);
    facts.sort_by_key(|upstream| {
        let health = if upstream.state == State::Up {
            Reason::Answering
        } else {
            upstream.reason
        };
        (
            !upstream.proven,
            upstream.state,
            health,
            upstream.last_resort,
            suspicion && upstream.suspect,
            upstream.connections,
            upstream.turn,
            Reverse(upstream.rank),
        )
    });
    facts.into_iter().map(|upstream| upstream.id).collect()
}

/// Suspicion is soft evidence: it moves new connections only while it concerns at most half of what is Up.
fn suspicion_counts(facts: &[Facts]) -> bool {
    let up = facts.iter().filter(|upstream| upstream.state == State::Up);
    let (suspects, all) = up.fold((0, 0), |(suspects, all), upstream| {
        (suspects + usize::from(upstream.suspect), all + 1)
    });
    suspects * 2 <= all
}
