//! One attempt, and how it ended.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A new connection, a full TLS handshake, one request, its whole answer.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it started, for people and for comparison with what other programs wrote.
    pub at: Timestamp,
    /// The same moment by the monotonic clock, which is never set.
    pub started: Instant,
    /// How long it took, successful or not.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The apiserver at its other end, if it got that far.
    pub server: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer of status 200.
    Answered,
    /// A whole answer of another status.
    NotOk,
    /// Nothing listened.
    Refused,
    /// A reset came before the whole answer was there.
    Reset,
    /// It ended otherwise before the whole answer was there.
    Ended,
    /// No whole answer in time.
    TimedOut,
    /// A certificate that the authority did not sign, or bytes that are no TLS.
    Untrusted,
}

impl Attempt {
    /// Whether the client got what it asked for.
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Answered
    }

    /// Whether the client got a whole answer, whatever it said: the rest is the proxy's part, not the apiserver's.
    pub fn was_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered | Outcome::NotOk)
    }

    /// When it was over.
    pub fn end(&self) -> Timestamp {
        self.at.checked_add(self.took).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, outcome, .. } = self;
        write!(f, "{at} {outcome:?} after {} ms", self.took.as_millis())?;
        self.server
            .iter()
            .try_for_each(|server| write!(f, " by {server}"))?;
        self.error.iter().try_for_each(|error| write!(f, ": {error}"))
    }
}
