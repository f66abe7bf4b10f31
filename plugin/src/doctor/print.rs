//! Findings for people and for scripts.

use serde::Serialize;

use super::finding::{Entry, Finding};
use super::kind::Severity;
use crate::output::text::{counted, wrapped};
use crate::output::{Screen, Tone};
use crate::read::Facts;

/// The indent of what is said of a finding.
const INDENT: &str = "    ";

/// What doctor found, for scripts.
#[derive(Serialize)]
pub(crate) struct Diagnosis<'a> {
    namespace: &'a str,
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: Vec<Entry<'a>>,
}

pub(crate) fn json<'a>(facts: &'a Facts, findings: &'a [Finding]) -> Diagnosis<'a> {
    let count = |severity| count(findings, severity);
    Diagnosis {
        namespace: &facts.namespace,
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        notes: count(Severity::Note),
        findings: findings.iter().map(Finding::entry).collect(),
    }
}

pub(super) fn table(screen: Screen, facts: &Facts, findings: &[Finding]) -> String {
    let count = |severity| count(findings, severity);
    let pools = counted(facts.pools.iter().flatten().count(), "pool");
    let nodes = counted(facts.nodes.iter().flatten().count(), "node");
    let summary = format!(
        "{pools}, {nodes}: {}, {}, {}\n",
        counted(count(Severity::Error), "error"),
        counted(count(Severity::Warning), "warning"),
        counted(count(Severity::Note), "note")
    );
    list(screen, findings) + &summary
}

/// Each finding with its remedy.
pub(crate) fn list(screen: Screen, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = finding.kind.severity();
        let word = screen.paint(tone(severity), severity.as_str());
        let kind = screen.paint(Tone::Strong, finding.kind.as_str());
        text.extend([word.as_str(), " ", &kind, ", ", &finding.place, "\n"]);
        text.push_str(&wrapped(INDENT, &finding.message));
        text.push_str(&wrapped(INDENT, &format!("That is: {}.", finding.kind.means())));
        text.push_str(&wrapped(INDENT, &format!("Remedy: {}.", finding.kind.remedy())));
        text.push('\n');
    }
    text
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    let of_severity = findings
        .iter()
        .filter(|finding| finding.kind.severity() == severity);
    of_severity.count()
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Doubtful,
        Severity::Note => Tone::Plain,
    }
}
