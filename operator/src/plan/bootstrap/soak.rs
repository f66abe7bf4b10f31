//! How long the proxies have been available with one template. Pure: time is an argument, and no wall clock counts.

use std::time::Duration;

use tokio::time::Instant;

/// The most that counts between two looks. A pool at rest has one every half minute.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// How long the proxies of all nodes have been available with the template in place, in sum.
///
/// In a large cluster some node always joins or fails. That stops the time but does not begin it anew, or the standbys would
/// never get a new template. Time that nobody has seen counts as little: while the API does not answer, which a bad template
/// may be the cause of, there is no look. It is lost with the operator, and the next one waits anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soak {
    template: String,
    passed: Duration,
    /// The last look, if the proxies were available at it.
    last: Option<Instant>,
}

impl Soak {
    /// Adds that at `now` the proxies have this template, and whether all of them are available.
    pub fn observe(&mut self, template: &str, is_complete: bool, now: Instant) {
        if self.template != template {
            *self = Self {
                template: template.to_owned(),
                ..Self::default()
            };
        }
        if let Some(last) = self.last.filter(|_| is_complete) {
            self.passed += now.saturating_duration_since(last).min(STEP_LIMIT);
        }
        self.last = is_complete.then_some(now);
    }

    /// How long they have been available with `template`.
    pub fn passed(&self, template: &str) -> Duration {
        if self.template == template {
            self.passed
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds that count after looks `gap` seconds apart.
    fn counted(looks: &[(&str, bool)], gap: u64) -> u64 {
        let mut now = Instant::now();
        let mut soak = Soak::default();
        for (template, is_complete) in looks {
            soak.observe(template, *is_complete, now);
            now += Duration::from_secs(gap);
        }
        soak.passed(looks.last().unwrap().0).as_secs()
    }

    #[test]
    fn the_time_in_which_all_proxies_are_available_counts() {
        assert_eq!(counted(&[("a", true)], 10), 0);
        assert_eq!(counted(&[("a", true), ("a", true), ("a", true)], 10), 20);
        assert_eq!(counted(&[("a", false), ("a", true), ("a", true)], 10), 10);
        assert_eq!(counted(&[("a", true), ("a", false), ("a", true)], 10), 0);
    }

    #[test]
    fn a_proxy_that_fails_meanwhile_stops_the_time_and_does_not_begin_it_anew() {
        let looks = [true, true, true, false, true, true].map(|is_complete| ("a", is_complete));
        assert_eq!(counted(&looks, 10), 30);
    }

    #[test]
    fn time_that_nobody_has_seen_counts_a_minute_at_most() {
        let looks = [("a", true), ("a", true), ("a", true)];
        assert_eq!(counted(&looks, 60), 120);
        assert_eq!(counted(&looks, 600), 120);
    }

    #[test]
    fn another_template_begins_anew_and_so_does_the_old_one_after_it() {
        assert_eq!(counted(&[("a", true), ("a", true), ("b", true)], 10), 0);
        assert_eq!(
            counted(&[("a", true), ("a", true), ("b", true), ("a", true)], 10),
            0
        );
        let mut soak = Soak::default();
        soak.observe("a", true, Instant::now());
        assert_eq!(soak.passed("b"), Duration::ZERO);
    }
}
