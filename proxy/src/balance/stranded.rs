//! Stranded upstreams: alive, but cut off from their etcd. Their connections move to others.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Balance, Decision,
    health::State,
    path::{MemberId, Path},
};

/// How long an upstream may be cut off from its etcd before its connections are moved: a change of etcd's leader or a
/// short loss of its network passes by itself, and moving costs every client its watches.
pub const MOVE_AFTER: Duration = Duration::from_secs(30);

/// The time over which they are moved, so that the last has moved within 45 s whatever the pace of the probes adds.
pub const MOVE_WITHIN: Duration = Duration::from_secs(10);

/// The least time between the moves of two upstreams: if several are cut off one after the other, their clients must not
/// be chased from one to the next.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(30);

impl Balance {
    /// Whose connections to move: those of a member that has been cut off from its etcd for long while another is well. If
    /// no other is, etcd has lost its quorum, and no client would be better off elsewhere. A member moves as a whole, one
    /// at a time.
    pub(super) fn moves(&mut self, now: Instant) -> Vec<Decision> {
        let stranded = self.stranded(now);
        let is_stranded =
            |path: &Path| stranded.contains(&path.member) && path.health.stranded_for(now).is_some();
        let mut restored = Vec::new();
        for (id, path) in &mut self.paths {
            if path.moving && !is_stranded(path) {
                path.moving = false;
                restored.push(Decision::Restore(*id));
            }
        }
        let rested = |last: Instant| now.saturating_duration_since(last) >= MOVE_INTERVAL;
        if !restored.is_empty() || !self.moved.is_none_or(rested) {
            return restored;
        }
        let movable =
            |path: &Path| path.is_active() && !path.moving && path.connections > 0 && is_stranded(path);
        let Some(member) = self
            .paths
            .values()
            .find(|path| movable(path))
            .map(|path| path.member)
        else {
            return Vec::new();
        };
        self.moved = Some(now);
        let paths = self.paths.iter_mut();
        let paths = paths.filter(|(_, path)| path.member == member && movable(path));
        paths
            .map(|(id, path)| {
                path.moving = true;
                Decision::Move(*id)
            })
            .collect()
    }

    /// The members that have been cut off from their etcd for long while another member is well. Paths of one apiserver tell
    /// the same, each as it is probed: the first that told speaks for all.
    fn stranded(&self, now: Instant) -> Vec<MemberId> {
        let long = |path: &&Path| path.health.stranded_for(now) >= Some(MOVE_AFTER);
        let is_relieved = |stranded: &&Path| {
            let well = |path: &Path| {
                path.is_active() && path.health.state() == State::Up && path.member != stranded.member
            };
            self.paths.values().any(well)
        };
        let stranded = self.paths.values().filter(long).filter(is_relieved);
        stranded.map(|path| path.member).collect()
    }
}
