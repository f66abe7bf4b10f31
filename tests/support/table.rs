//! The table at the end of the demo: the same faults without Trivet and with it, side by side.

use std::fmt;
use std::time::Duration;

use crate::fault::Fault;
use crate::outage::Measured;

/// One fault, and its measurements so far.
#[derive(Debug, Clone)]
pub struct Row {
    /// The fault of the master.
    pub fault: Fault,
    /// The effect on workers that use only that master.
    pub without: Option<Measured>,
    /// The effect on workers that use their node's proxy.
    pub with: Option<Measured>,
}

/// Faults and what they did.
#[derive(Debug, Clone, Default)]
pub struct Table(pub Vec<Row>);

const HEADINGS: [&str; 5] = [
    "a master is",
    "connections failed",
    "longest gap",
    "oldest Lease",
    "workers not Ready",
];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        for row in &self.0 {
            lines.extend(
                row.without
                    .iter()
                    .map(|measured| cells(&format!("{}, without Trivet", row.fault), measured)),
            );
            lines.extend(
                row.with
                    .iter()
                    .map(|measured| cells(&format!("{}, with Trivet", row.fault), measured)),
            );
        }
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
        for (index, line) in lines.iter().enumerate() {
            let cells = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
            if index == 0 {
                let rules = widths.iter().map(|width| "-".repeat(width + 2));
                writeln!(f, "|{}|", rules.collect::<Vec<_>>().join("|"))?;
            }
        }
        Ok(())
    }
}

fn cells(title: &str, measured: &Measured) -> [String; 5] {
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f32());
    [
        title.to_owned(),
        format!(
            "{} of {} in {:.0} s",
            measured.failed(),
            measured.attempts,
            measured.lasted.as_secs_f32()
        ),
        seconds(measured.longest_gap),
        seconds(measured.worst_lease_gap()),
        measured.left_ready.len().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn measured(attempts: usize, lease: u64) -> Measured {
        Measured {
            lasted: Duration::from_secs(60),
            attempts,
            failed_before_detection: Vec::new(),
            failed_after_detection: Vec::new(),
            slow: 0,
            longest_gap: Duration::from_millis(150),
            lease_gaps: BTreeMap::from([("w1".to_owned(), Duration::from_secs(lease))]),
            left_ready: BTreeMap::new(),
        }
    }

    #[test]
    fn both_sides_of_a_fault_stand_together_and_columns_line_up() {
        let row = Row {
            fault: Fault::Kill,
            without: Some(measured(1200, 62)),
            with: Some(measured(2400, 10)),
        };
        let text = Table(vec![row]).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[2].contains("killed, without Trivet") && lines[2].contains("62.0 s"),
            "{text}"
        );
        assert!(
            lines[3].contains("killed, with Trivet") && lines[3].contains("0 of 2400 in 60 s"),
            "{text}"
        );
        assert!(
            lines
                .iter()
                .all(|line| line.chars().count() == lines[0].chars().count()),
            "{text}"
        );
    }
}
