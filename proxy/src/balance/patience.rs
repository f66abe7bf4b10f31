//! Patience with the first byte: how long an upstream may stay silent on a client's first flight before the same
//! bytes are sent to another, and how often that may be done at all.

use std::time::Duration;

/// However slow the cluster usually is: a hung member costs a client less than a second.
const LONGEST_WAIT: Duration = Duration::from_millis(750);

/// What hedges of one open cost and what an open earns: one hedge for ten opens.
const HEDGE_COST: u32 = 10;

/// What a proxy that opens few connections may still spend at once: ten hedges.
const BURST: u32 = 100;

/// The usual time to the first byte, smoothed as TCP smooths its round trips (RFC 6298), and the hedges left.
#[derive(Clone, Debug)]
pub struct Patience {
    usual: Option<(Duration, Duration)>,
    budget: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            usual: None,
            budget: BURST,
        }
    }
}

impl Patience {
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

    /// How long to wait for a first byte: never less than `hedge_delay`, more where answers usually take longer.
    pub fn wait(&self, hedge_delay: Duration) -> Duration {
        let usual = self
            .usual
            .map_or(Duration::ZERO, |(smoothed, deviation)| smoothed + deviation * 4);
        usual.max(hedge_delay).min(LONGEST_WAIT.max(hedge_delay))
    }

    /// Counts an opened connection, which earns a tenth of a hedge.
    pub fn earn(&mut self) {
        self.budget = self.budget.saturating_add(1).min(BURST);
    }

    /// Takes one hedge out of the budget, if it has one.
    pub fn spend(&mut self) -> bool {
        match self.budget.checked_sub(HEDGE_COST) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEDGE: Duration = Duration::from_millis(250);

    #[test]
    fn a_slow_cluster_is_given_more_time_but_never_a_second() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(HEDGE), HEDGE);
        for _ in 0..50 {
            patience.learn(Duration::from_millis(400));
        }
        assert!(patience.wait(HEDGE) >= Duration::from_millis(400));
        for _ in 0..50 {
            patience.learn(Duration::from_secs(9));
        }
        assert_eq!(patience.wait(HEDGE), LONGEST_WAIT);
    }

    #[test]
    fn hedges_are_a_tenth_of_opens_after_the_burst() {
        let mut patience = Patience::default();
        let burst = (0..100).take_while(|_| patience.spend()).count();
        assert_eq!(burst, 10);
        let hedges = (0..1000)
            .filter(|_| {
                patience.earn();
                patience.spend()
            })
            .count();
        assert_eq!(hedges, 100);
    }
    proptest! {
        #[test]
        fn whatever_was_learned_a_client_waits_for_the_hedge_delay_and_less_than_a_second(
            learned in prop::collection::vec(0..60_000_u64, 0..50),
        ) {
            let mut patience = Patience::default();
            for milliseconds in learned {
                patience.learn(Duration::from_millis(milliseconds));
                let wait = patience.wait(HEDGE);
                prop_assert!((HEDGE..=LONGEST_WAIT).contains(&wait), "{wait:?}");
            }
        }

        #[test]
        fn hedges_are_never_more_than_a_tenth_of_opens_and_the_burst(
            opens in prop::collection::vec(any::<bool>(), 0..2000),
        ) {
            let mut patience = Patience::default();
            let (mut earned, mut spent) = (0, 0);
            for open in opens {
                if open {
                    patience.earn();
                    earned += 1;
                } else {
                    spent += u32::from(patience.spend());
                }
                prop_assert!(spent * HEDGE_COST <= earned + BURST, "{spent} hedges, {earned} opens");
            }
        }
    }
}
