//! What was heard of one path lately, for people who ask why it is in its state. It decides nothing, and its size is
//! bounded, whatever happens.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::balance::{Event, PathId, health::Outcome};

/// Runs kept of each origin: a flap or two, and what came before.
const RUNS: usize = 8;

/// The longest detail: the first words of an error say what failed.
const LONGEST_DETAIL: usize = 256;

/// What found it out.
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

/// The same outcome again and again, without another between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What found it out.
    pub origin: Origin,
    /// What came, in one word.
    pub outcome: &'static str,
    /// In more words; empty where all is well.
    pub detail: String,
    /// How often in a row.
    pub times: u32,
    /// For the first time.
    pub first: Instant,
    /// For the last time.
    pub last: Instant,
    /// How long the last took, where it came to an end.
    pub latency: Option<Duration>,
}

/// Since when nothing is heard.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    cut: bool,
}

/// What was heard of one path lately.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    probes: VecDeque<Run>,
    clients: VecDeque<Run>,
    silence: Option<Silence>,
}

impl Evidence {
    /// The path that an event is about, if it says how that path is.
    pub(super) fn subject(event: &Event) -> Option<PathId> {
        match event {
            Event::Probed { id, .. }
            | Event::ProbeUnsent(id)
            | Event::Refused(id)
            | Event::OpenOverdue(id)
            | Event::ReplyOverdue(id)
            | Event::Answered(id, _) => Some(*id),
            Event::Configured { .. }
            | Event::Remembered(_)
            | Event::ProbeOverdue(_)
            | Event::Opened(_)
            | Event::Closed(_) => None,
        }
    }

    /// Takes in an event about this path. Costs a busy path no allocation while its clients are well.
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
            Event::Answered(_, elapsed) => (Origin::Client, "Answered", Some(*elapsed)),
            Event::Configured { .. }
            | Event::Remembered(_)
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

    /// What probes and clients found, the latest first.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<_> = self.probes.iter().chain(&self.clients).cloned().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.last));
        runs
    }

    /// Says that connections are cut for the silence, and since when it lasts if this is the first cut for it.
    pub(super) fn cut(&mut self) -> Option<Instant> {
        let silence = self.silence.as_mut()?;
        let again = std::mem::replace(&mut silence.cut, true);
        (!again).then_some(silence.since)
    }

    /// The silence begins with the first probe that stays without an answer, or the first client that does, and ends with
    /// any answer.
    fn listen(&mut self, event: &Event, now: Instant) {
        let began = match event {
            Event::Probed { asked, outcome, .. } if *outcome == Outcome::Silent => *asked,
            Event::OpenOverdue(_) => now,
            Event::Probed { .. } | Event::Refused(_) | Event::Answered(..) => {
                self.silence = None;
                return;
            }
            // A client may wait for long because what it asked for takes long.
            Event::ReplyOverdue(_)
            | Event::ProbeUnsent(_)
            | Event::Configured { .. }
            | Event::Remembered(_)
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
