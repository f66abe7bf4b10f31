//! Waiting for what happens on a node.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

/// How often is looked. Fine enough for a bound of 100 ms.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// Looks again and again until `check` holds, and says when it did; an error once `within` has passed.
pub async fn eventually(
    within: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> bool,
) -> Result<Instant> {
    let deadline = Instant::now() + within;
    loop {
        if check().await {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(LOOK_EVERY).await;
    }
}
