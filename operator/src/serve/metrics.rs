//! The operator's metrics, at `/metrics`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Family<PoolLabel, Counter>,
    failures: Family<PoolReasonLabels, Counter>,
    durations: Histogram,
    watch_errors: Family<KindLabel, Counter>,
    last_events: Arc<LastEvents>,
    refused: Family<PoolReasonLabels, Counter>,
    revisions: Family<PoolLabel, Gauge>,
    leads: Gauge,
    leader_transitions: Counter,
    fenced: Family<ReasonLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolReasonLabels {
    pool: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("trivet_operator"),
            passes: Family::default(),
            failures: Family::default(),
            // 5 ms to 10 s: a pass is a few calls to the API server.
            durations: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            watch_errors: Family::default(),
            last_events: Arc::default(),
            refused: Family::default(),
            revisions: Family::default(),
            leads: Gauge::default(),
            leader_transitions: Counter::default(),
            fenced: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Counts a pass over `pool` that took `took`, and the reason word if it failed.
    pub fn passed(&self, pool: &str, took: Duration, failure: Option<&'static str>) {
        self.passes
            .get_or_create(&PoolLabel {
                pool: pool.to_owned(),
            })
            .inc();
        self.durations.observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.failures.get_or_create(&labels(pool, reason)).inc();
        }
    }

    /// Counts a failure of the watch of this kind.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }

    /// Records that the watch of this kind has brought an event.
    pub fn watch_moved(&self, kind: &'static str, now: Instant) {
        self.last_events
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind, now);
    }

    /// Counts a spec, or a removal by discovery, that is refused.
    pub fn refused(&self, pool: &str, reason: &str) {
        self.refused.get_or_create(&labels(pool, reason)).inc();
    }

    /// Records the revision of the document in force.
    pub fn revision(&self, pool: &str, revision: u64) {
        let gauge = self
            .revisions
            .get_or_create(&PoolLabel {
                pool: pool.to_owned(),
            })
            .clone();
        gauge.set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    /// Drops the gauges of a pool that no longer exists.
    pub fn forget(&self, pool: &str) {
        self.revisions.remove(&PoolLabel {
            pool: pool.to_owned(),
        });
    }

    /// Records whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// Counts that the Lease has another holder.
    pub fn leader_changed(&self) {
        self.leader_transitions.inc();
    }

    /// Counts a write that an operator must not send, or that was too late.
    pub fn fenced(&self, reason: &'static str) {
        self.fenced.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn to_text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("reconciles", "Passes over pools", self.passes.clone());
        registry.register(
            "reconcile_errors",
            "Failed passes over pools, by reason",
            self.failures.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of passes over pools",
            self.durations.clone(),
        );
        registry.register(
            "watch_errors",
            "Watches that failed and were started again",
            self.watch_errors.clone(),
        );
        registry.register(
            "refusals",
            "Refused specs and refused removals, by reason",
            self.refused.clone(),
        );
        registry.register(
            "document_revision",
            "Revision of each pool's wire document",
            self.revisions.clone(),
        );
        registry.register(
            "leader",
            "1 for the operator that leads, 0 for one that watches",
            self.leads.clone(),
        );
        registry.register(
            "leader_transitions",
            "Changes of the holder of the Lease that this operator has seen",
            self.leader_transitions.clone(),
        );
        registry.register(
            "fenced_writes",
            "Writes that were not sent because this operator did not lead, or refused because the object had changed",
            self.fenced.clone(),
        );
        registry.register_collector(Box::new(Arc::clone(&self.last_events)));
    }
}

fn labels(pool: &str, reason: &str) -> PoolReasonLabels {
    PoolReasonLabels {
        pool: pool.to_owned(),
        reason: reason.to_owned(),
    }
}

/// When each watch last brought an event. It is exposed as an age, which an alert can compare.
#[derive(Debug, Default)]
struct LastEvents(Mutex<BTreeMap<&'static str, Instant>>);

impl Collector for LastEvents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ages = Family::<KindLabel, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        let now = Instant::now();
        for (kind, at) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ages.get_or_create(&KindLabel { kind })
                .set(now.saturating_duration_since(*at).as_secs_f64());
        }
        let help = "Time since each watch last brought an event";
        let metric = encoder.encode_descriptor(
            "watch_last_event_age_seconds",
            help,
            None,
            ConstGauge::new(0i64).metric_type(),
        )?;
        ages.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_exposed() {
        let metrics = Metrics::default();
        metrics.passed("default", Duration::from_millis(7), Some("ApplyFailed"));
        metrics.watch_failed("Node");
        metrics.watch_moved("Node", Instant::now());
        metrics.refused("default", "RefusedShrink");
        metrics.revision("default", 12);
        metrics.leads(true);
        metrics.leader_changed();
        metrics.fenced("Conflict");
        let text = metrics.to_text().unwrap();
        for line in [
            "trivet_operator_reconciles_total{pool=\"default\"} 1",
            "trivet_operator_reconcile_errors_total{pool=\"default\",reason=\"ApplyFailed\"} 1",
            "trivet_operator_watch_errors_total{kind=\"Node\"} 1",
            "trivet_operator_watch_last_event_age_seconds{kind=\"Node\"} ",
            "trivet_operator_refusals_total{pool=\"default\",reason=\"RefusedShrink\"} 1",
            "trivet_operator_document_revision{pool=\"default\"} 12",
            "trivet_operator_leader 1",
            "trivet_operator_leader_transitions_total 1",
            "trivet_operator_fenced_writes_total{reason=\"Conflict\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
        metrics.forget("default");
        assert!(!metrics.to_text().unwrap().contains("document_revision{"));
    }
}
