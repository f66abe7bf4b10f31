//! What became of a host's attempts, and the numbers that are promised about them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde::Serialize;

/// What a person would call slow.
const SLOW: Duration = Duration::from_secs(1);

/// One attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// When it started.
    pub at: Timestamp,
    /// How long it took, successful or not.
    pub milliseconds: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The master whose certificate was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// A whole answer, and it said `ok`.
    Answered,
    /// A whole answer that said something else.
    NotOk,
    /// Nobody listened.
    Refused,
    /// Cut before the whole answer was there.
    Reset,
    /// No whole answer in time.
    TimedOut,
    /// A certificate that the cluster's CA did not sign, or bytes that are no TLS.
    Untrusted,
}

/// All attempts of one host, in the order in which they started.
#[derive(Debug, Clone, Default)]
pub struct Record(Vec<Attempt>);

impl Attempt {
    /// Whether the client got what it came for.
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Answered
    }

    /// When it was over.
    pub fn end(&self) -> Timestamp {
        self.at
            .checked_add(Duration::from_millis(self.milliseconds))
            .unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            milliseconds,
            outcome,
            ..
        } = self;
        write!(f, "{at} {outcome:?} after {milliseconds} ms")?;
        self.server
            .iter()
            .try_for_each(|server| write!(f, " by {server}"))?;
        self.error.iter().try_for_each(|error| write!(f, ": {error}"))
    }
}

impl Record {
    pub(super) fn new(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.at);
        Self(attempts)
    }

    /// All attempts.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0
    }

    /// Those that failed, whenever.
    pub fn failed(&self) -> Vec<&Attempt> {
        self.0.iter().filter(|attempt| !attempt.succeeded()).collect()
    }

    /// Fails, with the first failure, unless every attempt of `whom` succeeded.
    pub fn all_succeeded(&self, whom: &str) -> Result<()> {
        let failed = self.failed();
        let first = failed.first().map(ToString::to_string).unwrap_or_default();
        ensure!(
            failed.is_empty(),
            "{whom}: {} of {} connections failed, the first: {first}",
            failed.len(),
            self.0.len()
        );
        ensure!(!self.0.is_empty(), "{whom} made no attempt");
        Ok(())
    }

    /// Those that started at `since` or later and failed.
    pub fn failed_since(&self, since: Timestamp) -> Vec<&Attempt> {
        self.failed()
            .into_iter()
            .filter(|attempt| attempt.at >= since)
            .collect()
    }

    /// Those that got no whole answer, whatever it would have said: the proxy's part, not the apiserver's.
    pub fn unanswered(&self) -> Vec<&Attempt> {
        let answered = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Answered | Outcome::NotOk);
        self.0.iter().filter(|attempt| !answered(attempt)).collect()
    }

    /// How many succeeded, but took more than a second.
    pub fn slow(&self) -> usize {
        let slow = |attempt: &&Attempt| u128::from(attempt.milliseconds) > SLOW.as_millis();
        self.0
            .iter()
            .filter(|attempt| attempt.succeeded())
            .filter(slow)
            .count()
    }

    /// The masters that answered.
    pub fn servers(&self) -> BTreeSet<&str> {
        self.0
            .iter()
            .filter(|attempt| attempt.succeeded())
            .filter_map(|attempt| attempt.server.as_deref())
            .collect()
    }

    /// The longest time without an answer from anyone: what a user of the node would call the outage.
    pub fn longest_gap(&self) -> Duration {
        let (Some(first), Some(last)) = (self.0.first(), self.0.iter().map(Attempt::end).max()) else {
            return Duration::ZERO;
        };
        let mut answers: Vec<_> = self
            .0
            .iter()
            .filter(|attempt| attempt.succeeded())
            .map(Attempt::end)
            .collect();
        answers.sort_unstable();
        let ends = answers.iter().copied().chain([last]);
        let starts = std::iter::once(first.at).chain(answers.iter().copied());
        starts
            .zip(ends)
            .map(|(start, end)| between(start, end))
            .max()
            .unwrap_or_default()
    }
}

/// The time from `start` to `end`, none if they are the other way round.
fn between(start: Timestamp, end: Timestamp) -> Duration {
    end.duration_since(start).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: i64, milliseconds: u64, outcome: Outcome) -> Attempt {
        let at = Timestamp::from_millisecond(at).unwrap();
        Attempt {
            at,
            milliseconds,
            outcome,
            server: Some("cp1".to_owned()),
            error: None,
        }
    }

    fn record() -> Record {
        Record::new(vec![
            attempt(2000, 100, Outcome::Reset),
            attempt(1000, 10, Outcome::Answered),
            attempt(3000, 1500, Outcome::Answered),
            attempt(3100, 10_000, Outcome::TimedOut),
        ])
    }

    #[test]
    fn failures_are_told_by_when_they_started() {
        assert_eq!(record().failed().len(), 2);
        assert_eq!(
            record()
                .failed_since(Timestamp::from_millisecond(2001).unwrap())
                .len(),
            1
        );
        assert_eq!(
            record()
                .failed_since(Timestamp::from_millisecond(2000).unwrap())
                .len(),
            2
        );
    }

    #[test]
    fn the_gap_lasts_from_one_answer_to_the_next_or_to_the_end() {
        // Answers at 1.01 s and 4.5 s; the last attempt gives up at 13.1 s.
        assert_eq!(record().longest_gap(), Duration::from_millis(8600));
        assert_eq!(
            Record::new(vec![attempt(0, 500, Outcome::Reset)]).longest_gap(),
            Duration::from_millis(500)
        );
        assert_eq!(Record::default().longest_gap(), Duration::ZERO);
    }

    #[test]
    fn only_an_answer_is_slow_and_only_an_answer_names_a_server() {
        assert_eq!(record().slow(), 1);
        assert_eq!(record().servers().len(), 1);
        assert!(
            Record::new(vec![attempt(0, 1, Outcome::Refused)])
                .servers()
                .is_empty()
        );
    }
}
