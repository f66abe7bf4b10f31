//! Progress output of long operations: one line per step, with its duration.

use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// The destination of progress lines. Shared by the threads that work on hosts.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    quiet: bool,
}

impl Progress {
    /// Lines on standard error, so that standard output stays what a script asked for.
    pub fn new() -> Self {
        Self { quiet: false }
    }

    /// No lines: for tests whose output is their own.
    pub fn quiet() -> Self {
        Self { quiet: true }
    }

    /// Prints what starts, or what has just been done.
    pub fn step(&self, message: &str) {
        self.line(message);
    }

    /// Prints what has been done and how long it took.
    pub fn done(&self, message: impl Display, took: &Stopwatch) {
        self.line(&format!("{message} ({:.1} s)", took.elapsed().as_secs_f32()));
    }

    fn line(&self, message: &str) {
        if !self.quiet {
            // A closed standard error (a pager that was left) must not end the work half way.
            drop(writeln!(std::io::stderr(), "▸ {message}"));
        }
    }
}

/// Measures how long something took.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[allow(
        clippy::disallowed_methods,
        reason = "the testbed waits for real processes: there is no paused clock to follow"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
