//! The processes of a run: each ends with us, however we end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::{prctl, signal};
use nix::unistd::Pid;
use trivet_testbed::Stopwatch;

use crate::measure;

/// How long a process may take to start, and to end, before we lose patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often we look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process with its output in a file.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, told by the kernel to end when we do.
    pub(crate) fn start(name: &'static str, command: &Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        // TERM and not KILL: a master that is killed leaves its workers behind.
        let mut started = Command::new("setpriv");
        started
            .args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = started
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// It and those it forked.
    pub(crate) fn family(&self) -> Result<Vec<u32>> {
        measure::family(self.child.id())
    }

    /// Waits until `ready` says so.
    pub(crate) fn wait_until(&mut self, ready: impl Fn() -> bool) -> Result<()> {
        self.wait_at_most(PATIENCE, ready)
    }

    /// The same, with another limit.
    pub(crate) fn wait_at_most(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        while !ready() {
            self.check()?;
            if watch.elapsed() > limit {
                bail!("{} is not ready after {limit:?}:\n{}", self.name, self.said());
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// An error with its last words, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.said()),
            None => Ok(()),
        }
    }

    fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal::Signal::SIGTERM)?;
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(LOOK_EVERY);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("failed to stop {}: {error:#}", self.name);
        }
    }
}

/// Ends this process when the driver ends.
pub(crate) fn end_with_parent() -> Result<()> {
    prctl::set_pdeathsig(signal::Signal::SIGKILL).context("failed to follow the driver's end")
}
