//! Cross-checks: whether it is a path's own fault that it is overdue, others can tell. In a large fleet their next probe
//! may be many seconds away, so they are probed at once where a connection is at stake. Their rate is bounded, however many
//! are overdue.

pub(super) mod budget;

use std::cmp::Reverse;

use tokio::time::Instant;

use self::budget::AT_ONCE;
use super::{Balance, Decision, PathId};

/// The cross-checks that a path which was overdue lately leaves to others: otherwise paths that are overdue again and again
/// would leave none to a path that falls.
const SPARED: u32 = 2;

/// How many paths are cross-checked when one has fallen. One that answered while it was overdue most likely answers again,
/// but may itself have failed just now.
const AFTER_A_FALL: usize = 2;

impl Balance {
    /// Probes all that can tell, because `late` is overdue and which others are silent is not known yet. `called` is when
    /// they were last probed for it.
    pub(super) fn cross_check(
        &mut self,
        late: PathId,
        called: Option<Instant>,
        now: Instant,
    ) -> Vec<Decision> {
        let earned_back = self.policy.probe_interval * AT_ONCE;
        let lately = |called: Instant| now.saturating_duration_since(called) < earned_back;
        let spared = if called.is_some_and(lately) { SPARED } else { 0 };
        let witnesses = self.witnesses_at_stake(late).into_iter();
        let called = witnesses.filter_map(|witness| self.call(witness, spared, now));
        called.collect()
    }

    /// Probes the best that can tell, because one has fallen: those that are Up, and of them those heard last.
    pub(super) fn cross_check_after_a_fall(&mut self, fallen: PathId, now: Instant) -> Vec<Decision> {
        let mut witnesses = self.witnesses_at_stake(fallen);
        witnesses.sort_by_key(|id| {
            let witness = self.paths.get(id);
            witness.map(|path| (path.health.state(), Reverse(path.heard)))
        });
        let witnesses = witnesses.into_iter();
        let called = witnesses.filter_map(|witness| self.call(witness, 0, now));
        called.take(AFTER_A_FALL).collect()
    }

    /// Probes the other paths of a member, because the one in use has fallen: new connections take the best of them, and
    /// their own next probe may be many seconds away.
    pub(super) fn probe_siblings(&self, fallen: PathId) -> Vec<Decision> {
        let Some(path) = self.paths.get(&fallen) else {
            return Vec::new();
        };
        let siblings = self.paths_of(path.member);
        let siblings = siblings.filter(|(id, sibling)| *id != fallen && sibling.is_active());
        siblings.map(|(id, _)| Decision::Probe(id)).collect()
    }

    /// Those that can tell; none where no connection is at stake.
    fn witnesses_at_stake(&self, silent: PathId) -> Vec<PathId> {
        match self.paths.get(&silent) {
            Some(path) if path.connections > 0 => {
                let witnesses = self.witnesses(silent, path);
                witnesses.map(|(id, _)| id).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Probes a witness, unless it was probed enough already.
    fn call(&mut self, witness: PathId, spared: u32, now: Instant) -> Option<Decision> {
        let interval = self.policy.probe_interval;
        let path = self.paths.get_mut(&witness)?;
        let called = path.cross_checks.spend(spared, interval, now);
        called.then_some(Decision::Probe(witness))
    }
}
