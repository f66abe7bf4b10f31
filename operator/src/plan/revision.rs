//! Numbers the documents.
//!
//! The next revision is one above the highest that was ever told for this pool, and at least the Unix time. So it is above
//! every earlier revision, also where the earlier ones are lost, as in a new cluster on old machines. A value far ahead of
//! the clock is a mistake. Counting on from it would make the mistake permanent, so it is ignored and told. The document in
//! force is the exception: proxies have it, and follow none that is lower.
//! [`super::restored`] says when the document in force is followed no longer.

use trivet_crds::wire::{Document, MAX_ADVANCE_SECONDS, MAX_REVISION};

use super::facts::{Facts, Memory};

/// What the records of a pool say about its revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The highest credible revision; 0 if there is none.
    pub highest: u64,
    /// A sentence for each record that is far ahead of the clock.
    pub notes: Vec<String>,
}

/// Reads the records.
pub fn records(facts: &Facts, memory: &Memory) -> Records {
    let mut records = Records::default();
    let told = facts.current.told.iter();
    let told = told.map(|(place, revision)| (place.as_ref(), *revision));
    for (place, revision) in told.chain([("the operator's memory", memory.revision)]) {
        if revision <= facts.unix_seconds.saturating_add(MAX_ADVANCE_SECONDS) {
            records.highest = records.highest.max(revision);
        } else if followed(facts).is_none_or(|document| document.revision != revision) {
            records.notes.push(format!(
                "revision {revision} in {place} is more than a day ahead of the operator's clock and is ignored"
            ));
        }
    }
    if let Some(document) = followed(facts).filter(|document| document.revision > records.highest) {
        records.highest = document.revision;
        records.notes.push(format!(
            "revision {} of the document in force is more than a day ahead of the operator's clock; later ones count on \
             from it, because proxies follow no lower one",
            document.revision
        ));
    }
    records
}

/// The revision of the next document.
pub fn next(facts: &Facts, records: &Records) -> u64 {
    let next = records.highest.saturating_add(1).max(facts.unix_seconds);
    next.min(MAX_REVISION)
}

/// The document in force, if proxies follow it.
pub fn followed(facts: &Facts) -> Option<&Document> {
    let document = facts.current.document.as_ref();
    document.filter(|document| document.check_revision(facts.unix_seconds).is_ok())
}
