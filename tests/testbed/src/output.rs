//! Short commands of other tools: their output, or an error with their error output.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and returns its standard output.
pub(crate) fn of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", name(command)))?;
    judge(command, &output)
}

/// The same, with something to read on standard input.
pub(crate) fn with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", name(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read to the end says why by its status.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("lost {}", name(command)))?;
    judge(command, &output)
}

fn judge(command: &Command, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{} failed ({}): {}", name(command), output.status, said.trim())
}

/// The program and the start of its arguments: enough to recognise the command.
fn name(command: &Command) -> String {
    const SHOWN: usize = 12;
    let arguments = command
        .get_args()
        .take(SHOWN)
        .map(|argument| argument.to_string_lossy());
    let words: Vec<_> = std::iter::once(command.get_program().to_string_lossy())
        .chain(arguments)
        .collect();
    words.join(" ")
}
