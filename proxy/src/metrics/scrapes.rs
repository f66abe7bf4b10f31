//! Metrics of who asks for the metrics at the node's addresses, and of what this proxy warns of.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Metrics, ReasonLabel};

/// A metric by answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ScrapeMetrics {
    answers: Family<AnswerLabel, Counter>,
    warnings: Family<ReasonLabel, Gauge>,
}

impl ScrapeMetrics {
    pub(super) fn register(&self, root: &mut Registry) {
        root.register(
            "scrapes",
            "Requests for metrics at the node's addresses, by answer",
            self.answers.clone(),
        );
        root.register(
            "warning",
            "1 while the proxy warns of something that lasts, by reason",
            self.warnings.clone(),
        );
    }
}

impl Metrics {
    /// A request for metrics at an address of the node got this answer, one fixed word.
    pub fn scraped(&self, answer: &'static str) {
        self.scrapes.answers.get_or_create(&AnswerLabel { answer }).inc();
    }

    /// The proxy warns of this from now on, or no longer.
    pub fn warning(&self, reason: &'static str, lasts: bool) {
        let label = ReasonLabel { reason };
        if lasts {
            self.scrapes.warnings.get_or_create(&label).set(1);
        } else {
            self.scrapes.warnings.remove(&label);
        }
    }
}
