//! Which revision the report of this node may tell.
//!
//! The operator numbers its next document above every revision that a report tells. On a host that is reused in a new cluster
//! the disk has a document of the old cluster, and that revision must not be told. So a revision is told once a source that
//! reads this cluster's API has brought a document: the one in force, or another with the same authority.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use super::{Documents, stale};
use crate::source::Source;

/// The sources that read this cluster's API, the more recent one first: the mounted ConfigMap lags behind the watch, so what it
/// has does not count once the watch has told.
const WITNESSES: [Source; 2] = [Source::Watch, Source::File];

impl Documents {
    /// The revision in force, for the report; none before the API has told which document it has, and while that one has
    /// another authority: one of the two is of another cluster, and it is not known yet which.
    pub fn witnessed_revision(&self) -> Option<u64> {
        let in_force = self.in_force()?;
        let witness = {
            let told = self.told();
            WITNESSES.into_iter().find(|source| told.contains(source))?
        };
        let authority = stale::authority(&in_force.settings);
        let stale = self.stale.borrow();
        let mut offered = stale.iter().filter(|stale| stale.source == witness);
        let is_contested = offered.any(|stale| stale::authority(&stale.settings) != authority);
        (!is_contested).then_some(in_force.settings.document.revision)
    }

    /// The source has told what it has: a valid document, or none at all.
    pub(super) fn has_told(&self, source: Source) {
        self.told().insert(source);
    }

    fn told(&self) -> MutexGuard<'_, BTreeSet<Source>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
