//! Detects loops that make no progress, for `/livez`: the passes over each pool, the watches, the probes, the reports and the
//! election.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Work that takes longer, or that does not begin for so long after it is due, is stuck: every call in it has a time-out of
/// seconds.
const STUCK: Duration = Duration::from_secs(120);

/// Records the progress of loops. A stuck loop is a reason to restart the operator; an API server that does not answer is
/// not.
#[derive(Debug, Default)]
pub struct Watchdog {
    running: Mutex<BTreeMap<String, Instant>>,
}

impl Watchdog {
    /// Records that the loop `name` makes progress. It counts as stuck if the next call does not come in time.
    pub fn beat(&self, name: &str) {
        self.with(|running| running.insert(name.to_owned(), Instant::now()));
    }

    /// Records that the work `name` has begun. It counts as stuck if it does not end in time.
    pub fn begin(self: &Arc<Self>, name: &str) -> Work {
        self.beat(name);
        Work {
            watchdog: Arc::clone(self),
            name: name.to_owned(),
        }
    }

    /// Records that the work `name` is due after `wait`. It counts as stuck if it does not begin in time then.
    pub fn expect(&self, name: &str, wait: Duration) {
        self.with(|running| running.insert(name.to_owned(), Instant::now() + wait));
    }

    /// Records that the work `name` is not due any more.
    pub fn forget(&self, name: &str) {
        self.with(|running| running.remove(name));
    }

    /// The names of what is stuck at `now`.
    pub fn stuck(&self, now: Instant) -> Vec<String> {
        let is_stuck = |begun: &Instant| now.saturating_duration_since(*begun) > STUCK;
        self.with(|running| {
            running
                .iter()
                .filter(|(_, begun)| is_stuck(begun))
                .map(|(name, _)| name.clone())
                .collect()
        })
    }

    fn with<T>(&self, use_running: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        use_running(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Work that is under way. It has ended when this is dropped.
#[derive(Debug)]
pub struct Work {
    watchdog: Arc<Watchdog>,
    name: String,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.watchdog.with(|running| running.remove(&self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_work_that_does_not_end_is_stuck() {
        let watchdog = Arc::new(Watchdog::default());
        let work = watchdog.begin("pool default");
        assert!(watchdog.stuck(Instant::now()).is_empty());
        tokio::time::advance(STUCK + Duration::from_secs(1)).await;
        assert_eq!(watchdog.stuck(Instant::now()), ["pool default"]);
        drop(work);
        assert!(watchdog.stuck(Instant::now()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_begin_though_it_is_due_is_stuck() {
        let watchdog = Arc::new(Watchdog::default());
        let wait = Duration::from_secs(30);
        watchdog.expect("pool default", wait);
        tokio::time::advance(wait + STUCK).await;
        assert!(watchdog.stuck(Instant::now()).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(watchdog.stuck(Instant::now()), ["pool default"]);
        watchdog.forget("pool default");
        assert!(watchdog.stuck(Instant::now()).is_empty());
        drop(watchdog.begin("pool default"));
        assert!(watchdog.stuck(Instant::now()).is_empty());
    }
}
