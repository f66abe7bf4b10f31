//! The operator's metrics, at `/metrics`.

mod pools;

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
use trivet_crds::pool::ApiserverPoolStatus;

use self::pools::Pools;

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
    pools: Arc<Pools>,
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
            pools: Arc::default(),
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
        self.pools.passed(pool, failure.is_some());
    }

    /// Shows the status that a pass has made.
    pub fn status(&self, pool: &str, status: &ApiserverPoolStatus) {
        self.pools.status(pool, status);
    }

    /// Shows how many nodes have no standby; none where the pool places no standbys, or where it is not known.
    pub fn standbys(&self, pool: &str, without: Option<usize>) {
        self.pools.standbys(pool, without);
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
        self.pools.forget(pool);
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
        registry.register_collector(Box::new(Arc::clone(&self.pools)));
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
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const OPERATIONS: &str = include_str!("../../../docs/operations.md");

    /// Metrics with at least one series per family: an empty family is not encoded.
    fn eventful() -> Metrics {
        let metrics = Metrics::default();
        metrics.passed("default", Duration::from_millis(7), Some("ApplyFailed"));
        metrics.watch_failed("Node");
        metrics.watch_moved("Node", Instant::now());
        metrics.refused("default", "RefusedShrink");
        metrics.revision("default", 12);
        metrics.leads(true);
        metrics.leader_changed();
        metrics.fenced("Conflict");
        let condition = json!({ "type": "Ready", "status": "False", "reason": "NoMemberUp", "message": "",
                                "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let member = |health: &str, state: &str| {
            json!({ "name": health, "addresses": ["10.0.0.1"], "port": 6443, "source": "Node", "state": state,
                    "health": health })
        };
        let status = json!({
            "conditions": [condition],
            "members": [member("Down", "Active"), member("Up", "Draining")],
            "proxies": { "desired": 5, "ready": 4, "updated": 5, "synced": 4, "unavailable": 1 },
            "dns": { "serviceName": "default-apiservers.trivet-system.svc", "serviceAddresses": ["10.0.0.1"] },
        });
        metrics.status("default", &serde_json::from_value(status).unwrap());
        metrics.standbys("default", Some(2));
        metrics
    }

    #[test]
    fn every_count_is_exposed() {
        let metrics = eventful();
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
            "trivet_operator_last_pass_failed{pool=\"default\"} 1",
            "trivet_operator_pool_condition{pool=\"default\",type=\"Ready\",status=\"False\",reason=\"NoMemberUp\"} 1",
            "trivet_operator_pool_proxies{pool=\"default\",state=\"Ready\"} 4",
            "trivet_operator_pool_members{pool=\"default\",health=\"Up\"} 0",
            "trivet_operator_pool_members{pool=\"default\",health=\"Down\"} 1",
            "trivet_operator_nodes_without_standby{pool=\"default\"} 2",
            "trivet_operator_dns_addresses{pool=\"default\",output=\"Service\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
        metrics.standbys("default", None);
        assert!(!metrics.to_text().unwrap().contains("nodes_without_standby{"));
        metrics.passed("default", Duration::from_millis(7), None);
        let text = metrics.to_text().unwrap();
        assert!(text.contains("last_pass_failed{pool=\"default\"} 0"), "{text}");
    }

    #[test]
    fn a_pool_that_is_gone_leaves_no_gauge() {
        let metrics = eventful();
        metrics.forget("default");
        let text = metrics.to_text().unwrap();
        for gauge in [
            "document_revision{",
            "pool_",
            "last_pass_failed{",
            "nodes_without_standby{",
        ] {
            let series = format!("\ntrivet_operator_{gauge}");
            let left = text
                .lines()
                .any(|line| line.starts_with(series.trim()) && line.contains("default"));
            assert!(!left, "{series} is left in\n{text}");
        }
    }

    /// The names and labels of all series as Prometheus stores them, without the parts of histograms.
    fn encoded(text: &str) -> BTreeSet<String> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let names = series.filter_map(|line| {
            let name = line.strip_prefix("trivet_operator_")?;
            let (name, labels) = name.split_once('{').unwrap_or((name.split_once(' ')?.0, ""));
            let labels: Vec<_> = labels
                .split("\",")
                .filter_map(|pair| Some(pair.split_once('=')?.0))
                .collect();
            match ["_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)) {
                _ if name.ends_with("_bucket") => None,
                Some(histogram) => Some(histogram.to_owned()),
                None if labels.is_empty() => Some(name.to_owned()),
                None => Some(format!("{name}{{{}}}", labels.join(","))),
            }
        });
        names.collect()
    }

    /// The first column of the table in the section about the operator.
    fn documented() -> BTreeSet<String> {
        let (_, section) = OPERATIONS.split_once("## What the operator says").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
            .collect()
    }

    #[test]
    fn every_metric_is_documented_with_its_labels_and_every_documented_one_exists() {
        assert_eq!(encoded(&eventful().to_text().unwrap()), documented());
    }
}
