//! What became of a stream of attempts, and the numbers that are promised about them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::Attempt;

/// What a person would call slow.
const SLOW: Duration = Duration::from_secs(1);

/// Attempts in the order in which they started.
#[derive(Debug, Clone, Default)]
pub struct Record {
    attempts: Vec<Attempt>,
    reference: Vec<Attempt>,
}

impl Record {
    /// Of these attempts.
    pub fn new(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.started);
        Self {
            attempts,
            reference: Vec::new(),
        }
    }

    /// With attempts of the same time at an apiserver that was well, without the proxy.
    #[must_use]
    pub fn beside(self, reference: Vec<Attempt>) -> Self {
        Self { reference, ..self }
    }

    /// All attempts.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Those that began at `since` or later.
    #[must_use]
    pub fn since(&self, since: Instant) -> Self {
        self.chosen(|attempt| attempt.started >= since)
    }

    /// Those that began before `until`.
    #[must_use]
    pub fn until(&self, until: Instant) -> Self {
        self.chosen(|attempt| attempt.started < until)
    }

    fn chosen(&self, of: impl Fn(&Attempt) -> bool) -> Self {
        let chosen = self.attempts.iter().filter(|attempt| of(attempt));
        Self {
            attempts: chosen.cloned().collect(),
            reference: self.reference.clone(),
        }
    }

    /// Those that failed, whenever.
    pub fn failed(&self) -> Vec<&Attempt> {
        self.those(|attempt| !attempt.succeeded())
    }

    /// Those that started at `since` or later and failed.
    pub fn failed_since(&self, since: Timestamp) -> Vec<&Attempt> {
        self.those(|attempt| !attempt.succeeded() && attempt.at >= since)
    }

    /// Those that got no whole answer, whatever it would have said.
    pub fn unanswered(&self) -> Vec<&Attempt> {
        self.those(|attempt| !attempt.was_answered())
    }

    fn those(&self, of: impl Fn(&Attempt) -> bool) -> Vec<&Attempt> {
        self.attempts.iter().filter(|attempt| of(attempt)).collect()
    }

    /// Fails, with the first failure, unless every attempt of `client` succeeded.
    pub fn all_succeeded(&self, client: &str) -> Result<()> {
        let failed = self.failed();
        let first = failed.first().map(ToString::to_string).unwrap_or_default();
        ensure!(
            failed.is_empty(),
            "{client}: {} of {} connections failed, the first: {first}",
            failed.len(),
            self.attempts.len()
        );
        ensure!(!self.attempts.is_empty(), "{client} made no attempt");
        Ok(())
    }

    /// How many this server answered.
    pub fn answered_by(&self, server: &str) -> usize {
        let by = |attempt: &Attempt| attempt.succeeded() && attempt.server.as_deref() == Some(server);
        self.those(by).len()
    }

    /// The servers that answered.
    pub fn servers(&self) -> BTreeSet<&str> {
        let succeeded = self.attempts.iter().filter(|attempt| attempt.succeeded());
        succeeded
            .filter_map(|attempt| attempt.server.as_deref())
            .collect()
    }

    /// Those that succeeded, but took more than a second.
    pub fn slow(&self) -> Vec<&Attempt> {
        self.those(|attempt| attempt.succeeded() && attempt.took > SLOW)
    }

    /// The time that the slowest took.
    pub fn slowest(&self) -> Duration {
        slowest(&self.attempts)
    }

    /// What the machine alone costs at worst: twice the slowest attempt at an apiserver that was well, without the
    /// proxy; twice, because through the proxy there are two connections, each with its own turns to wait for.
    pub fn machine(&self) -> Duration {
        slowest(&self.reference) * 2
    }

    /// When the first one succeeded that began at `since` or later.
    pub fn first_success(&self, since: Instant) -> Option<Instant> {
        let successes = self
            .attempts
            .iter()
            .filter(|attempt| attempt.started >= since && attempt.succeeded());
        successes.map(|attempt| attempt.started + attempt.took).min()
    }

    /// The longest time without an answer from anyone: what a user of the node would call the outage.
    pub fn longest_gap(&self) -> Duration {
        let end = |attempt: &Attempt| attempt.started + attempt.took;
        let (Some(first), Some(last)) = (self.attempts.first(), self.attempts.iter().map(end).max()) else {
            return Duration::ZERO;
        };
        let succeeded = self.attempts.iter().filter(|attempt| attempt.succeeded());
        let mut answers: Vec<_> = succeeded.map(end).collect();
        answers.sort_unstable();
        let ends = answers.iter().copied().chain([last]);
        let starts = std::iter::once(first.started).chain(answers.iter().copied());
        starts
            .zip(ends)
            .map(|(start, end)| end.saturating_duration_since(start))
            .max()
            .unwrap_or_default()
    }
}

