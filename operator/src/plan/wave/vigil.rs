//! For how long an operator has looked without a gap. Pure: time is an argument, and no wall clock counts.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time between two looks that is no gap. A pool at rest has one every half minute.
const GAP: Duration = Duration::from_secs(60);

/// The looks of this operator. They are lost with it, and the next one looks for a while before it judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vigil {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Vigil {
    /// Adds a look.
    pub fn observe(&mut self, now: Instant) {
        let is_gap = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) > GAP);
        if is_gap {
            self.since = Some(now);
        }
        self.last = Some(now);
    }

    /// For how long there was no gap.
    pub fn lasts(&self) -> Duration {
        let both = self.last.zip(self.since);
        both.map_or(Duration::ZERO, |(last, since)| {
            last.saturating_duration_since(since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_and_an_outage_begin_it_anew() {
        let start = Instant::now();
        let mut vigil = Vigil::default();
        let mut look = |second| {
            vigil.observe(start + Duration::from_secs(second));
            vigil.lasts().as_secs()
        };
        assert_eq!([look(0), look(30), look(60)], [0, 30, 60]);
        assert_eq!([look(121), look(130)], [0, 9]);
    }
}
