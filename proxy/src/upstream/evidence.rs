//! The latest outcomes of one path, for `trivet-proxy explain`. They decide nothing, and their number is bounded.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::balance::{Event, PathId, health::Outcome};

/// Runs kept of each origin: enough for a flap or two and the outcomes before.
const RUNS: usize = 8;

/// The longest detail. The start of an error says what failed.
const LONGEST_DETAIL: usize = 256;

/// What brought an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A probe of this proxy.
    Probe,
    /// A client's connection.
    Client,
}

impl Origin {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "Probe",
            Self::Client => "Client",
        }
    }
}

/// Consecutive equal outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What brought them.
    pub origin: Origin,
    /// The outcome, in one word.
    pub outcome: &'static str,
    /// The error or the failed checks; empty if the outcome is good.
    pub detail: String,
    /// How many in a row.
    pub times: u32,
    /// The time of the first.
    pub first: Instant,
    /// The time of the last.
    pub last: Instant,
    /// The duration of the last, if it had an answer.
    pub latency: Option<Duration>,
}

/// The time without any answer.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    cut: bool,
}

/// The latest outcomes of one path.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    probes: VecDeque<Run>,
    clients: VecDeque<Run>,
    silence: Option<Silence>,
}

impl Evidence {
    /// The path that an event is about, if the event is an outcome.
    pub(super) fn subject(event: &Event) -> Option<PathId> {
        match event {
            Event::Probed { id, .. }
            | Event::ProbeUnsent(id)
            | Event::Refused(id)
            | Event::OpenOverdue(id)
            | Event::ReplyOverdue(id)
            | Event::Replied(id, _)
            | Event::Answered(id, _) => Some(*id),
            Event::Configured { .. }
            | Event::Remembered { .. }
            | Event::Elapsed
            | Event::ProbeOverdue(_)
            | Event::Opened(_)
            | Event::Closed(_) => None,
        }
    }

    /// Adds an event about this path. Repeated outcomes cost no allocation, so a busy path is cheap.
    pub(super) fn note(&mut self, event: &Event, detail: &str, now: Instant) {
        self.listen(event, now);
        let (origin, outcome, latency) = match event {
            Event::Probed { asked, outcome, .. } => {
                let ended = *outcome != Outcome::Silent;
                let latency = ended.then(|| now.saturating_duration_since(*asked));
                (Origin::Probe, outcome.as_str(), latency)
            }
            Event::ProbeUnsent(_) => (Origin::Probe, "Unsent", None),
            Event::Refused(_) => (Origin::Client, "Refused", None),
            Event::OpenOverdue(_) => (Origin::Client, "OpenOverdue", None),
            Event::ReplyOverdue(_) => (Origin::Client, "ReplyOverdue", None),
            Event::Replied(..) => (Origin::Client, "Replied", None),
            Event::Answered(_, elapsed) => (Origin::Client, "Answered", Some(*elapsed)),
            Event::Configured { .. }
            | Event::Remembered { .. }
            | Event::Elapsed
            | Event::ProbeOverdue(_)
            | Event::Opened(_)
            | Event::Closed(_) => return,
        };
        let runs = match origin {
            Origin::Probe => &mut self.probes,
            Origin::Client => &mut self.clients,
        };
        let detail = shortened(detail);
        if let Some(run) = runs.back_mut()
            && run.outcome == outcome
            && run.detail == detail
        {
            run.times = run.times.saturating_add(1);
            run.last = now;
            run.latency = latency;
            return;
        }
        if runs.len() == RUNS {
            runs.pop_front();
        }
        runs.push_back(Run {
            origin,
            outcome,
            detail: detail.to_owned(),
            times: 1,
            first: now,
            last: now,
            latency,
        });
    }

