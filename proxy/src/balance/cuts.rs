//! Cuts: the connections of a silent path are reset, once another path shows that the silence is its own.
//!
//! If everybody falls silent it is this node, or its way to all of them, and cutting would only turn a hiccup into a
//! stampede. The same holds for one address family: where all IPv4 paths fall silent together, an answer by IPv6 shows
//! nothing about them. Only where a document has no other path of the family can a path of the other one tell.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Balance, Decision, PathId,
    path::{Path, Standing},
};

/// When this node cuts the connections of a silent path, spread by `chance` in 0..1: the survivors see no more
/// than about 2500 nodes reconnect in a second.
pub fn cut_delay(nodes: u32, chance: f64) -> Duration {
    let spread = (Duration::from_secs(u64::from(nodes)) / 2500).min(Duration::from_secs(2));
    spread.mul_f64(chance.clamp(0.0, 1.0))
}

impl Balance {
    /// Whose connections to cut: those of paths that are silent by themselves, once another was heard since they fell. Said
    /// again as long as a silent path has connections.
    pub(super) fn cuts(&self) -> Vec<Decision> {
        let found = self.paths.iter().filter(|(id, path)| {
            let since = path.health.silent_alone_since().filter(|_| path.connections > 0);
            since.is_some_and(|since| self.heard_beside(**id, path) > Some(since))
        });
        found.map(|(id, _)| Decision::Cut(*id)).collect()
    }

    /// When a path that can tell about this one was last heard.
    fn heard_beside(&self, id: PathId, path: &Path) -> Option<Instant> {
        let witnesses = self.witnesses(id, path);
        witnesses.filter_map(|(_, witness)| witness.heard).max()
    }

    /// The paths whose answers tell that the silence of this one is its own, and that answer.
    pub(super) fn witnesses<'a>(
        &'a self,
        id: PathId,
        path: &'a Path,
    ) -> impl Iterator<Item = (PathId, &'a Path)> {
        let others = self.paths.iter().filter(move |(other, _)| **other != id);
        let any_family = !others
            .clone()
            .any(|(_, other)| other.is_reference() && other.shares_family(path));
        let able = others.filter(move |(_, other)| {
            other.is_active() && other.health.is_answering() && (any_family || other.shares_family(path))
        });
        able.map(|(id, other)| (*id, other))
    }

    /// A path was heard: the others of its family that are overdue meanwhile are so by themselves. So are those of the
    /// other family that have no other path of their own family to tell.
    pub(super) fn hear(&mut self, id: PathId, now: Instant) {
        let Some(heard) = self.paths.get_mut(&id) else {
            return;
        };
        heard.heard = Some(now);
        if heard.standing != Standing::Active {
            return;
        }
        let is_ipv4 = heard.key.address.is_ipv4();
        let of_other_family = |path: &&Path| path.key.address.is_ipv4() != is_ipv4;
        let references = self.paths.values().filter(of_other_family);
        let references = references.filter(|path| path.is_reference()).count();
        for (other, path) in &mut self.paths {
            let is_told =
                path.key.address.is_ipv4() == is_ipv4 || references == usize::from(path.is_reference());
            if *other != id && is_told {
                path.health.hear_another(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn cuts_are_at_once_in_a_small_cluster_and_spread_in_a_large_one() {
        assert!(cut_delay(5, 1.0) <= Duration::from_millis(2));
        assert_eq!(cut_delay(5000, 1.0), 2 * SECOND);
        assert_eq!(cut_delay(50_000, 0.5), SECOND);
    }
}