fn slowest(attempts: &[Attempt]) -> Duration {
    let times = attempts.iter().map(|attempt| attempt.took);
    times.max().unwrap_or_default()
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slowest, machine) = (self.slowest().as_millis(), self.machine().as_millis());
        let failed = self.failed();
        write!(
            f,
            "{} attempts, {} failed, slowest {slowest} ms (of it the machine's: up to {machine} ms)",
            self.attempts.len(),
            failed.len(),
        )?;
        failed
            .iter()
            .take(5)
            .try_for_each(|attempt| write!(f, "\n  {attempt}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    fn attempt(start: Instant, at: u64, took: u64, outcome: Outcome) -> Attempt {
        Attempt {
            at: Timestamp::from_millisecond(at.try_into().unwrap()).unwrap(),
            started: start + Duration::from_millis(at),
            took: Duration::from_millis(took),
            outcome,
            server: Some("cp1".to_owned()),
            error: None,
        }
    }

    fn record() -> Record {
        let start = Instant::now();
        Record::new(vec![
            attempt(start, 2000, 100, Outcome::Reset),
            attempt(start, 1000, 10, Outcome::Answered),
            attempt(start, 3000, 1500, Outcome::Answered),
            attempt(start, 3100, 10_000, Outcome::TimedOut),
        ])
    }

    #[test]
    fn failures_are_told_by_when_they_started() {
        let since = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
        assert_eq!(record().failed().len(), 2);
        assert_eq!(record().failed_since(since(2001)).len(), 1);
        assert_eq!(record().failed_since(since(2000)).len(), 2);
    }

    #[test]
    fn the_gap_lasts_from_one_answer_to_the_next_or_to_the_end() {
        // Answers at 1.01 s and 4.5 s; the last attempt gives up at 13.1 s.
        assert_eq!(record().longest_gap(), Duration::from_millis(8600));
        let reset = attempt(Instant::now(), 0, 500, Outcome::Reset);
        assert_eq!(Record::new(vec![reset]).longest_gap(), Duration::from_millis(500));
        assert_eq!(Record::default().longest_gap(), Duration::ZERO);
    }

    #[test]
    fn only_an_answer_is_slow_and_only_an_answer_names_a_server() {
        assert_eq!(record().slow().len(), 1);
        assert_eq!(record().servers().len(), 1);
        assert_eq!(record().answered_by("cp1"), 2);
        let refused = attempt(Instant::now(), 0, 1, Outcome::Refused);
        assert!(Record::new(vec![refused]).servers().is_empty());
    }

    #[test]
    fn a_part_of_a_record_keeps_what_the_machine_cost_in_all_of_it() {
        let start = Instant::now();
        let reference = vec![attempt(start, 0, 7, Outcome::Answered)];
        let record = record().beside(reference);
        let part = record.until(record.attempts()[1].started);
        assert_eq!(part.attempts().len(), 1);
        assert_eq!(part.machine(), Duration::from_millis(14));
    }
}
