//! What the two programs expose, read from real registries in which everything has happened once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use trivet_operator::report::status::conditions;
use trivet_operator::serve::metrics::Metrics as OperatorMetrics;
use trivet_proxy::authn::Answer;
use trivet_proxy::balance::health::{Outcome, State};
use trivet_proxy::ending::Ending;
use trivet_proxy::metrics::{self, Metrics as ProxyMetrics};
use trivet_proxy::net::socket::Fault;
use trivet_proxy::source::Source;

/// The labels that a scrape adds; the chart's PodMonitors set them.
pub(super) const TARGET_LABELS: [&str; 3] = ["pool", "node", "job"];

/// Labels whose values are all there are in a registry in which everything has happened.
const FIXED: [&str; 4] = ["state", "status", "type", "health"];

/// The labels of each metric, with the values that they have had.
#[derive(Debug)]
pub(super) struct Exposed(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exposed {
    /// Reads what both programs expose.
    pub(super) fn read() -> Self {
        let mut exposed = Self([("up".to_owned(), BTreeMap::new())].into());
        exposed.add(&of_proxy());
        exposed.add(&of_operator());
        exposed
    }

    /// The labels of a metric; none if it does not exist.
    pub(super) fn labels(&self, metric: &str) -> Option<BTreeSet<String>> {
        Some(self.0.get(metric)?.keys().cloned().collect())
    }

    /// Whether a label of a metric can have this value.
    pub(super) fn may_be(&self, metric: &str, label: &str, value: &str) -> bool {
        let values = self.0.get(metric).and_then(|labels| labels.get(label));
        !FIXED.contains(&label) || values.is_some_and(|values| values.contains(value))
    }

    fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let known = self.0.entry(name.to_owned()).or_default();
            for pair in labels
                .trim_end_matches('}')
                .split("\",")
                .filter(|pair| !pair.is_empty())
            {
                let (label, value) = pair.split_once("=\"").unwrap();
                let values = known.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
}

fn of_proxy() -> String {
    let metrics = ProxyMetrics::default();
    metrics.document_applied(1, Source::File);
    metrics.document_rejected(Source::Watch, "Older");
    metrics.listener("127.0.0.1:7443", true);
    metrics.listener_fault("127.0.0.1:7443", false);
    metrics.stranger("127.0.0.1:7443", "haproxy");
    let series = metrics.member("cp1");
    series.first_byte.observe(Duration::from_millis(1));
    series.dial.observe(Duration::from_millis(1));
    metrics.state("cp1", State::Up);
    metrics.active("cp1", true);
    metrics.probed("cp1", Outcome::Ready);
    metrics.certificate("cp1", true, Some(1_800_000_000));
    metrics.dial_failed("cp1", Fault::Refused);
    metrics.ended(Ending::Finished);
    metrics.failed_over(Duration::from_secs(1));
    metrics.report_failed("Denied");
    metrics.scraped(Answer::Allowed.as_str());
    metrics.warning("CacheUnwritable", true);
    metrics::encode(&metrics.registry())
}

fn of_operator() -> String {
    let metrics = OperatorMetrics::default();
    metrics.passed("default", Duration::from_millis(7), Some("ApplyFailed"));
    metrics.watch_failed("Node");
    metrics.watch_moved("Node", Instant::now());
    metrics.refused("default", "RefusedShrink");
    metrics.revision("default", 12);
    metrics.standbys("default", Some(1));
    let condition = |type_: &str, status: &str| {
        json!({ "type": type_, "status": status, "reason": "Because", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let conditions = conditions::ALL
        .iter()
        .flat_map(|type_| ["True", "False"].map(|status| condition(type_, status)));
    let status = json!({
        "conditions": conditions.collect::<Vec<_>>(),
        "proxies": { "desired": 5, "ready": 4, "updated": 5, "synced": 4, "unavailable": 1 },
    });
    metrics.status("default", &serde_json::from_value(status).unwrap());
    metrics.to_text().unwrap()
}
