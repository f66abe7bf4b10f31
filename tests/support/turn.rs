//! One scenario at a time: they share one cluster, and each breaks it in its own way.

use std::fs::File;

use anyhow::{Context, Result};

use crate::say::say;

/// Beside the testbed's own lock; a boot of the machine clears both.
const LOCK: &str = "/run/trivet-scenario.lock";

/// Held by the scenario whose turn it is. The kernel releases it however the scenario ends.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until no other scenario runs on this machine, be it of this process or another.
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
        Ok(Self { _lock: lock })
    }
}
