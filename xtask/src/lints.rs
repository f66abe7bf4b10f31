//! Lints of the whole workspace, beside tests that wait more than they work.

use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow, bail};
use trivet_testbed::setup;

/// What to look at. `--all-targets` leaves out what a plain `cargo test` does, though it be named beside it.
const TARGETS: [&str; 2] = ["--all-targets", "--test lab --test scenarios"];

/// Lints under way. They end with this program.
pub(crate) struct Lints(JoinHandle<Result<()>>);

/// Begins, where nothing else wants the CPU. Its own directory: a test run must not wait for the lock of the builds.
pub(crate) fn start_beside(root: &Path, selection: &'static str) -> Lints {
    let root = root.to_owned();
    Lints(thread::spawn(move || {
        for targets in TARGETS {
            let lint = format!("clippy {selection} {targets} --target-dir target/lints -- --deny warnings");
            let mut cargo = setup::cargo();
            cargo.args(lint.split_whitespace()).current_dir(&root);
            let output = setup::idle(&cargo).output()?;
            if !output.status.success() {
                bail!("cargo {lint}\n{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }))
}

impl Lints {
    /// Waits for their end; what they found is the error.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.join().map_err(|_| anyhow!("the lints panicked"))?
    }
}
