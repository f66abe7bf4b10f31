//! Membership: which paths there are, by the document in force.
//!
//! A path stays the same as long as its member's name, address and port do. So a member that gets another address, or its
//! addresses in another order, keeps its connections; only those to an address that is gone are drained.

use tokio::time::Instant;

use super::{
    Balance, Decision, PathId, PathKey, Target,
    health::Health,
    path::{MemberId, Path, Standing},
    place::Distance,
    rank,
};

impl Balance {
    /// Puts the paths of a document in force.
    pub(super) fn configure(&mut self, targets: Vec<Target>, now: Instant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let gone: Vec<_> = self
            .paths
            .iter()
            .filter(|(_, path)| !targets.iter().any(|target| target.key == path.key))
            .filter(|(_, path)| !self.stays_further(path))
            .map(|(id, path)| (*id, self.standing_of_gone(&path.key)))
            .collect();
        for (id, standing) in gone {
            decisions.extend(self.stand(id, standing));
            decisions.extend(self.forget(id));
        }
        for target in targets {
            let standing = if target.draining {
                Standing::Draining
            } else {
                Standing::Active
            };
            match self.find(&target.key) {
                Some(id) => {
                    self.place(id, &target);
                    decisions.extend(self.stand(id, standing));
                }
                None => decisions.extend(self.add(target, standing, now)),
            }
        }
        decisions
    }

    /// A further endpoint may be all that serves, and a document is followed by word of which there are now.
    fn stays_further(&self, path: &Path) -> bool {
        path.is_further && path.standing == Standing::LastResort && !self.disabled.has(&path.key)
    }

    fn standing_of_gone(&self, key: &PathKey) -> Standing {
        if self.disabled.has(key) {
            Standing::Disabled
        } else {
            Standing::Removed
        }
    }

    pub(super) fn find(&self, key: &PathKey) -> Option<PathId> {
        let found = self.paths.iter().find(|(_, path)| path.key == *key);
        found.map(|(id, _)| *id)
    }

    /// The path of a connection that another process of this node has opened. One that this process does not know was removed.
    pub fn adopt(&mut self, key: &PathKey, proven: bool, now: Instant) -> (PathId, Vec<Decision>) {
        if let Some(known) = self.find(key) {
            return (known, Vec::new());
        }
        let id = PathId(self.next);
        let target = Target {
            key: key.clone(),
            preference: 0,
            draining: true,
            proven,
            distance: Distance::Elsewhere,
        };
        let decisions = self.add(target, self.standing_of_gone(key), now);
        self.count_as_further(id, self.further.iter().any(|further| further.key == *key));
        (id, decisions)
    }

    /// A member may get another zone or another order of its addresses, and a pool another policy, and its paths stay.
    fn place(&mut self, id: PathId, target: &Target) {
        if let Some(path) = self.paths.get_mut(&id) {
            path.distance = target.distance;
            path.preference = target.preference;
            path.is_further = false;
        }
    }

    pub(super) fn add(&mut self, target: Target, standing: Standing, now: Instant) -> Vec<Decision> {
        let id = PathId(self.next);
        self.next += 1;
        let key = target.key.clone();
        let member = self.member(&key.member, id);
        let rank = rank::rank(&self.node, &key.member);
        // It may be a master that was taken out to be restarted. What this node remembers of it is trusted only where nothing
        // better is known.
        let is_trusted = target.proven && !self.paths.values().any(Path::is_known_to_be_well);
        let health = Health::new(is_trusted, now);
        self.paths
            .insert(id, Path::new(target, standing, (member, rank), health));
        vec![Decision::Watch(id, key)]
    }

    /// The member that other paths of this name belong to; a new one if `first` is its first. The number of a path is never
    /// given twice, so neither is that of a member.
    fn member(&self, name: &str, first: PathId) -> MemberId {
        let sibling = self.paths.values().find(|path| path.key.member == name);
        sibling.map_or(MemberId(first.0), |path| path.member)
    }

    pub(super) fn stand(&mut self, id: PathId, standing: Standing) -> Option<Decision> {
        let path = self.paths.get_mut(&id)?;
        let before = std::mem::replace(&mut path.standing, standing);
        path.moving &= standing == Standing::Active;
        match (before, standing) {
            (
                Standing::Active | Standing::LastResort,
                Standing::Draining | Standing::Removed | Standing::Disabled,
            ) => Some(Decision::Drain(id)),
            (
                Standing::Draining | Standing::Removed | Standing::Disabled,
                Standing::Active | Standing::LastResort,
            ) => Some(Decision::Restore(id)),
            // Its drain may have paused because no other member answered.
            (Standing::Draining | Standing::Removed, Standing::Disabled) => {
                self.drain_again.remove(&id).then_some(Decision::Drain(id))
            }
            (Standing::Active | Standing::LastResort, Standing::Active | Standing::LastResort)
            | (Standing::Draining | Standing::Removed, Standing::Draining | Standing::Removed)
            | (Standing::Disabled, Standing::Draining | Standing::Removed | Standing::Disabled) => None,
        }
    }

    /// Forgets a removed or disabled path once it has no connection.
    pub(super) fn forget(&mut self, id: PathId) -> Vec<Decision> {
        let over = |path: &Path| path.standing.is_gone() && path.connections == 0;
        if !self.paths.get(&id).is_some_and(over) {
            return Vec::new();
        }
        let forgotten = self.paths.remove(&id);
        forgotten
            .map(|path| Decision::Forget(id, path.key))
            .into_iter()
            .collect()
    }
}
