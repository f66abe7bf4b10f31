//! Long commands of other tools, run quietly: a line now and then, their output only when they fail.

use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::progress::{Progress, Stopwatch};

/// The pause between two lines of progress: short enough to show that it does not hang, long enough for a readable log.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How many of the last lines of a failed command's output go into the error.
const KEPT_LINES: usize = 40;

/// Runs `command` to its end and returns its standard output.
pub(crate) fn run(progress: &Progress, doing: &str, command: &mut Command) -> Result<Vec<u8>> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "failed to start {} (while {doing})",
                command.get_program().display()
            )
        })?;
    let (finished, end) = mpsc::sync_channel(1);
    // Detached: the thread ends with the child, whose result is received below.
    thread::spawn(move || finished.send(child.wait_with_output()));

    let watch = Stopwatch::start();
    let output = loop {
        match end.recv_timeout(SIGN_OF_LIFE) {
            Ok(output) => break output.with_context(|| format!("lost the command that was {doing}"))?,
            Err(RecvTimeoutError::Timeout) => {
                progress.step(&format!("still {doing}: {} s so far", watch.elapsed().as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => bail!("lost the command that was {doing}"),
        }
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{doing} failed ({}):\n{}",
        output.status,
        last_lines(&said, KEPT_LINES)
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().rev().take(count).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_ends_with_what_the_command_said_last() {
        assert_eq!(last_lines("one\ntwo\nthree\n", 2), "two\nthree");
        assert_eq!(last_lines("one\n", 2), "one");
    }
}
