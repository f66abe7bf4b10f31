//! The proxy's metrics. Names and labels marked stable in docs/operations.md do not change within a major release.
//!
//! A member's series exist as long as the proxy knows the member. A document holds few members, so the number of series
//! is bounded.

mod clients;
mod documents;
mod durations;
pub mod members;
mod reports;
mod scrapes;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, info::Info},
    registry::Registry,
};

pub use self::durations::Durations;
use self::{
    clients::ClientMetrics, documents::DocumentMetrics, members::MemberMetrics, reports::ReportMetrics,
    scrapes::ScrapeMetrics,
};

/// A metric by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The version of this program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
}

/// All metrics of a proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    documents: DocumentMetrics,
    members: MemberMetrics,
    /// Those of the members' servers that clients of extra listeners reach.
    others: MemberMetrics,
    clients: ClientMetrics,
    reports: ReportMetrics,
    scrapes: ScrapeMetrics,
    lines_lost: Counter,
}

impl Metrics {
    /// A registry of all metrics, each with the prefix `trivet_proxy_`.
    pub fn registry(&self) -> Registry {
        let mut root = Registry::with_prefix("trivet_proxy");
        let version = env!("CARGO_PKG_VERSION");
        root.register(
            "build",
            "The version of this proxy",
            Info::new(BuildLabel { version }),
        );
        self.documents.register(&mut root);
        self.members.register(&mut root);
        self.others.register_of_extra_listeners(&mut root);
        self.clients.register(&mut root);
        self.reports.register(&mut root);
        self.scrapes.register(&mut root);
        root.register(
            "log_lines_lost",
            "Log lines that were dropped because standard error was not read",
            self.lines_lost.clone(),
        );
        root
    }

    /// The same metrics, but those of members are about the servers that clients of this extra listener reach.
    #[must_use]
    pub fn of_listener(&self, name: &str) -> Self {
        Self {
            documents: self.documents.clone(),
            members: self.others.of_listener(name),
            others: self.others.clone(),
            clients: self.clients.clone(),
            reports: self.reports.clone(),
            scrapes: self.scrapes.clone(),
            lines_lost: self.lines_lost.clone(),
        }
    }

    /// The extra listener whose servers the metrics of members are about; none for the apiservers'.
    pub fn listener_name(&self) -> Option<&str> {
        self.members.listener_name()
    }

    /// The log has dropped this many lines.
    pub fn lines_lost(&self, lines: u64) {
        self.lines_lost.inc_by(lines);
    }
}

/// The metrics in Prometheus' text format.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(error) = text::encode(&mut text, registry) {
        tracing::warn!(%error, "failed to encode the metrics");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::{
        balance::health::{Outcome, State},
        ending::Ending,
        net::socket::Fault,
        source::Source,
    };

    const OPERATIONS: &str = include_str!("../../docs/operations.md");

    /// Metrics with at least one series per family: an empty family is not encoded.
    fn eventful() -> Metrics {
        let metrics = Metrics::default();
        metrics.document_applied(1, Source::File);
        metrics.document_rejected(Source::Watch, "Older");
        metrics.listener("127.0.0.1:7443", true);
        metrics.stranger("127.0.0.1:7443", "haproxy");
        let others = metrics.of_listener("konnectivity");
        for metrics in [&metrics, &others] {
            metrics.member("cp1");
            metrics.state("cp1", State::Up);
            metrics.probed("cp1", Outcome::Ready);
            metrics.dial_failed("cp1", Fault::Refused);
        }
        metrics.certificate("cp1", true, Some(1_800_000_000));
        metrics.turned("cp1", State::Down);
        metrics.ended(Ending::Finished);
        metrics.report_failed("Denied");
        metrics.listener_fault("127.0.0.1:7443", false);
        metrics.active("cp1", true);
        metrics.scraped("Allowed");
        metrics.warning("CacheUnwritable", true);
        metrics
    }

    /// The names of all families as Prometheus stores them: counters end with `_total`, infos with `_info`.
    fn encoded(metrics: &Metrics) -> BTreeSet<String> {
        encode(&metrics.registry())
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE trivet_proxy_"))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect()
    }

    /// The names in the first column of the documented table; each row says stable or unstable.
    fn documented() -> BTreeSet<String> {
        let rows = OPERATIONS.lines().filter(|line| {
            let mut columns = line.split('|').map(str::trim);
            columns.any(|column| column == "stable" || column == "unstable")
        });
        let names = rows.filter_map(|row| row.split('|').nth(1)).map(|column| {
            let name = column.trim().trim_matches('`');
            name.split('{').next().unwrap().to_owned()
        });
        names.collect()
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_one_exists() {
        assert_eq!(encoded(&eventful()), documented());
    }

    #[test]
    fn no_family_is_left_out_of_the_comparison() {
        let sources = [
            include_str!("metrics.rs"),
            include_str!("metrics/clients.rs"),
            include_str!("metrics/documents.rs"),
            include_str!("metrics/members.rs"),
            include_str!("metrics/reports.rs"),
            include_str!("metrics/scrapes.rs"),
        ];
        // Split, so that this line does not count itself.
        let call = ["root", ".register("].concat();
        let registered: usize = sources.iter().map(|source| source.matches(&call).count()).sum();
        assert_eq!(encoded(&eventful()).len(), registered);
    }

    #[test]
    fn the_end_of_a_certificate_is_shown_while_it_is_known() {
        let metrics = eventful();
        let line = "trivet_proxy_certificate_expiry_timestamp_seconds{member=\"cp1\"} 1800000000";
        assert!(encode(&metrics.registry()).contains(line));
        metrics.certificate("cp1", false, None);
        assert!(!encode(&metrics.registry()).contains("certificate_expiry_timestamp_seconds{"));
    }

    #[test]
    fn nothing_is_left_of_a_forgotten_member() {
        let metrics = eventful();
        let series = metrics.member("cp1");
        series.dial.observe(Duration::from_millis(1));
        metrics.member("cp2");
        let registry = metrics.registry();
        assert!(encode(&registry).contains("member=\"cp1\""));
        metrics.member_gone("cp1");
        let line =
            "trivet_proxy_listener_upstream_state{listener=\"konnectivity\",member=\"cp1\",state=\"Up\"} 1";
        assert!(encode(&registry).contains(line), "{}", encode(&registry));
        metrics.of_listener("konnectivity").member_gone("cp1");
        let text = encode(&registry);
        assert!(!text.contains("member=\"cp1\""), "{text}");
        assert!(text.contains("member=\"cp2\""), "{text}");
    }

    #[test]
    fn a_member_costs_less_than_a_hundred_series() {
        let metrics = Metrics::default();
        metrics.member("cp1");
        metrics.state("cp1", State::Up);
        metrics.certificate("cp1", true, Some(1_800_000_000));
        metrics.active("cp1", true);
        let series = encode(&metrics.registry())
            .lines()
            .filter(|line| line.contains("member=\"cp1\""))
            .count();
        assert!(series < 100, "{series}");
    }
}
