//! Conditions that last and that somebody should mend. Each is logged once when it begins and once when it ends, and is in
//! the status meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::source::Source;

/// What a warning is about. There is at most one warning per topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The cache directory cannot be read.
    CacheRead,
    /// A document in the cache cannot be followed, and no newer one can.
    CacheContent,
    /// The cache directory cannot be written.
    CacheWrite,
    /// systemd passed sockets that are no listeners of the document.
    PassedSockets,
    /// The proxies of this node cannot hand over to each other.
    Handover,
    /// The metrics address cannot be bound.
    Metrics,
    /// There is no file left.
    Files,
    /// A source offers a document that is not followed for its revision.
    Document(Source),
}

/// A condition that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// One fixed word.
    pub reason: &'static str,
    /// What is wrong, and the way out.
    pub message: String,
    /// When it began.
    pub since: Instant,
}

/// All conditions that last now.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<BTreeMap<Topic, Warning>>);

impl Warnings {
    /// The condition exists. Logs it unless it is known already.
    pub fn raise(&self, topic: Topic, reason: &'static str, message: String) {
        let mut warnings = self.lock();
        let since = match warnings.get(&topic) {
            Some(known) if known.reason == reason && known.message == message => return,
            Some(known) if known.reason == reason => known.since,
            Some(_) | None => Instant::now(),
        };
        warn!(reason, detail = message, "this needs attention");
        warnings.insert(
            topic,
            Warning {
                reason,
                message,
                since,
            },
        );
    }

    /// The condition does not exist, or no longer.
    pub fn clear(&self, topic: Topic) {
        if let Some(Warning { reason, .. }) = self.lock().remove(&topic) {
            info!(reason, "this needs no attention any more");
        }
    }

    /// All of them, in the order of their topics.
    pub fn all(&self) -> Vec<Warning> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Topic, Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_lasts_until_it_is_cleared_and_each_topic_has_one() {
        let warnings = Warnings::default();
        let reasons = || {
            let all = warnings.all().into_iter();
            all.map(|warning| (warning.reason, warning.message))
                .collect::<Vec<_>>()
        };
        warnings.clear(Topic::CacheWrite);
        warnings.raise(Topic::CacheWrite, "CacheUnwritable", "full".to_owned());
        warnings.raise(Topic::CacheWrite, "CacheUnwritable", "read-only".to_owned());
        warnings.raise(Topic::Document(Source::File), "OlderRevision", "1".to_owned());
        assert_eq!(
            reasons(),
            [
                ("CacheUnwritable", "read-only".to_owned()),
                ("OlderRevision", "1".to_owned())
            ]
        );
        warnings.clear(Topic::CacheWrite);
        assert_eq!(reasons(), [("OlderRevision", "1".to_owned())]);
    }
}
