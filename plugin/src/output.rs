//! What is printed: tables and JSON on stdout, progress on stderr.

pub(crate) mod table;
pub(crate) mod text;

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cli;

/// Where the output goes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    has_colours: bool,
}

/// How a word stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It does not.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// As it should be.
    Good,
    /// Somebody should look at it.
    Doubtful,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The SGR parameter of ECMA-48, which every terminal knows.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Good => Some("32"),
            Self::Doubtful => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

impl Screen {
    /// With colours on a terminal, unless the flag or NO_COLOR says otherwise (<https://no-color.org>).
    pub fn of(flags: &cli::Access) -> Self {
        let is_refused = flags.no_color.as_ref().is_some_and(|value| !value.is_empty());
        Self {
            has_colours: !is_refused && std::io::stdout().is_terminal(),
        }
    }

    /// Without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { has_colours: false }
    }

    /// A word in its tone.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        match tone.code().filter(|_| self.has_colours) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }

    /// Prints a text.
    #[allow(clippy::unused_self, reason = "a caller that prints has asked for a screen")]
    pub(crate) fn print(self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        match written {
            // The reader has what it wants, as `head` has.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("failed to print"),
        }
    }

    /// Prints a value for scripts.
    pub(crate) fn print_json(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).context("failed to serialise the output")?;
        self.print(&(text + "\n"))
    }
}

/// Says on stderr how far a long command is.
pub(crate) fn progress(line: &str) {
    // Progress that nobody can read is no reason to stop.
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// How long a command may be silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for work, and says so on stderr where it takes longer than [`PATIENCE`].
pub(crate) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(PATIENCE) => progress(&format!("{what} ...")),
    }
    work.await
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    trivet_operator::logging::chain(error.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(Screen::plain().paint(Tone::Bad, "Down"), "Down");
        let screen = Screen { has_colours: true };
        assert_eq!(screen.paint(Tone::Bad, "Down"), "\u{1b}[31mDown\u{1b}[0m");
        assert_eq!(screen.paint(Tone::Plain, "Up"), "Up");
        let no_color = |value: &str| cli::Access {
            no_color: Some(value.to_owned()),
            ..cli::Access::default()
        };
        assert!(!Screen::of(&no_color("0")).has_colours, "any value counts");
    }
}
