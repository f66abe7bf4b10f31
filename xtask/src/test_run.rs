//! What the end of a long run tells again of its tests: the errors of those that failed, and how long each took.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::iter;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use trivet_testbed::Stopwatch;

/// A failed test and what it printed from its error on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failure {
    test: String,
    error: Vec<String>,
}

/// Reads the lines of a test program whose tests run one by one, with `--nocapture`.
#[derive(Debug, Default)]
struct TestRun {
    /// The test that runs.
    test: String,
    /// When the one before it ended, since the start of the program: the name of a test comes with its first line.
    last_end: Duration,
    /// Its error, once it has printed one.
    error: Vec<String>,
    failed: Vec<Failure>,
    /// What each test that has ended took.
    took: Vec<(String, Duration)>,
}

impl TestRun {
    /// The next line, and when it came, since the start of the program.
    fn read(&mut self, line: &str, now: Duration) {
        if line.starts_with("running ") {
            self.last_end = now;
        } else if let Some((test, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            test.clone_into(&mut self.test);
            self.error.clear();
            if outcome == "ok" {
                self.ended(now);
            }
        } else if line == "ok" {
            self.ended(now);
        } else if line == "FAILED" {
            self.ended(now);
            self.failed.push(Failure {
                test: std::mem::take(&mut self.test),
                error: std::mem::take(&mut self.error),
            });
        } else if !self.error.is_empty() || begins_an_error(line) {
            self.error.push(line.to_owned());
        }
    }

    fn ended(&mut self, now: Duration) {
        self.took
            .push((self.test.clone(), now.saturating_sub(self.last_end)));
        self.last_end = now;
    }

    /// What each test took, the longest first.
    fn table(&self) -> String {
        let mut took: Vec<_> = self.took.iter().collect();
        took.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        let lines = took
            .into_iter()
            .map(|(test, took)| format!("{:>7.1} s  {test}\n", took.as_secs_f32()));
        lines.collect()
    }
}

fn begins_an_error(line: &str) -> bool {
    line.starts_with("Error: ") || (line.starts_with("thread '") && line.contains("panicked at"))
}

/// How a run of cargo ended.
pub(crate) fn ended(command: &Command, status: ExitStatus) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = iter::once(program).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}` ended with {status}", words.join(" "))
}

/// Runs tests one by one, passes on all that they print, tells how long each took, and fails with the errors of those that
/// failed.
pub(crate) fn finish(tests: &mut Command) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    tests.stdout(writer.try_clone()?).stderr(writer);
    let mut running = tests.spawn().context("failed to start cargo")?;
    // The command keeps this side of the pipe open, which would never end.
    tests
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());

    let watch = Stopwatch::start();
    let mut run = TestRun::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut out = std::io::stdout().lock();
    while reader
        .read_until(b'\n', &mut line)
        .context("failed to read what the tests print")?
        > 0
    {
        out.write_all(&line).context("failed to print")?;
        run.read(
            String::from_utf8_lossy(&line).trim_end_matches('\n'),
            watch.elapsed(),
        );
        line.clear();
    }
    let status = running.wait().context("failed to wait for cargo")?;
    write!(out, "\nTime taken by each test:\n{}", run.table()).context("failed to print")?;
    if status.success() {
        return Ok(());
    }
    let mut told = ended(tests, status);
    for Failure { test, error } in run.failed {
        told = format!("{told}\n\n{test}:\n{}", error.join("\n"));
    }
    bail!(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after these lines, of which one comes each second.
    fn ran(text: &str) -> TestRun {
        let mut run = TestRun::default();
        for (seconds, line) in (0..).zip(text.lines()) {
            run.read(line, Duration::from_secs(seconds));
        }
        run
    }

    fn failed(text: &str) -> Vec<Failure> {
        ran(text).failed
    }

    #[test]
    fn the_error_of_a_failed_test_is_kept_and_what_others_print_is_not() {
        let failed = failed(
            "running 3 tests\n\
             test one ...   it took 3 s\n\
             ok\n\
             test two ... a word\n\
             Error: the pool Ready: not within 120 s\n\
             \n\
             Caused by:\n\
             \x20   not yet\n\
             FAILED\n\
             test three ... ok\n\
             \n\
             failures:\n\
             \x20   two\n",
        );
        let [Failure { test, error }] = &failed[..] else {
            panic!("{failed:?}")
        };
        assert_eq!(test, "two");
        assert_eq!(
            error,
            &[
                "Error: the pool Ready: not within 120 s",
                "",
                "Caused by:",
                "    not yet"
            ]
        );
    }

    #[test]
    fn a_panic_is_an_error_too() {
        let failed = failed("test one ... \nthread 'one' (7) panicked at src/lib.rs:1:1:\nno\nFAILED\n");
        assert_eq!(failed[0].error[1], "no");
    }

    #[test]
    fn the_longest_test_is_told_first() {
        let run = ran(
            "Compiling\nrunning 3 tests\ntest one ... ok\ntest two ...   a word\nok\ntest three ... ok\n",
        );
        assert_eq!(run.table(), "    2.0 s  two\n    1.0 s  one\n    1.0 s  three\n");
    }
}
