//! Histograms of durations, in seconds.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// Buckets of dials and first bytes: an apiserver on the same network (1 ms), a busy one (5 ms), another site (20 and
/// 100 ms), the usual hedge delay, the longest hedge delay, and the limit of a whole open. Each bucket is a series per
/// node and member, so there are few.
pub(super) const ANSWER: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.75, 2.0];

/// Buckets of probes: healthy, busy, slow, late, the usual timeout, and etcd that times out once (2 s) or twice (4 s).
pub(super) const PROBE: [f64; 7] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 4.0];

/// Buckets of failovers: two probes at the usual interval take 1 to 3 s, the kernel's timers up to 8 s, and one probe in
/// the largest fleet up to 15 s.
pub(super) const FAILOVER: [f64; 7] = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0];

/// A histogram of durations. Its clones share one count.
#[derive(Clone, Debug)]
pub struct Durations(pub(super) Histogram);

impl Durations {
    /// Counts one.
    pub fn observe(&self, elapsed: Duration) {
        self.0.observe(elapsed.as_secs_f64());
    }
}
