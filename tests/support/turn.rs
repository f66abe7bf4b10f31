//! One scenario at a time: they share one cluster, and each breaks it in its own way.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::say::say;

/// Beside the testbed's own lock; a boot of the machine clears both.
const LOCK: &str = "/run/trivet-scenario.lock";

/// Held by the scenario whose turn it is. The kernel releases it however the scenario ends.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
    began: Instant,
    /// What each step of the set-up took.
    steps: Vec<(&'static str, Duration)>,
}

/// A step of the set-up that takes less is not printed.
const SHORT: Duration = Duration::from_secs(1);

impl Turn {
    /// Waits until no other scenario runs on this machine, in this process or another.
    pub fn wait() -> Result<Self> {
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(LOCK)
        };
        let lock = open().with_context(|| format!("failed to open {LOCK}: the testbed needs root"))?;
        if lock.try_lock().is_err() {
            say("waiting for another scenario to end");
            lock.lock().with_context(|| format!("failed to lock {LOCK}"))?;
        }
        Ok(Self {
            _lock: lock,
            began: Instant::now(),
            steps: Vec::new(),
        })
    }

    /// A step of the set-up is done. After the last one the cluster is in the state that the scenario starts from.
    pub(crate) fn step(&mut self, name: &'static str) {
        let before = self.set_up();
        self.steps
            .push((name, self.began.elapsed().saturating_sub(before)));
    }

    fn set_up(&self) -> Duration {
        self.steps.iter().map(|(_, taken)| *taken).sum()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let long = self.steps.iter().filter(|(_, taken)| *taken >= SHORT);
        let long: Vec<_> = long
            .map(|(name, taken)| format!("{name} {:.1} s", taken.as_secs_f32()))
            .collect();
        say(format!(
            "it took {:.1} s, {:.1} s of them until the cluster was ready for it ({})",
            self.began.elapsed().as_secs_f32(),
            self.set_up().as_secs_f32(),
            long.join(", ")
        ));
    }
}
