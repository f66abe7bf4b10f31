//! Waits for real processes: repeats a check until it succeeds or a deadline has passed, and then reports its last error.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::progress::Stopwatch;

/// The pause between two checks: short compared with the waits, long compared with the cost of a look at /proc.
const PAUSE: Duration = Duration::from_millis(50);

/// Repeats `look` until it returns `Ok`, or fails with its last error once `within` has passed.
pub(crate) fn until<T>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    until_every(PAUSE, within, what, &mut look)
}

/// The same with a longer pause, for expensive checks such as a request to an apiserver.
pub(crate) fn until_every<T>(
    pause: Duration,
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let watch = Stopwatch::start();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if watch.elapsed() >= within => {
                bail!("{what}: not within {} s: {error:#}", within.as_secs())
            }
            Err(_) => thread::sleep(pause),
        }
    }
}
