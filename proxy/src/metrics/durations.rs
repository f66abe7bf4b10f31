//! Histograms of durations, in seconds.

use std::time::Duration;

use prometheus_client::metrics::{family::Family, histogram::Histogram};

use super::members::MemberLabel;

/// Connecting and the first byte: a kernel or an apiserver on the same network (1 ms), a busy one (5 ms), another site
/// (20 and 100 ms), the usual hedge delay, the longest one, the whole time an open may take. Each border is a series on
/// each node for each member, so there are only those at which something changes.
pub(super) const ANSWER: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.75, 2.0];

/// Probes: well, busy, slow, late, the usual timeout, etcd asked in vain once and twice.
pub(super) const PROBE: [f64; 7] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 4.0];

/// Failovers: what two probes at the usual pace take is between 1 and 3 s; the kernel's timers, 8 s; and the slowest pace
/// of the largest fleet, 15 s for one probe.
pub(super) const FAILOVER: [f64; 7] = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0];

/// A histogram that is told durations. Its clones share one count.
#[derive(Clone, Debug)]
pub struct Durations(pub(super) Histogram);

impl Durations {
    /// Counts one.
    pub fn observe(&self, elapsed: Duration) {
        self.0.observe(elapsed.as_secs_f64());
    }
}

/// One histogram a member.
pub(super) type OfMembers = Family<MemberLabel, Histogram, fn() -> Histogram>;

/// Of connecting and first bytes.
pub(super) fn of_answers() -> OfMembers {
    Family::new_with_constructor(|| Histogram::new(ANSWER))
}

/// Of probes.
pub(super) fn of_probes() -> OfMembers {
    Family::new_with_constructor(|| Histogram::new(PROBE))
}
