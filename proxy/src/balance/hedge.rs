//! Hedges: a client's first flight goes to a second upstream when the first one does not answer it in time.

pub mod budget;
pub mod delay;

use std::time::Duration;

use tokio::time::Instant;

use super::{Balance, PathId, health::State};

impl Balance {
    /// How long to wait for the first byte before the first flight is sent to another upstream as well.
    pub fn hedge_delay(&self, configured: Duration) -> Duration {
        self.hedge_delay.get(configured)
    }

    /// Counts an opened connection, which earns part of a hedge.
    pub fn earn_hedge(&mut self) {
        self.hedge_budget.earn();
    }

    /// Whether the first flight of a client, which no path of `asked` has answered since it was sent to the last of them,
    /// may be sent to another. That is free where they are known to be silent, or where another, proven member was heard meanwhile
    /// and none of theirs was, by whatever address; otherwise they may be slow, and it costs budget: a slow cluster must
    /// not be made slower.
    pub fn spend_hedge(&mut self, asked: &[PathId], since: Instant) -> bool {
        let members: Vec<_> = asked
            .iter()
            .filter_map(|id| self.paths.get(id))
            .map(|path| path.member)
            .collect();
        let (mut any_of_them, mut another) = (false, false);
        for path in self.paths.values() {
            let heard = path.heard.is_some_and(|heard| heard >= since);
            if members.contains(&path.member) {
                any_of_them |= heard;
            } else {
                // What answers at an unproven address may be another host.
                another |= path.proven && path.is_usable() && heard;
            }
        }
        another && !any_of_them || self.are_silent(asked) || self.hedge_budget.spend()
    }

    /// Whether all of these are silent: then a client that waits for them waits in vain.
    pub fn are_silent(&self, asked: &[PathId]) -> bool {
        asked
            .iter()
            .filter_map(|id| self.paths.get(id))
            .all(|path| path.health.state() == State::Down)
    }
}
