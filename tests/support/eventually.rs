//! Waiting for what must become true, instead of sleeping and hoping.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

/// Short against every promise that is measured in seconds.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks `check` again and again until it answers `Ok`; after `within`, fails with its last answer.
pub async fn eventually<T>(
    within: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {} s", within.as_secs()));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_the_reason() {
        let mut asked = 0;
        let outcome = eventually(Duration::from_secs(1), "counting to a hundred", async || {
            asked += 1;
            ensure!(asked >= 100, "only {asked}");
            Ok(asked)
        })
        .await;
        let reason = format!("{:#}", outcome.unwrap_err());
        assert!(
            reason.starts_with("counting to a hundred: not within 1 s: only "),
            "{reason}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_true_in_time_is_returned() {
        let mut asked = 0;
        let outcome = eventually(Duration::from_secs(60), "counting to three", async || {
            asked += 1;
            ensure!(asked >= 3, "only {asked}");
            Ok(asked)
        })
        .await;
        assert_eq!(outcome.unwrap(), 3);
    }
}
