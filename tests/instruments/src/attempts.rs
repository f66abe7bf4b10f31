//! A steady stream of attempts.
//!
//! Open loop: attempts start by the clock, so a slow one delays no other and a proxy that stalls cannot make its own
//! test gentler.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Attempt, Client, Record};

/// Attempts under way.
#[derive(Debug)]
pub struct Attempts {
    stop: CancellationToken,
    record: JoinHandle<Result<Record>>,
}

impl Attempts {
    /// Starts what makes the attempts and records them until it is told to stop.
    pub fn start<F>(work: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<Record>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let record = tokio::spawn(work(stop.clone()));
        Self { stop, record }
    }

    /// Starts no further attempt, waits for those under way, and returns them all.
    pub async fn finish(self) -> Result<Record> {
        self.stop.cancel();
        self.record.await.context("the attempts were lost")?
    }
}

/// Makes an attempt every `period` until told to stop, and returns them all.
pub async fn stream(client: Client, period: Duration, stop: CancellationToken) -> Vec<Attempt> {
    let mut clock = interval(period);
    // A machine that was busy for a moment catches up, so that the promised number of attempts is made.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut finished) = (JoinSet::new(), Vec::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = clock.tick() => {
                let client = client.clone();
                under_way.spawn(async move { client.attempt().await });
            }
            Some(Ok(attempt)) = under_way.join_next() => finished.push(attempt),
        }
    }
    finished.extend(under_way.join_all().await);
    finished
}
