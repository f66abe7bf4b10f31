//! Members: what the paths of one member are together.

use super::{
    Balance,
    choice::Facts,
    health::{Reason, State},
    path::{MemberId, Path, PathId, Standing, View},
};

/// The path that speaks for its member, of the paths of one member: its health is the member's. A removed or disabled
/// path speaks only where there is no other.
pub fn best<'a>(paths: impl IntoIterator<Item = &'a View>) -> Option<&'a View> {
    paths
        .into_iter()
        .min_by_key(|view| (view.standing.is_gone(), view.state, view.reason, view.preference))
}

impl Balance {
    /// The health of a member: that of its best path, so that it is Up if one path is, and Down only if all are silent.
    /// None if no path to it is known.
    pub fn member_health(&self, member: &str) -> Option<(State, Reason)> {
        let paths = self.paths.values().filter(|path| path.key.member == member);
        best_health(paths)
    }

    /// The same for the member of this path.
    pub(super) fn health_of_member(&self, member: MemberId) -> Option<(State, Reason)> {
        best_health(self.paths_of(member).map(|(_, path)| path))
    }

    /// The paths to a member.
    pub(super) fn paths_of(&self, member: MemberId) -> impl Iterator<Item = (PathId, &Path)> {
        let paths = self.paths.iter().filter(move |(_, path)| path.member == member);
        paths.map(|(id, path)| (*id, path))
    }

    /// Whether a path is probed at the full rate: it has connections, or would get its member's next one, or says whether
    /// an address that is no longer in the document can still be a last resort.
    pub fn is_in_use(&self, id: PathId) -> bool {
        let Some(path) = self.paths.get(&id) else {
            return false;
        };
        let is_told_apart = match path.standing {
            Standing::Active | Standing::Draining => !path.health.is_judged(),
            Standing::Removed | Standing::LastResort => true,
            Standing::Disabled => false,
        };
        path.connections > 0 || is_told_apart || self.first_choice(path.member) == Some(id)
    }

    /// The path that a member's next connection takes.
    pub(super) fn first_choice(&self, member: MemberId) -> Option<PathId> {
        let paths = self.paths_of(member);
        let best = paths.min_by_key(|(id, path)| Facts::of(*id, path).fitness(false));
        best.map(|(id, _)| id)
    }
}

fn best_health<'a>(paths: impl Iterator<Item = &'a Path>) -> Option<(State, Reason)> {
    let best = paths
        .map(|path| {
            let health = &path.health;
            (path.standing.is_gone(), health.state(), health.reason())
        })
        .min();
    best.map(|(_, state, reason)| (state, reason))
}
