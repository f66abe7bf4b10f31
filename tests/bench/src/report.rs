//! What a run found, as a page, for a terminal and for machines.

mod page;

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use self::page::page;
use crate::machine::Machine;
use crate::metric::Metric;
use crate::peers::Peer;
use crate::samples::Samples;
use crate::statistics::Spread;
use crate::targets::{Against, TARGETS, Target, Verdict};
use crate::workload::Size;

/// Everything that is told of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) samples: Samples,
    pub(crate) machine: Machine,
    /// Before and after.
    pub(crate) load: (String, String),
    /// Seconds of CPU that the hypervisor gave to others meanwhile.
    pub(crate) stolen: Option<f64>,
    pub(crate) versions: Vec<(Peer, String)>,
    pub(crate) configurations: Vec<(Peer, String)>,
    /// The limit of open files of every process.
    pub(crate) files: u64,
    pub(crate) size: Size,
    pub(crate) quick: bool,
    pub(crate) taken: Duration,
}

/// A target that was measured.
struct Judged {
    target: &'static Target,
    measured: Spread,
    verdict: Verdict,
}

impl Report {
    fn judged(&self) -> Vec<Judged> {
        let judge = |target: &'static Target| {
            let measured = target.measured(&self.samples)?;
            let verdict = target.judge(measured.median);
            Some(Judged {
                target,
                measured,
                verdict,
            })
        };
        TARGETS.iter().filter_map(judge).collect()
    }

    /// All that the page is made of.
    pub(crate) fn to_json(&self) -> Value {
        let rows = self.judged();
        let rows = rows.iter().map(|row| {
            json!({
                "metric": row.target.metric,
                "against": row.target.against(),
                "measured": row.measured,
                "release": row.target.release,
                "goal": row.target.goal,
                "verdict": row.verdict,
            })
        });
        let medians = Metric::ALL.iter().flat_map(|metric| {
            Peer::ALL.iter().filter_map(move |peer| {
                let samples = self.samples.of(*metric, *peer);
                (!samples.is_empty()).then(
                    || json!({"metric": metric, "unit": metric.unit(), "peer": peer, "samples": samples}),
                )
            })
        });
        json!({
            "machine": self.machine,
            "load": [self.load.0, self.load.1],
            "stolenSeconds": self.stolen,
            "seconds": self.taken.as_secs(),
            "versions": self.versions,
            "rows": rows.collect::<Vec<_>>(),
            "samples": medians.collect::<Vec<_>>(),
        })
    }
}

impl Target {
    /// The words for what our number is held against.
    fn against(&self) -> String {
        match self.against {
            Against::Peer(peer) => format!("÷ {}", peer.name()),
            Against::Best => "÷ best proxy".to_owned(),
            Against::Itself => self.metric.unit().to_owned(),
        }
    }

    fn bound(&self, bound: Option<f64>) -> String {
        let sign = if self.metric.rises() { '≥' } else { '≤' };
        bound.map_or_else(|| "–".to_owned(), |bound| format!("{sign} {bound:.2}"))
    }
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Goal => "met, and the goal",
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NoTarget => "–",
        }
    }
}

/// The table of ratios and what was missed, for a terminal.
pub(crate) fn terminal(report: &Report) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let judged = report.judged();
    for Judged {
        target,
        measured,
        verdict,
    } in &judged
    {
        writeln!(
            text,
            "{:<50} {:<17} {:>6.2}  ({:.2}..{:.2})  target {:<7} {}",
            target.metric.title(),
            target.against(),
            measured.median,
            measured.low,
            measured.high,
            target.bound(target.release),
            verdict.words(),
        )?;
    }
    let missed = judged.iter().filter(|row| row.verdict == Verdict::Missed).count();
    let targets = judged.iter().filter(|row| row.target.release.is_some()).count();
    writeln!(text, "\n{missed} of {targets} targets missed")?;
    Ok(text)
}