    /// The runs of probes and clients, the latest first.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<_> = self.probes.iter().chain(&self.clients).cloned().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.last));
        runs
    }

    /// Records that connections are cut because of the silence. Returns the start of the silence at its first cut.
    pub(super) fn cut(&mut self) -> Option<Instant> {
        let silence = self.silence.as_mut()?;
        let again = std::mem::replace(&mut silence.cut, true);
        (!again).then_some(silence.since)
    }

    /// Updates the silence: it begins with the first probe without an answer, or with the first overdue open, and ends with
    /// any answer.
    fn listen(&mut self, event: &Event, now: Instant) {
        let began = match event {
            Event::Probed { asked, outcome, .. } if *outcome == Outcome::Silent => *asked,
            Event::OpenOverdue(_) => now,
            Event::Probed { .. } | Event::Refused(_) | Event::Replied(..) | Event::Answered(..) => {
                self.silence = None;
                return;
            }
            // A reply may be overdue because the request takes long.
            Event::ReplyOverdue(_)
            | Event::ProbeUnsent(_)
            | Event::Configured { .. }
            | Event::Remembered { .. }
            | Event::Elapsed
            | Event::ProbeOverdue(_)
            | Event::Opened(_)
            | Event::Closed(_) => return,
        };
        self.silence.get_or_insert(Silence {
            since: began,
            cut: false,
        });
    }
}

fn shortened(detail: &str) -> &str {
    let mut end = detail.len().min(LONGEST_DETAIL);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Balance, Decision, Disabled, PathKey, Target, health::Policy, place::Distance};

    const SECOND: Duration = Duration::from_secs(1);

    fn some_upstream() -> PathId {
        let target = Target {
            key: PathKey {
                member: "cp1".to_owned(),
                address: "10.0.0.1:6443".parse().unwrap(),
            },
            preference: 0,
            draining: false,
            proven: true,
            distance: Distance::default(),
        };
        let policy = Policy {
            failure_threshold: 2,
            success_threshold: 2,
            probe_interval: SECOND,
        };
        let configured = Event::Configured {
            targets: vec![target],
            disabled: Disabled::default(),
            policy,
        };
        let decisions = Balance::new("w1").observe(configured, Instant::now());
        match decisions.first() {
            Some(Decision::Watch(id, _)) => *id,
            other => panic!("no upstream: {other:?}"),
        }
    }

    fn probed(outcome: Outcome, asked: Instant) -> Event {
        Event::Probed {
            id: some_upstream(),
            asked,
            verified: false,
            outcome,
        }
    }

    #[test]
    fn a_fall_is_remembered_through_any_number_of_good_answers() {
        let mut evidence = Evidence::default();
        let start = Instant::now();
        for (second, outcome) in [Outcome::Ready, Outcome::Silent, Outcome::Silent]
            .into_iter()
            .enumerate()
        {
            let now = start + SECOND * u32::try_from(second).unwrap();
            evidence.note(&probed(outcome, now), "", now);
        }
        for second in 3..10_000 {
            let now = start + SECOND * second;
            evidence.note(&probed(Outcome::Ready, now), "", now);
            evidence.note(&Event::Answered(some_upstream(), SECOND), "", now);
        }
        let told: Vec<_> = evidence
            .runs()
            .into_iter()
            .filter(|run| run.origin == Origin::Probe)
            .map(|run| (run.outcome, run.times))
            .collect();
        assert_eq!(told, [("Ready", 9_997), ("Silent", 2), ("Ready", 1)]);
    }

    #[test]
    fn whatever_happens_it_stays_small() {
        let mut evidence = Evidence::default();
        let now = Instant::now();
        for turn in 0..1000_u32 {
            let detail = format!("ü{turn}").repeat(1000);
            evidence.note(&probed(Outcome::Refused, now), &detail, now);
            evidence.note(&Event::OpenOverdue(some_upstream()), &detail, now);
        }
        let runs = evidence.runs();
        assert_eq!(runs.len(), 2 * RUNS);
        assert!(runs.iter().all(|run| run.detail.len() <= LONGEST_DETAIL));
    }

    #[test]
    fn a_silence_lasts_from_its_first_sign_to_its_first_cut() {
        let mut evidence = Evidence::default();
        let start = Instant::now();
        evidence.note(&Event::OpenOverdue(some_upstream()), "", start);
        evidence.note(&probed(Outcome::Ready, start + SECOND), "", start + SECOND);
        assert_eq!(evidence.cut(), None);
        evidence.note(&Event::OpenOverdue(some_upstream()), "", start + SECOND * 2);
        evidence.note(
            &probed(Outcome::Silent, start + SECOND * 3),
            "",
            start + SECOND * 4,
        );
        assert_eq!(evidence.cut(), Some(start + SECOND * 2));
        assert_eq!(evidence.cut(), None);
    }
}
