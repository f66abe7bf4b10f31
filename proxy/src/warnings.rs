//! Conditions that last and that somebody should mend. Each is logged once when it begins and once when it ends, and is in
//! the status meanwhile.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{metrics::Metrics, source::Source};

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
    /// An address of the node cannot be bound for the metrics.
    NodeMetrics(IpAddr),
    /// Nobody can be asked who may read the metrics at the node's addresses.
    Scrapers,
    /// There is no file left.
    Files,
    /// The API denies the ConfigMap.
    Watch,
    /// No member answers.
    Service,
    /// No server of an extra listener answers.
    ExtraListeners,
    /// The document has listeners of a kind that this release does not know.
    ListenerKinds,
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
pub struct Warnings {
    all: Mutex<BTreeMap<Topic, Warning>>,
    metrics: Arc<Metrics>,
}

impl Warnings {
    /// None yet. `metrics` show which there are.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            all: Mutex::default(),
            metrics,
        }
    }

    /// The condition exists. Logs it unless it is known already.
    pub fn raise(&self, topic: Topic, reason: &'static str, message: String) {
        let mut warnings = self.lock();
        let since = match warnings.get(&topic) {
            Some(known) if known.reason == reason && known.message == message => return,
            Some(known) if known.reason == reason => known.since,
            Some(_) | None => Instant::now(),
        };
        warn!(reason, detail = message, "this needs attention");
        let warning = Warning {
            reason,
            message,
            since,
        };
        if let Some(before) = warnings.insert(topic, warning) {
            self.show(before.reason, &warnings);
        }
        self.show(reason, &warnings);
    }

    /// The condition does not exist, or no longer.
    pub fn clear(&self, topic: Topic) {
        let mut warnings = self.lock();
        if let Some(Warning { reason, .. }) = warnings.remove(&topic) {
            info!(reason, "this needs no attention any more");
            self.show(reason, &warnings);
        }
    }

    /// All of them, in the order of their topics.
    pub fn all(&self) -> Vec<Warning> {
        self.lock().values().cloned().collect()
    }

    /// Two topics may have one reason.
    fn show(&self, reason: &'static str, warnings: &BTreeMap<Topic, Warning>) {
        let lasts = warnings.values().any(|warning| warning.reason == reason);
        self.metrics.warning(reason, lasts);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Topic, Warning>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_reason_is_shown_for_as_long_as_one_topic_has_it() {
        let metrics = Arc::new(Metrics::default());
        let warnings = Warnings::new(Arc::clone(&metrics));
        let shown = |reason: &str| {
            let text = crate::metrics::encode(&metrics.registry());
            text.contains(&format!("trivet_proxy_warning{{reason=\"{reason}\"}} 1"))
        };
        warnings.raise(Topic::Document(Source::File), "OlderRevision", "1".to_owned());
        warnings.raise(Topic::Document(Source::Watch), "OlderRevision", "1".to_owned());
        warnings.clear(Topic::Document(Source::File));
        assert!(shown("OlderRevision"));
        warnings.raise(Topic::Document(Source::Watch), "SameRevision", "2".to_owned());
        assert!(shown("SameRevision") && !shown("OlderRevision"));
        warnings.clear(Topic::Document(Source::Watch));
        assert!(!shown("SameRevision"));
    }
}
