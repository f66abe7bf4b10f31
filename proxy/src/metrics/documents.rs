//! Metrics of documents and listeners.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Metrics;
use crate::source::Source;

/// A metric of one listener address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: String,
}

/// A metric of another program on a listener's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StrangerLabels {
    listener: String,
    program: String,
}

/// A metric by source of documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// A metric of rejected documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    source: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DocumentMetrics {
    revision: Gauge,
    applied: Gauge<f64, AtomicU64>,
    source: Family<SourceLabel, Gauge>,
    rejected: Family<RejectionLabels, Counter>,
    watch_event: Gauge<f64, AtomicU64>,
    listener_bound: Family<ListenerLabel, Gauge>,
    listener_fault: Family<ListenerLabel, Gauge>,
    listener_stranger: Family<StrangerLabels, Gauge>,
}

impl DocumentMetrics {
    pub(super) fn register(&self, root: &mut Registry) {
        root.register(
            "document_revision",
            "Revision of the document in force",
            self.revision.clone(),
        );
        root.register(
            "document_applied_timestamp_seconds",
            "Unix time at which the document came into force in this process",
            self.applied.clone(),
        );
        root.register(
            "document_source",
            "1 for the source of the document in force",
            self.source.clone(),
        );
        root.register(
            "documents_refused",
            "Documents that were rejected, by source and reason; the one in force stayed",
            self.rejected.clone(),
        );
        root.register(
            "watch_last_event_timestamp_seconds",
            "Unix time at which the ConfigMap's watch last started or brought an event or a bookmark; 0 before the first",
            self.watch_event.clone(),
        );
        root.register(
            "listener_bound",
            "1 if the proxy listens on the address, 0 if it should but cannot",
            self.listener_bound.clone(),
        );
        root.register(
            "listener_fault",
            "1 while the proxy does not hold the address alone, 0 also where the node lacks the address",
            self.listener_fault.clone(),
        );
        root.register(
            "listener_stranger",
            "1 while another program listens on the address of a listener",
            self.listener_stranger.clone(),
        );
    }
}

impl Metrics {
    /// A document came into force.
    pub fn document_applied(&self, revision: u64, by: Source) {
        let documents = &self.documents;
        documents
            .revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        documents.applied.set(unix_time());
        for source in Source::ALL {
            let label = SourceLabel {
                source: source.as_str(),
            };
            documents
                .source
                .get_or_create(&label)
                .set(i64::from(source == by));
        }
    }

    /// The watch of the ConfigMap started, or brought an event or a bookmark.
    pub fn watch_event(&self) {
        self.documents.watch_event.set(unix_time());
    }

    /// A document was rejected.
    pub fn document_rejected(&self, source: Source, reason: &'static str) {
        self.documents
            .rejected
            .get_or_create(&RejectionLabels {
                source: source.as_str(),
                reason,
            })
            .inc();
    }

    /// The proxy listens on an address, or should and cannot.
    pub fn listener(&self, address: &str, bound: bool) {
        self.documents
            .listener_bound
            .get_or_create(&ListenerLabel {
                listener: address.to_owned(),
            })
            .set(i64::from(bound));
    }

    /// Something is wrong with a listener's address, or not.
    pub fn listener_fault(&self, address: &str, is_faulty: bool) {
        self.documents
            .listener_fault
            .get_or_create(&ListenerLabel {
                listener: address.to_owned(),
            })
            .set(i64::from(is_faulty));
    }

    /// Another program listens on the address of a listener.
    pub fn stranger(&self, address: &str, program: &str) {
        self.documents
            .listener_stranger
            .get_or_create(&StrangerLabels {
                listener: address.to_owned(),
                program: program.to_owned(),
            })
            .set(1);
    }

    /// The other program no longer listens there.
    pub fn stranger_gone(&self, address: &str, program: &str) {
        self.documents.listener_stranger.remove(&StrangerLabels {
            listener: address.to_owned(),
            program: program.to_owned(),
        });
    }

    /// The address is no longer a listener.
    pub fn listener_gone(&self, address: &str) {
        let label = ListenerLabel {
            listener: address.to_owned(),
        };
        self.documents.listener_bound.remove(&label);
        self.documents.listener_fault.remove(&label);
    }
}

/// A clock before 1970 reads as 0.
fn unix_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
