//! The errors of tests, gathered from what they print, so that the end of a long run tells them again.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

/// A failed test and what it printed from its error on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failure {
    test: String,
    error: Vec<String>,
}

/// Reads the lines of a test program whose tests run one by one, with `--nocapture`.
#[derive(Debug, Default)]
struct Failures {
    /// The test that runs.
    test: String,
    /// Its error, once it has printed one.
    error: Vec<String>,
    failed: Vec<Failure>,
}

impl Failures {
    fn read(&mut self, line: &str) {
        if let Some((test, _)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            test.clone_into(&mut self.test);
            self.error.clear();
        } else if line == "FAILED" {
            self.failed.push(Failure {
                test: std::mem::take(&mut self.test),
                error: std::mem::take(&mut self.error),
            });
        } else if !self.error.is_empty() || begins_an_error(line) {
            self.error.push(line.to_owned());
        }
    }
}

fn begins_an_error(line: &str) -> bool {
    line.starts_with("Error: ") || (line.starts_with("thread '") && line.contains("panicked at"))
}

/// How a run of cargo ended.
pub(crate) fn ended(cargo: &Command, status: ExitStatus) -> String {
    let arguments: Vec<_> = cargo.get_args().map(OsStr::to_string_lossy).collect();
    format!("`cargo {}` ended with {status}", arguments.join(" "))
}

/// Runs tests one by one, passes on all that they print, and fails with the errors of those that failed.
pub(crate) fn finish(tests: &mut Command) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    tests.stdout(writer.try_clone()?).stderr(writer);
    let mut running = tests.spawn().context("failed to start cargo")?;
    // The command keeps this side of the pipe open, which would never end.
    tests
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());

    let mut failures = Failures::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut out = std::io::stdout().lock();
    while reader
        .read_until(b'\n', &mut line)
        .context("failed to read what the tests print")?
        > 0
    {
        out.write_all(&line).context("failed to print")?;
        failures.read(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    let status = running.wait().context("failed to wait for cargo")?;
    if status.success() {
        return Ok(());
    }
    let mut told = ended(tests, status);
    for Failure { test, error } in failures.failed {
        told = format!("{told}\n\n{test}:\n{}", error.join("\n"));
    }
    bail!(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Failure> {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read(line));
        failures.failed
    }

    #[test]
    fn the_error_of_a_failed_test_is_kept_and_what_others_print_is_not() {
        let failed = read(
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
        let failed = read("test one ... \nthread 'one' (7) panicked at src/lib.rs:1:1:\nno\nFAILED\n");
        assert_eq!(failed[0].error[1], "no");
    }
}
