//! One thing that was found.

use serde::Serialize;

use super::kind::{Kind, Severity};

/// A finding names up to this many nodes, however large the cluster.
const NAMES_LIMIT: usize = 10;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Where: the cluster, an object, a pool and its nodes.
    pub place: String,
    /// What it is here, with names and numbers.
    pub message: String,
}

/// A finding as scripts read it.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    finding: Kind,
    severity: Severity,
    r#where: &'a str,
    message: &'a str,
    means: &'static str,
    remedy: &'static str,
}

impl Finding {
    /// Something wrong with the cluster or one of its objects.
    pub(super) fn at(kind: Kind, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            place: place.into(),
            message: message.into(),
        }
    }

    /// Something wrong on these nodes of a pool, each with its own words. `None` if there is no node.
    pub(super) fn on(kind: Kind, pool: &str, mut nodes: Vec<(String, String)>) -> Option<Self> {
        if nodes.is_empty() {
            return None;
        }
        nodes.sort();
        let more = nodes.len().saturating_sub(NAMES_LIMIT);
        let told = nodes.iter().take(NAMES_LIMIT).map(|(node, words)| {
            if words.is_empty() {
                node.clone()
            } else {
                format!("{node} ({words})")
            }
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        let count = crate::output::text::counted(nodes.len(), "node");
        Some(Self::at(kind, format!("pool {pool}, {count}"), told + &more))
    }

    /// The finding as scripts read it.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry {
            finding: self.kind,
            severity: self.kind.severity(),
            r#where: &self.place,
            message: &self.message,
            means: self.kind.means(),
            remedy: self.kind.remedy(),
        }
    }
}

/// The gravest first, in the order of the documentation.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|one, other| {
        let rank = |finding: &Finding| (finding.kind.severity(), finding.kind);
        rank(one)
            .cmp(&rank(other))
            .then_with(|| one.place.cmp(&other.place))
    });
}
