//! Hold-down of a flapping upstream: each fall from Up makes the way back longer.

use std::time::Duration;

use tokio::time::Instant;

/// The first hold-down. Long enough for a crash loop's next crash, short against a master's reboot.
pub const SHORTEST: Duration = Duration::from_secs(5);

/// Past this a master that came back for good would be missed for longer than its flapping could hurt.
pub const LONGEST: Duration = Duration::from_secs(120);

/// An upstream that was Up for so long starts over with the shortest hold-down: well past the longest one, so that a
/// flap cannot earn forgiveness between two falls.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

/// How often an upstream fell lately, and until when it is held down for it.
#[derive(Clone, Debug, Default)]
pub struct HoldDown {
    falls: u32,
    until: Option<Instant>,
}

impl HoldDown {
    /// Counts a fall of an upstream that had been Up since `up_since`.
    pub fn fall(&mut self, up_since: Instant, now: Instant) {
        if now.saturating_duration_since(up_since) >= FORGIVEN_AFTER {
            self.falls = 0;
        }
        // The shift is bounded far below the overflow and far above the cap.
        let delay = SHORTEST.saturating_mul(1 << self.falls.min(10)).min(LONGEST);
        self.falls = self.falls.saturating_add(1);
        self.until = Some(now + delay);
    }

    /// Until when good answers do not bring the upstream back, if it ever fell.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether good answers do not yet bring the upstream back.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flap_is_held_longer_each_time_up_to_the_cap() {
        let mut hold = HoldDown::default();
        let mut now = Instant::now();
        for expected in [5, 10, 20, 40, 80, 120, 120, 120] {
            hold.fall(now, now);
            assert!(
                hold.holds(now + Duration::from_secs(expected) - Duration::from_millis(1)),
                "{expected}"
            );
            assert!(!hold.holds(now + Duration::from_secs(expected)), "{expected}");
            now += Duration::from_secs(expected) + Duration::from_secs(2);
        }
    }

    #[test]
    fn a_long_time_up_is_forgiveness() {
        let mut hold = HoldDown::default();
        let start = Instant::now();
        hold.fall(start, start);
        hold.fall(start, start);
        let later = start + FORGIVEN_AFTER;
        hold.fall(start, later);
        assert!(!hold.holds(later + SHORTEST));
    }
}
