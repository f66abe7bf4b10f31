//! Waiting for real processes: look again and again until a deadline, and then say what was seen last.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::progress::Stopwatch;

/// Short against everything we wait for, long against the cost of one look at /proc.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` returns `Ok`, or fails with its last answer once `within` has passed.
pub(crate) fn until<T>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    until_every(PAUSE, within, what, &mut look)
}

/// The same for looks that cost something, such as a request to an apiserver.
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
