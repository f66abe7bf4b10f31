//! The delay after a failure. It grows exponentially, with jitter, and starts anew after a while without a failure.

use std::time::Duration;

use kube::runtime::utils::Backoff as WatchBackoff;
use tokio::time::Instant;

/// The first delay.
const FIRST: Duration = Duration::from_millis(500);

/// The longest delay. The retries of one operator are no load, and it must work again soon after the control plane does, or
/// after a deleted CRD is installed again: that takes three retries, because the API server does not serve it at once.
const LONGEST: Duration = Duration::from_secs(5);

/// A failure this long after the previous one gets the first delay again.
const FORGET: Duration = Duration::from_secs(60);

/// The back-off of one pool or watch.
///
/// A success does not reset it, because a watch that is refused after each successful connect would then be retried
/// without a delay.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The delay after a failure at `now`. `jitter` is in 0..1 and shortens the delay by up to half.
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
    /// kube calls this after each good event. The documentation of the type says why that must not reset the delay.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_and_start_anew() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..8)
            .map(|_| backoff.after_failure(start, 0.0).as_millis())
            .collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 5000, 5000, 5000, 5000]);
        let later = start + FORGET + Duration::from_secs(1);
        assert_eq!(backoff.after_failure(later, 0.0), FIRST);
    }

    #[test]
    fn jitter_shortens_by_half_at_most() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after_failure(Instant::now(), 1.0), FIRST / 2);
    }
}
