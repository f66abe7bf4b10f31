//! What was measured of the operator, as figures.

use std::time::Duration;

use super::audit::Write;
use super::operator::Observed;
use super::rows::Row;
use super::watches::Edit;
use crate::statistics::{quantile, sorted};

/// What the operator may take of memory, in MiB.
const MEMORY: f64 = 128.0;

/// How long a pass may take, in milliseconds.
const PASS: f64 = 50.0;

/// How long after an edit all watches must have the new document, in seconds.
const FOLLOW: f64 = 2.0;

/// What was measured of the operator.
#[derive(Clone, Debug)]
pub(crate) struct Measurements {
    /// From its start until the status of the pool was good.
    pub(crate) ready_after: Duration,
    /// The most memory until then, and what it had after it.
    pub(crate) at_rest: (u64, u64),
    /// The same at the end.
    pub(crate) at_end: (u64, u64),
    /// While nothing changed.
    pub(crate) rest: Observed,
    /// While reports without news arrived.
    pub(crate) reports: Observed,
    /// While they told of a lost member.
    pub(crate) news: Observed,
    /// The edits that watches followed.
    pub(crate) edits: Vec<Edit>,
}

impl Measurements {
    /// The figures.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::new(
                "from its start until the status says that all is well",
                self.ready_after.as_secs_f64(),
                "s",
            ),
            Row::new(
                "memory, the most until then (resident)",
                mebibytes(self.at_rest.0),
                "MiB",
            )
            .at_most(MEMORY),
            Row::new("memory at rest (PSS)", mebibytes(self.at_rest.1), "MiB"),
            Row::new(
                "memory, the most until the end (resident)",
                mebibytes(self.at_end.0),
                "MiB",
            )
            .at_most(MEMORY),
            Row::new("memory at the end (PSS)", mebibytes(self.at_end.1), "MiB"),
            Row::new(
                "writes at rest, but for the Lease",
                count(self.rest.writes.len()),
                "",
            )
            .at_most(0.0),
            Row::new(
                "writes while 50 reports a second arrive that tell nothing new",
                count(self.reports.writes.len()),
                "",
            )
            .at_most(0.0),
        ];
        for (when, observed) in [
            ("at rest", &self.rest),
            ("while 50 reports a second arrive", &self.reports),
            ("while 50 reports a second tell of a lost member", &self.news),
        ] {
            rows.push(Row::new(format!("CPU {when}, of one"), observed.cpu * 100.0, "%"));
            let passes = sorted(&observed.passes);
            let milliseconds = |share| quantile(&passes, share).map(|seconds| seconds * 1000.0);
            let what = |which: &str| format!("{which} of {} passes {when}", passes.len());
            rows.extend(milliseconds(0.5).map(|value| Row::new(what("median"), value, "ms")));
            rows.extend(milliseconds(1.0).map(|value| Row::new(what("longest"), value, "ms").at_most(PASS)));
        }
        rows.extend(self.followed());
        rows
    }

    /// How the watches followed.
    fn followed(&self) -> Vec<Row> {
        let written: Vec<_> = self.edits.iter().map(|edit| edit.written).collect();
        let after_edit: Vec<_> = self
            .edits
            .iter()
            .flat_map(|edit| edit.heard.iter().copied())
            .collect();
        let after_write = self
            .edits
            .iter()
            .flat_map(|edit| edit.heard.iter().map(|heard| heard - edit.written));
        let after_write: Vec<_> = after_write.collect();
        let watches = self.edits.first().map_or(0, |edit| edit.heard.len());
        let times = |samples: &[f64], what: &str, limit: Option<f64>| {
            let samples = sorted(samples);
            let figures = [
                ("median", 0.5, None),
                ("99 % within", 0.99, None),
                ("longest", 1.0, limit),
            ];
            let rows = figures.into_iter().filter_map(|(which, share, limit)| {
                let row = Row::new(format!("{what}: {which}"), quantile(&samples, share)?, "s");
                Some(limit.map_or(row.clone(), |limit| row.at_most(limit)))
            });
            rows.collect::<Vec<_>>()
        };
        [
            times(
                &written,
                "from an edit of the pool to the write of its document",
                None,
            ),
            times(
                &after_write,
                &format!("from that write to {watches} watches"),
                None,
            ),
            times(
                &after_edit,
                &format!("from the edit to {watches} watches"),
                Some(FOLLOW),
            ),
        ]
        .concat()
    }

    /// The writes that nothing called for: the page names them, so that their cause can be found.
    pub(crate) fn surplus(&self) -> impl Iterator<Item = &Write> {
        self.rest.writes.iter().chain(&self.reports.writes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(passes: &[f64]) -> Observed {
        Observed {
            cpu: 0.5,
            passes: passes.to_vec(),
            writes: Vec::new(),
        }
    }

    #[test]
    fn the_longest_pass_and_the_last_watch_are_what_is_judged() {
        let measured = Measurements {
            ready_after: Duration::from_secs(3),
            at_rest: (200 << 20, 60 << 20),
            at_end: (100 << 20, 60 << 20),
            rest: observed(&[0.01, 0.06]),
            reports: observed(&[]),
            news: observed(&[0.02]),
            edits: vec![Edit {
                written: 0.5,
                heard: vec![0.6, 2.5],
            }],
        };
        let rows = measured.rows();
        let missed: Vec<_> = rows
            .iter()
            .filter(|row| row.is_missed())
            .map(|row| row.what.as_str())
            .collect();
        let expected = [
            "memory, the most until then (resident)",
            "longest of 2 passes at rest",
            "from the edit to 2 watches: longest",
        ];
        assert_eq!(missed, expected);
    }
}
