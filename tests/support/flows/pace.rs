//! How fast bytes move, which the scenario says while they do.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// What a slow reader takes in a second: less than any server wants to send.
const SLOW: u32 = 64 << 10;

/// How fast bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// 64 KiB a second.
    Slow,
    /// As fast as they can.
    Full,
    /// As fast as they can until there are enough of them, which is the end.
    ToTheEnd,
}

/// The pace of one stream, and how many bytes are enough.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) pace: watch::Receiver<Pace>,
    pub(super) enough: u64,
}

impl Limits {
    /// Waits as long as the present pace asks for after so many bytes. Another pace ends the wait.
    pub(super) async fn after(&mut self, bytes: usize) {
        if *self.pace.borrow_and_update() == Pace::Slow {
            let pause = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / SLOW;
            // How the wait ends does not matter: the caller looks.
            drop(timeout(pause, self.pace.changed()).await);
        }
    }

    /// Whether a stream of which so many bytes have passed is over. It is over too once the sender of its pace is dropped.
    pub(super) fn is_over(&self, passed: u64) -> bool {
        let is_last = *self.pace.borrow() == Pace::ToTheEnd;
        self.pace.has_changed().is_err() || (is_last && passed >= self.enough)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_waits_until_another_pace_is_set() {
        let (set, pace) = watch::channel(Pace::Slow);
        let mut limits = Limits { pace, enough: 10 };
        let begun = Instant::now();
        limits.after(128 << 10).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        set.send_replace(Pace::Full);
        limits.after(128 << 10).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn a_stream_is_over_when_it_is_told_so_and_has_enough_or_when_nobody_is_left() {
        let (set, pace) = watch::channel(Pace::Full);
        let limits = Limits { pace, enough: 10 };
        assert!(!limits.is_over(11));
        set.send_replace(Pace::ToTheEnd);
        assert!(!limits.is_over(9));
        assert!(limits.is_over(10));
        drop(set);
        assert!(limits.is_over(0));
    }
}
