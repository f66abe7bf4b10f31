//! How long this proxy has had no client. Pure.

use tokio::time::Instant;
use trivet_crds::report::RESTS_AFTER_SECONDS;

/// Since when there has been no client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    since: Option<Instant>,
    /// The clients that had been admitted at the last look: one may come and go between two looks.
    admitted: u64,
}

impl Idle {
    /// A process that starts knows nothing of the clients before it.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: Some(now),
            admitted: 0,
        }
    }

    /// Takes in how many connections are `open`, and how many clients have been `admitted` since the start.
    pub(super) fn look(&mut self, open: usize, admitted: u64, now: Instant) {
        let is_used = open > 0 || admitted != self.admitted;
        self.admitted = admitted;
        self.since = if open > 0 {
            None
        } else if is_used {
            Some(now)
        } else {
            self.since.or(Some(now))
        };
    }

    /// Takes in that another process serves: its clients are not seen here.
    pub(super) fn reset(&mut self, admitted: u64, now: Instant) {
        *self = Self {
            since: Some(now),
            admitted,
        };
    }

    /// How long there has been no client; 0 while there is one.
    pub(super) fn seconds(&self, now: Instant) -> u32 {
        let since = self.since.unwrap_or(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        // The schema's type is signed.
        u32::try_from(seconds)
            .unwrap_or(u32::MAX)
            .min(i32::MAX.unsigned_abs())
    }
}

/// Whether a proxy that has been idle for so long rests: a client that comes then is worth a report.
pub(super) fn rests(idle_seconds: u32) -> bool {
    idle_seconds >= RESTS_AFTER_SECONDS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LOOK: Duration = Duration::from_secs(2);

    #[test]
    fn a_client_that_came_and_went_between_two_looks_ends_the_rest() {
        let start = Instant::now();
        let mut idle = Idle::new(start);
        idle.look(0, 0, start + LOOK);
        assert_eq!(idle.seconds(start + LOOK), 2);
        idle.look(0, 1, start + 2 * LOOK);
        assert_eq!(idle.seconds(start + 2 * LOOK), 0);
        idle.look(0, 1, start + 3 * LOOK);
        assert_eq!(idle.seconds(start + 3 * LOOK), 2);
    }

    #[test]
    fn what_another_process_served_is_no_rest_of_this_one() {
        let start = Instant::now();
        let mut idle = Idle::new(start);
        let later = start + Duration::from_secs(3600);
        idle.reset(3, later);
        idle.look(0, 3, later + LOOK);
        assert_eq!(idle.seconds(later + LOOK), 2);
        idle.look(1, 3, later + 2 * LOOK);
        assert_eq!(
            idle.seconds(later + 100 * LOOK),
            0,
            "a connection that it was given"
        );
    }

    proptest! {
        #[test]
        fn it_is_never_idle_for_longer_than_since_its_last_client(
            looks in prop::collection::vec((0_usize..3, 0_u64..3), 1..100),
        ) {
            let start = Instant::now();
            let (mut idle, mut admitted, mut last, mut now) = (Idle::new(start), 0, start, start);
            let mut was_open = false;
            for (open, more) in looks {
                now += LOOK;
                admitted += more;
                // A connection that was open at the last look may have ended just now.
                if open > 0 || more > 0 || was_open {
                    last = now;
                }
                was_open = open > 0;
                idle.look(open, admitted, now);
                prop_assert!(u64::from(idle.seconds(now)) <= (now - last).as_secs());
                prop_assert_eq!(idle.seconds(now) == 0, now == last);
            }
        }
    }
}
