//! The last resort: paths that get connections only while none that is to be used answers. In order: those of members that
//! drain, removed ones whose connections still drain, and those of earlier documents. While none of these answers either,
//! the further endpoints are tried.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Balance, Decision, PathId, Target,
    path::{Path, Standing},
};

/// How long nothing must have answered before the further endpoints are tried. A restart of all apiservers takes longer, and
/// does no harm; a burst of loss takes less, and a fleet must not ask addresses for it that nobody has made members.
pub const FURTHER_AFTER: Duration = Duration::from_secs(5);

impl Balance {
    /// Whether no member that is to be used answers. One that was never judged may, and is waited for while it can be asked.
    pub(super) fn needs_last_resort(&self) -> bool {
        let mut active = self.paths.values().filter(|path| path.is_active());
        !active.any(|path| path.health.may_answer())
    }

    /// Whether a member of the last resort is being probed for the first time: a new connection waits for the outcome
    /// rather than be refused.
    pub fn awaits_last_resort(&self) -> bool {
        let mut paths = self.paths.values();
        self.needs_last_resort() && paths.any(|path| path.is_last_resort() && path.health.is_awaited())
    }

    /// Turns to the last resort as soon as no member that is to be used answers, and away from it as soon as one does:
    /// the document may be out of date after a long absence, and any apiserver of the cluster has the newest one. Called
    /// with what a path just did.
    pub(super) fn follow_last_resort(&mut self, id: PathId, answered: bool, now: Instant) -> Vec<Decision> {
        if self.is_served() {
            self.unserved_since = None;
        }
        let is_active = self.paths.get(&id).is_some_and(Path::is_active);
        if answered && is_active {
            self.leave_last_resort()
        } else if self.needs_last_resort() {
            self.take_last_resort(now)
        } else {
            Vec::new()
        }
    }

    /// Tries the further endpoints once nothing has answered for [`FURTHER_AFTER`].
    pub(super) fn look_further(&mut self, now: Instant) -> Vec<Decision> {
        if self.is_served() {
            self.unserved_since = None;
            return Vec::new();
        }
        let since = *self.unserved_since.get_or_insert(now);
        if now.saturating_duration_since(since) < FURTHER_AFTER {
            return Vec::new();
        }
        let further = std::mem::take(&mut self.further);
        let decisions = self.resort_to(&further, now);
        self.further = further;
        decisions
    }

    /// Whether some path may serve a new connection.
    fn is_served(&self) -> bool {
        let mut paths = self.paths.values();
        !self.needs_last_resort() || paths.any(|path| path.is_last_resort() && path.is_usable())
    }

    /// Adds these to the last resort, but for the disabled ones.
    fn resort_to(&mut self, targets: &[Target], now: Instant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for target in targets {
            if self.disabled.has(&target.key) {
                continue;
            }
            match self.find(&target.key) {
                None => decisions.extend(self.add(target.clone(), Standing::LastResort, now)),
                Some(id) if self.is_removed(id) => decisions.extend(self.stand(id, Standing::LastResort)),
                Some(_) => {}
            }
        }
        decisions
    }

    fn take_last_resort(&mut self, now: Instant) -> Vec<Decision> {
        let earlier = std::mem::take(&mut self.earlier);
        let mut decisions = self.resort_to(&earlier, now);
        self.earlier = earlier;
        // To close the connections of the last members that answer would gain nothing.
        for (id, path) in &self.paths {
            if path.standing == Standing::Draining && path.connections > 0 {
                self.drain_again.insert(*id);
                decisions.push(Decision::Restore(*id));
            }
        }
        decisions
    }

    fn leave_last_resort(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let resorts = self.paths.iter();
        let resorts = resorts.filter(|(_, path)| path.standing == Standing::LastResort);
        for id in resorts.map(|(id, _)| *id).collect::<Vec<_>>() {
            decisions.extend(self.stand(id, Standing::Removed));
            decisions.extend(self.forget(id));
        }
        for id in std::mem::take(&mut self.drain_again) {
            let path = self.paths.get(&id);
            if path.is_some_and(|path| path.is_leaving() && path.connections > 0) {
                decisions.push(Decision::Drain(id));
            }
        }
        decisions
    }

    fn is_removed(&self, id: PathId) -> bool {
        let removed = |path: &Path| path.standing == Standing::Removed;
        self.paths.get(&id).is_some_and(removed)
    }
}
