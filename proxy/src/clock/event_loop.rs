//! The clock of the event loop. It stands still while the loop does not turn: while the process is stopped, the machine is
//! paused, or others have the CPU. This is a lapse.
//!
//! A timer that fires after a lapse says nothing about a client, an upstream or another proxy: what they have said meanwhile
//! may lie unread, and what this process was about to send was not sent. So all limits on what others take are measured by
//! this clock. Limits on this process itself, as that of a drain, are not: kubelet's grace goes on.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, error::Elapsed, sleep, timeout_at};
use tracing::info;

/// How often the clock is looked at when nobody else does. A lapse counts as one such turn, so that the limits of a process
/// that is always late come too.
const TURN: Duration = Duration::from_millis(100);

/// A turn that is later than this was none. A busy loop is late by some milliseconds.
const LATE: Duration = Duration::from_millis(500);

/// The turns of an event loop, as looks at a clock show them.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    last: Instant,
    lapsed: Duration,
}

impl Turns {
    /// The loop turns now.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            lapsed: Duration::ZERO,
        }
    }

    /// The loop turns now. Returns all the time in which it did not.
    pub fn look(&mut self, now: Instant) -> Duration {
        let pause = now.saturating_duration_since(self.last);
        if pause > TURN + LATE {
            self.lapsed += pause.saturating_sub(TURN);
        }
        self.last = now;
        self.lapsed
    }
}

/// The clock. Before it runs it knows of no lapse.
#[derive(Debug, Default)]
pub struct LoopClock(Mutex<Option<Turns>>);

/// What somebody knows of the lapses of a clock.
#[derive(Clone, Copy, Debug)]
pub struct Lapses {
    known: Duration,
}

impl LoopClock {
    /// Looks at the clock, without end. Without these looks a later one would take the time before it for a lapse.
    pub async fn run(&self) {
        let _running = Running(self);
        *self.turns() = Some(Turns::new(Instant::now()));
        let mut lapses = self.lapses();
        loop {
            sleep(TURN).await;
            let time = lapses.since(self);
            if !time.is_zero() {
                info!(
                    milliseconds = time.as_millis(),
                    "this process stood still: it was stopped, or had no CPU"
                );
            }
        }
    }

    /// Later lapses are told from now on.
    pub fn lapses(&self) -> Lapses {
        Lapses { known: self.lapsed() }
    }

    /// As [`tokio::time::timeout`] is, by this clock. The caller pins the work: taken by value, it would be in the future twice.
    pub async fn timeout<T>(
        &self,
        within: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Elapsed> {
        let (mut lapses, mut deadline) = (self.lapses(), Instant::now() + within);
        loop {
            match timeout_at(deadline, work.as_mut()).await {
                Ok(done) => return Ok(done),
                Err(elapsed) => match lapses.since(self) {
                    Duration::ZERO => return Err(elapsed),
                    time => deadline += time,
                },
            }
        }
    }

    fn lapsed(&self) -> Duration {
        let mut turns = self.turns();
        turns
            .as_mut()
            .map_or(Duration::ZERO, |turns| turns.look(Instant::now()))
    }

    fn turns(&self) -> MutexGuard<'_, Option<Turns>> {
        // A panic while the lock is held leaves a valid value.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lapses {
    /// The time that has lapsed since the last call.
    pub fn since(&mut self, clock: &LoopClock) -> Duration {
        let lapsed = clock.lapsed();
        let since = lapsed.saturating_sub(self.known);
        self.known = lapsed;
        since
    }
}

/// A clock that runs. It stops with the task that looks at it.
struct Running<'a>(&'a LoopClock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.turns() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin, sync::Arc};

    use tokio::{
        task::{JoinHandle, yield_now},
        time::{advance, timeout},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn running() -> (Arc<LoopClock>, JoinHandle<()>) {
        let clock = Arc::new(LoopClock::default());
        let runs = Arc::clone(&clock);
        let task = tokio::spawn(async move { runs.run().await });
        yield_now().await;
        (clock, task)
    }

    #[test]
    fn a_turn_that_comes_late_is_no_lapse_until_it_is_half_a_second_late() {
        let start = Instant::now();
        let mut turns = Turns::new(start);
        assert_eq!(turns.look(start + TURN + LATE), Duration::ZERO);
        let stopped = start + TURN + LATE;
        assert_eq!(turns.look(stopped + 10 * SECOND), 99 * TURN);
        assert_eq!(turns.look(stopped + 10 * SECOND + TURN), 99 * TURN);
    }

    #[test]
    fn the_limits_of_a_loop_that_is_always_late_come() {
        let start = Instant::now();
        let mut turns = Turns::new(start);
        let late = (1..=20).map(|turn| start + turn * SECOND);
        let lapsed = late.map(|now| turns.look(now)).last().unwrap();
        assert_eq!(lapsed, 18 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_moves_by_a_lapse_and_not_by_time_that_passes() {
        let (clock, _task) = running().await;
        let started = Instant::now();
        let never = pin!(pending::<()>());
        let waits = clock.timeout(2 * SECOND, never);
        let (elapsed, ()) = tokio::join!(waits, async {
            sleep(SECOND).await;
            advance(10 * SECOND).await;
        });
        assert!(elapsed.is_err());
        let took = started.elapsed();
        assert!(took >= 119 * TURN && took <= 121 * TURN, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_ready_after_a_lapse_is_in_time() {
        let (clock, _task) = running().await;
        let work = async {
            // Two steps, each of which needs a turn.
            for _ in 0..2 {
                sleep(SECOND / 10).await;
            }
        };
        let work = pin!(work);
        let (done, ()) = tokio::join!(clock.timeout(SECOND, work), async {
            yield_now().await;
            advance(10 * SECOND).await;
        });
        assert!(done.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_does_not_run_knows_of_no_lapse() {
        let clock = LoopClock::default();
        let mut lapses = clock.lapses();
        advance(10 * SECOND).await;
        assert_eq!(lapses.since(&clock), Duration::ZERO);
        let (clock, task) = running().await;
        let mut lapses = clock.lapses();
        task.abort();
        assert!(timeout(SECOND, task).await.unwrap().unwrap_err().is_cancelled());
        advance(10 * SECOND).await;
        assert_eq!(lapses.since(&clock), Duration::ZERO);
    }
}
