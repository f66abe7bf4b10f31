//! A steady stream of new connections, every one of them recorded.
//!
//! Open loop: attempts start by the clock, so a slow one delays no other and a proxy that stalls cannot make its own
//! test gentler. Beside the proxy's stream runs one to an apiserver that no fault strikes, without the proxy: what the
//! slowest of those took tells what this machine, busy as it is, costs at worst.

use std::{fmt, io, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// One attempt: a new connection and one request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it began.
    pub started: Instant,
    /// How long it took to its end, good or bad.
    pub took: Duration,
    /// Who answered, or how it failed.
    pub outcome: Result<String, (io::ErrorKind, String)>,
}

impl Attempt {
    /// Makes it.
    pub async fn make(client: &Client, path: &str) -> Self {
        let started = Instant::now();
        let outcome = client.get(path).await;
        Self {
            started,
            took: started.elapsed(),
            outcome: outcome.map_err(|error| (error.kind(), error.to_string())),
        }
    }

    /// Whether the other side ended it with a reset.
    pub fn was_reset(&self) -> bool {
        matches!(&self.outcome, Err((io::ErrorKind::ConnectionReset, _)))
    }
}

/// What became of a stream of attempts.
#[derive(Clone, Debug)]
pub struct Record {
    began: Instant,
    attempts: Vec<Attempt>,
    reference: Vec<Attempt>,
}

impl Record {
    /// All attempts through the proxy, in the order in which they began.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Those that began at `since` or later.
    #[must_use]
    pub fn since(&self, since: Instant) -> Self {
        self.chosen(|attempt| attempt.started >= since)
    }

    /// Those that began before `until`.
    #[must_use]
    pub fn until(&self, until: Instant) -> Self {
        self.chosen(|attempt| attempt.started < until)
    }

    fn chosen(&self, of: impl Fn(&Attempt) -> bool) -> Self {
        let chosen = self.attempts.iter().filter(|attempt| of(attempt));
        Self {
            attempts: chosen.cloned().collect(),
            ..self.clone()
        }
    }

    /// Those that failed.
    pub fn failed(&self) -> Vec<&Attempt> {
        let failed = self.attempts.iter().filter(|attempt| attempt.outcome.is_err());
        failed.collect()
    }

    /// How many this member answered.
    pub fn answered_by(&self, member: &str) -> usize {
        let answered = |attempt: &&Attempt| attempt.outcome.as_ref().is_ok_and(|name| name == member);
        self.attempts.iter().filter(answered).count()
    }

    /// The time that the slowest took.
    pub fn slowest(&self) -> Duration {
        slowest(&self.attempts)
    }

    /// What the machine alone costs at worst: twice the slowest attempt at an apiserver that was well, without the proxy;
    /// twice, because through the proxy there are two connections, each with its own turns to wait for.
    pub fn machine(&self) -> Duration {
        slowest(&self.reference) * 2
    }

    /// When the first one succeeded that began at `since` or later.
    pub fn first_success(&self, since: Instant) -> Option<Instant> {
        let successes = self
            .attempts
            .iter()
            .filter(|attempt| attempt.started >= since && attempt.outcome.is_ok());
        successes.map(|attempt| attempt.started + attempt.took).min()
    }
}

fn slowest(attempts: &[Attempt]) -> Duration {
    attempts
        .iter()
        .map(|attempt| attempt.took)
        .max()
        .unwrap_or_default()
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slowest, machine) = (self.slowest().as_millis(), self.machine().as_millis());
        let failed = self.failed();
        write!(
            f,
            "{} attempts, {} failed, slowest {slowest} ms (of it the machine's: up to {machine} ms)",
            self.attempts.len(),
            failed.len(),
        )?;
        for attempt in failed.iter().take(5) {
            let at = attempt.started.duration_since(self.began).as_secs_f32();
            let took = attempt.took.as_millis();
            write!(f, "\n  at {at:.3} s, after {took} ms: {:?}", attempt.outcome)?;
        }
        Ok(())
    }
}

/// Attempts under way.
#[derive(Debug)]
pub struct Attempts {
    began: Instant,
    stop: CancellationToken,
    through: JoinHandle<Vec<Attempt>>,
    reference: JoinHandle<Vec<Attempt>>,
}

impl Attempts {
    /// Asks for `path` through the proxy, `per_second` times a second, until told to finish.
    pub(crate) fn start(proxy: Client, reference: Client, path: &str, per_second: u32) -> Self {
        let stop = CancellationToken::new();
        let (path, period) = (path.to_owned(), Duration::from_secs(1) / per_second.max(1));
        let through = stream(proxy, path, period, stop.clone());
        // Half as often will do to meet the same moments, and costs the machine less.
        let reference = stream(reference, "/whoami".to_owned(), period * 2, stop.clone());
        Self {
            began: Instant::now(),
            stop,
            through: tokio::spawn(through),
            reference: tokio::spawn(reference),
        }
    }

    /// Starts no further attempt, waits for those under way, and returns them all.
    pub async fn finish(self) -> Result<Record> {
        self.stop.cancel();
        Ok(Record {
            began: self.began,
            attempts: self.through.await.context("the attempts were lost")?,
            reference: self.reference.await.context("the reference was lost")?,
        })
    }
}

async fn stream(client: Client, path: String, period: Duration, stop: CancellationToken) -> Vec<Attempt> {
    let mut clock = interval(period);
    // A machine that was busy for a moment catches up, so that the promised number of attempts is made.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut finished) = (JoinSet::new(), Vec::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = clock.tick() => {
                let (client, path) = (client.clone(), path.clone());
                under_way.spawn(async move { Attempt::make(&client, &path).await });
            }
            Some(Ok(attempt)) = under_way.join_next() => finished.push(attempt),
        }
    }
    finished.extend(under_way.join_all().await);
    finished.sort_by_key(|attempt: &Attempt| attempt.started);
    finished
}
