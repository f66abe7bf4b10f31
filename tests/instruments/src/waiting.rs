//! Waiting for what must become true, instead of sleeping and hoping.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

/// Short against every promise that is measured in seconds, long against the cost of a look at a cluster.
const PAUSE: Duration = Duration::from_millis(200);

/// Fine enough for a bound of 100 ms.
const SHORT_PAUSE: Duration = Duration::from_millis(4);

/// Asks `check` again and again until it answers `Ok`; after `within`, fails with its last answer.
pub async fn eventually<T>(within: Duration, what: &str, check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    ask(PAUSE, within, what, check).await
}

/// The same for what is measured in milliseconds: returns when `check` held.
pub async fn promptly(within: Duration, what: &str, mut check: impl AsyncFnMut() -> bool) -> Result<Instant> {
    let check = async || {
        ensure!(check().await, "it is not so");
        Ok(Instant::now())
    };
    ask(SHORT_PAUSE, within, what, check).await
}

async fn ask<T>(
    pause: Duration,
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
            Err(_) => sleep(pause).await,
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[tokio::test(start_paused = true)]
    async fn what_is_measured_in_milliseconds_is_seen_within_four() {
        let start = Instant::now();
        let wanted = start + Duration::from_millis(101);
        let seen = promptly(Duration::from_secs(1), "101 ms pass", async || {
            Instant::now() >= wanted
        })
        .await;
        assert!(seen.unwrap() - wanted <= SHORT_PAUSE);
    }
}
