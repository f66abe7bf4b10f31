//! The last resort: paths that get connections only while none that is to be used answers. In order: those of members that
//! drain, removed ones whose connections still drain, and those of earlier documents. While none of these answers either,
//! the further endpoints are tried: addresses where no member is known. They are left as soon as any member answers.

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
        if self.may_be_served() {
            self.unserved_since = None;
        }
        let heard = self.paths.get(&id).filter(|_| answered);
        let is_active = heard.is_some_and(Path::is_active);
        let mut decisions = Vec::new();
        if heard.is_some_and(Path::is_member_that_answers) {
            decisions.extend(self.leave(self.resorts(|path| path.is_further)));
        }
        if is_active {
            decisions.extend(self.leave_last_resort());
        } else if self.needs_last_resort() {
            decisions.extend(self.take_last_resort(now));
        }
        decisions
    }

    /// Tries the further endpoints once nothing has answered for [`FURTHER_AFTER`].
    pub(super) fn look_further(&mut self, now: Instant) -> Vec<Decision> {
        if self.may_be_served() {
            self.unserved_since = None;
            return Vec::new();
        }
        let since = *self.unserved_since.get_or_insert(now);
        if now.saturating_duration_since(since) < FURTHER_AFTER {
            return Vec::new();
        }
        let further = std::mem::take(&mut self.further);
        let decisions = self.resort_to(&further, true, now);
        self.further = further;
        decisions
    }

    /// Takes in which further endpoints there are now, and leaves those that are none of them any more.
    pub(super) fn know_further(&mut self, further: Vec<Target>) -> Vec<Decision> {
        self.further = further;
        let is_known = |path: &Path| self.further.iter().any(|target| target.key == path.key);
        let gone = self.resorts(|path| path.is_further && !is_known(path));
        self.leave(gone)
    }

    /// Whether new connections may go there now, if only as a last resort.
    pub(super) fn may_dial(&self, path: &Path) -> bool {
        path.is_usable() && !(path.is_further && self.has_member_that_answers())
    }

    fn has_member_that_answers(&self) -> bool {
        self.paths.values().any(Path::is_member_that_answers)
    }

    /// Whether a member may answer a new connection, if only as a last resort.
    fn may_be_served(&self) -> bool {
        !self.needs_last_resort() || self.has_member_that_answers()
    }

    /// Adds these to the last resort, but for the disabled ones.
    fn resort_to(&mut self, targets: &[Target], are_further: bool, now: Instant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for target in targets {
            if self.disabled.has(&target.key) {
                continue;
            }
            let id = match self.find(&target.key) {
                None => {
                    let id = PathId(self.next);
                    decisions.extend(self.add(target.clone(), Standing::LastResort, now));
                    id
                }
                Some(id) => {
                    if self.is_removed(id) {
                        decisions.extend(self.stand(id, Standing::LastResort));
                    }
                    id
                }
            };
            self.count_as_further(id, are_further);
        }
        decisions
    }

    fn take_last_resort(&mut self, now: Instant) -> Vec<Decision> {
        let earlier = std::mem::take(&mut self.earlier);
        let mut decisions = self.resort_to(&earlier, false, now);
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
        let mut decisions = self.leave(self.resorts(|_| true));
        for id in std::mem::take(&mut self.drain_again) {
            let path = self.paths.get(&id);
            if path.is_some_and(|path| path.is_leaving() && path.connections > 0) {
                decisions.push(Decision::Drain(id));
            }
        }
        decisions
    }

    /// Those paths of earlier documents and further endpoints that are in use and such.
    fn resorts(&self, is_such: impl Fn(&Path) -> bool) -> Vec<PathId> {
        let resorts = self.paths.iter();
        let resorts = resorts.filter(|(_, path)| path.standing == Standing::LastResort && is_such(path));
        resorts.map(|(id, _)| *id).collect()
    }

    /// Gives these no new connections any more.
    fn leave(&mut self, resorts: Vec<PathId>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for id in resorts {
            decisions.extend(self.stand(id, Standing::Removed));
            decisions.extend(self.forget(id));
        }
        decisions
    }

    /// Notes whether a path that the document in force does not have is a further endpoint.
    pub(super) fn count_as_further(&mut self, id: PathId, is_further: bool) {
        let path = self.paths.get_mut(&id);
        if let Some(path) =
            path.filter(|path| matches!(path.standing, Standing::Removed | Standing::LastResort))
        {
            path.is_further = is_further;
        }
    }

    fn is_removed(&self, id: PathId) -> bool {
        let removed = |path: &Path| path.standing == Standing::Removed;
        self.paths.get(&id).is_some_and(removed)
    }
}
