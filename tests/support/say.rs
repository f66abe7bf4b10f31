//! The output of a running scenario. It bypasses libtest's capture, because people read the numbers there and a scenario of
//! three minutes must show progress.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stdout};

/// Prints one line at once.
pub fn say(line: impl Display) {
    print(&format!("  {line}"));
}

/// Begins a part of the demo.
pub fn chapter(title: impl Display) {
    print("");
    print(&styled("1;36", &format!("━━ {title}")));
}

/// Shows a command before it runs, as a person would type it.
pub fn shell(command_line: impl Display) {
    print(&styled("2", &format!("  $ {command_line}")));
}

/// Shows what a command printed.
pub fn output(text: &str) {
    text.lines().for_each(|line| print(&format!("    {line}")));
}

fn print(line: &str) {
    // A closed standard output (a pager that was left) must not end a measurement half way.
    drop(writeln!(stdout(), "{line}"));
}

/// Escape sequences are for terminals, not for logs.
fn styled(style: &str, text: &str) -> String {
    if stdout().is_terminal() {
        format!("\u{1b}[{style}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
