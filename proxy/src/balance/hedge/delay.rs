//! The hedge delay: how long an upstream may leave a client's first flight unanswered before the same bytes are sent to
//! another one.

use std::time::Duration;

/// The upper bound, however slow the cluster usually is: a hung member costs a client less than a second.
const LONGEST: Duration = Duration::from_millis(750);

/// The usual time to the first byte, smoothed as TCP smooths its round-trip times (RFC 6298).
#[derive(Clone, Debug, Default)]
pub struct HedgeDelay {
    usual: Option<(Duration, Duration)>,
}

impl HedgeDelay {
    /// Learns that an upstream took `elapsed` to its first byte.
    pub fn learn(&mut self, elapsed: Duration) {
        self.usual = Some(match self.usual {
            None => (elapsed, elapsed / 2),
            Some((smoothed, deviation)) => (
                (smoothed * 7 + elapsed) / 8,
                (deviation * 3 + smoothed.abs_diff(elapsed)) / 4,
            ),
        });
    }

    /// The delay: at least `configured`, longer where answers usually take longer.
    pub fn get(&self, configured: Duration) -> Duration {
        let usual = self
            .usual
            .map_or(Duration::ZERO, |(smoothed, deviation)| smoothed + deviation * 4);
        usual.max(configured).min(LONGEST.max(configured))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIGURED: Duration = Duration::from_millis(250);

    #[test]
    fn a_slow_cluster_gets_a_longer_delay_up_to_the_bound() {
        let mut delay = HedgeDelay::default();
        assert_eq!(delay.get(CONFIGURED), CONFIGURED);
        for _ in 0..50 {
            delay.learn(Duration::from_millis(400));
        }
        assert!(delay.get(CONFIGURED) >= Duration::from_millis(400));
        for _ in 0..50 {
            delay.learn(Duration::from_secs(9));
        }
        assert_eq!(delay.get(CONFIGURED), LONGEST);
    }

    proptest! {
        #[test]
        fn the_delay_stays_between_the_configured_one_and_the_bound(
            learned in prop::collection::vec(0..60_000_u64, 0..50),
        ) {
            let mut delay = HedgeDelay::default();
            for milliseconds in learned {
                delay.learn(Duration::from_millis(milliseconds));
                let now = delay.get(CONFIGURED);
                prop_assert!((CONFIGURED..=LONGEST).contains(&now), "{now:?}");
            }
        }
    }
}
