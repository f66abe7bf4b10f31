//! What is different where the objects of a pool have come back from a backup, with etcd or alone.
//!
//! Proxies that follow a later document ignore the one of the backup. So it gets a new revision, though it asks the same.

use std::borrow::Cow;

use trivet_crds::wire::Document;

use super::facts::Facts;
use super::revision::{self, Records};
use super::wave::WaveFacts;

/// By how much the clock of the API server may be ahead of the operator's. A larger difference costs one more document.
const SKEW_SECONDS: u64 = 10;

/// Whether this document in force is one of a backup. Either something tells of a later one, or the ConfigMap was created
/// after its document was numbered.
pub fn is_of_backup(document: &Document, facts: &Facts, records: &Records) -> bool {
    let numbered_by = document.revision.saturating_add(SKEW_SECONDS);
    document.revision < records.highest || numbered_by < facts.current.created
}

/// The document in force, if it may stay where it asks what it should.
pub fn lasting<'a>(facts: &'a Facts, records: &Records) -> Option<&'a Document> {
    revision::followed(facts).filter(|document| !is_of_backup(document, facts, records))
}

/// What the waves of a rollout depend on. The times in the notes of a backup are of the past, and a rollout that was under way
/// then would look as if it had made no progress since: it goes on from now.
pub fn waves<'a>(facts: &'a Facts, records: &Records) -> Cow<'a, WaveFacts> {
    let mut document = revision::followed(facts).into_iter();
    let is_restored = document.any(|document| is_of_backup(document, facts, records));
    if !is_restored || facts.waves.record.since == 0 {
        return Cow::Borrowed(&facts.waves);
    }
    let mut waves = facts.waves.clone();
    waves.record.since = waves.now;
    waves.record.ready_since = 0;
    Cow::Owned(waves)
}
