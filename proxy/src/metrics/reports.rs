//! Metrics of the reports that this proxy writes to the API.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Metrics, ReasonLabel};

#[derive(Clone, Debug, Default)]
pub(super) struct ReportMetrics {
    written: Gauge<f64, AtomicU64>,
    writes: Counter,
    failures: Family<ReasonLabel, Counter>,
    failing: Gauge,
}

impl ReportMetrics {
    pub(super) fn register(&self, root: &mut Registry) {
        root.register(
            "report_written_timestamp_seconds",
            "Unix time at which this proxy last wrote its report; 0 before the first",
            self.written.clone(),
        );
        root.register(
            "reports_written",
            "Reports that were written",
            self.writes.clone(),
        );
        root.register(
            "report_failures",
            "Reports that could not be written, by reason",
            self.failures.clone(),
        );
        root.register(
            "report_failing",
            "1 while the last attempt to write the report has failed",
            self.failing.clone(),
        );
    }
}

impl Metrics {
    /// A report was written.
    pub fn report_written(&self) {
        self.reports.writes.inc();
        self.reports.failing.set(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.reports.written.set(since.unwrap_or_default().as_secs_f64());
    }

    /// A report could not be written.
    pub fn report_failed(&self, reason: &'static str) {
        self.reports.failures.get_or_create(&ReasonLabel { reason }).inc();
        self.reports.failing.set(1);
    }
}
