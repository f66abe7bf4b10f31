//! How long to wait after a failure: exponentially more, with jitter, and forgotten after a while without one.

use std::time::Duration;

use kube::runtime::utils::Backoff as WatchBackoff;
use tokio::time::Instant;

/// The first wait.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait. One operator's tries are no load, and it should be back soon after the control plane, or after a CRD
/// that was deleted and installed again: that takes three tries, because the API server needs a moment itself.
const LONGEST: Duration = Duration::from_secs(5);

/// A failure this long after the previous one is a new story.
const FORGET: Duration = Duration::from_secs(60);

/// One thing's failures.
///
/// A success does not end the waiting by itself: a watch that is refused after each successful connect would otherwise
/// be retried at full speed for ever.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The wait after a failure at `now`. `jitter` is in 0..1 and takes up to half of the wait away.
    pub fn after_failure(&mut self, now: Instant, jitter: f64) -> Duration {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) > FORGET)
        {
            self.failures = 0;
        }
        self.last = Some(now);
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure(Instant::now(), rand::random()))
    }
}

impl WatchBackoff for Backoff {
    /// Called after each good event: see the type on why that is not enough.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_are_forgotten() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8)
            .map(|_| backoff.after_failure(start, 0.0).as_millis())
            .collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000, 5000, 5000]);
        let later = start + FORGET + Duration::from_secs(1);
        assert_eq!(backoff.after_failure(later, 0.0), FIRST);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after_failure(Instant::now(), 1.0), FIRST / 2);
    }
}
