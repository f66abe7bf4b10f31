//! The prober of one upstream, as `probe.rs` runs it: which questions it puts when, and what it reports.
//!
//! The constants and the order of the steps are those of `Prober::run` and `Prober::round`.

use std::time::Duration;

use trivet_proxy::balance::{health::Outcome, schedule::READINESS_LIMIT};

use crate::schedule::{Answer, Question, Time};

/// Added to the time of the second question.
const GRACE: Duration = Duration::from_millis(100);

/// The document's `healthCheck`.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// What the prober tells the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) at: Time,
    pub(crate) asked: Time,
    /// None while the question only waits for longer than it should.
    pub(crate) outcome: Option<Outcome>,
}

/// One round, from its first question to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) reports: Vec<Report>,
    /// When questions were put.
    pub(crate) questions: Vec<Time>,
    pub(crate) ended: Time,
    /// Whether the connection of the readiness questions is kept.
    pub(crate) kept: bool,
}

/// A round that starts at `asked`. `answer` says when a question that is put at a time is answered, and how; the second
/// question follows after `patience`, and further ones are an `interval` apart.
pub(crate) fn round(
    asked: Time,
    (interval, patience): (Duration, Duration),
    mut answer: impl FnMut(Question, Time) -> Option<(Time, Answer)>,
) -> Round {
    let mut round = Round {
        questions: vec![asked],
        ..Round::default()
    };
    let ready = answer(Question::Readiness, asked);
    let ready_by = |limit: Time| ready.filter(|(at, _)| *at <= limit);
    let late = asked + patience / 2;
    if let Some(ready) = ready_by(late) {
        return round.readiness(asked, ready);
    }
    round.reports.push(Report {
        at: late,
        asked,
        outcome: None,
    });
    let mut now = asked + patience;
    if let Some(ready) = ready_by(now) {
        return round.readiness(asked, ready);
    }
    if patience >= READINESS_LIMIT {
        return round.report(now, asked, Outcome::Silent).end(now);
    }
    let mut heard = false;
    while now.saturating_sub(asked) < READINESS_LIMIT {
        let asked_again = now;
        round.questions.push(asked_again);
        let limit = asked_again + TIMEOUT + GRACE;
        let life = answer(Question::Life, asked_again).filter(|(at, _)| *at <= limit);
        let over = life.map_or(limit, |(at, _)| at);
        if let Some(ready) = ready_by(over) {
            return round.readiness(asked, ready);
        }
        now = over;
        match life {
            Some((at, Answer::Refused)) => return round.report(at, asked_again, Outcome::Refused).end(at),
            Some((at, Answer::Ready | Answer::NotReady | Answer::EtcdFailed)) => {
                heard = true;
                round = round.report(at, asked_again, Outcome::Late);
            }
            None if heard => round = round.report(limit, asked_again, Outcome::Silent),
            None => {
                return round
                    .report(limit, asked, Outcome::Silent)
                    .report(limit, asked_again, Outcome::Silent)
                    .end(limit);
            }
        }
        let next = (asked_again + interval).min(asked + READINESS_LIMIT).max(now);
        if let Some(ready) = ready_by(next) {
            return round.readiness(asked, ready);
        }
        now = next;
    }
    round.end(now)
}

impl Round {
    fn readiness(mut self, asked: Time, (at, answer): (Time, Answer)) -> Self {
        let outcome = match answer {
            Answer::Ready => Outcome::Ready,
            Answer::NotReady => Outcome::NotReady,
            Answer::EtcdFailed => Outcome::EtcdFailed,
            Answer::Refused => Outcome::Refused,
        };
        self.kept = answer != Answer::Refused;
        self.report(at, asked, outcome).end(at)
    }

    fn report(mut self, at: Time, asked: Time, outcome: Outcome) -> Self {
        self.reports.push(Report {
            at,
            asked,
            outcome: Some(outcome),
        });
        self
    }

    fn end(mut self, at: Time) -> Self {
        self.ended = at;
        self
    }
}
