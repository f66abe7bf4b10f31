//! What is wrong on some nodes, by what their proxies report. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use trivet_crds::report::{ListenerState, ReportContent};

use super::NodeReport;
use super::words::{counted, listed};

/// A message tells up to this many kinds of trouble, whatever the reports say.
const KINDS_LIMIT: usize = 10;

/// The longest quoted words of a proxy, in characters.
const WORDS_LIMIT: usize = 200;

/// What is wrong on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub kind: Kind,
    /// The proxy's words.
    pub words: String,
}

/// Kinds of trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The proxy cannot listen on this address.
    NotListening(String),
    /// The proxy warns of something that lasts, by its reason.
    Warning(String),
}

impl Kind {
    /// The address, if a proxy cannot listen on one.
    pub fn not_listening(&self) -> Option<&str> {
        match self {
            Self::NotListening(address) => Some(address),
            Self::Warning(_) => None,
        }
    }

    /// The end of a sentence about this many nodes.
    fn predicate(&self, nodes: usize) -> String {
        match (self, nodes) {
            (Self::NotListening(address), 1) => format!("does not listen on {address}"),
            (Self::NotListening(address), _) => format!("do not listen on {address}"),
            (Self::Warning(reason), 1) => format!("warns of {reason}"),
            (Self::Warning(reason), _) => format!("warn of {reason}"),
        }
    }
}

/// All that a report says to be wrong.
pub fn of(report: &ReportContent) -> Vec<Trouble> {
    let short = |words: &str| words.chars().take(WORDS_LIMIT).collect();
    let failed = report.listeners.iter();
    let failed = failed.filter(|listener| listener.state == ListenerState::Failed);
    let failed = failed.map(|listener| Trouble {
        kind: Kind::NotListening(listener.address.clone()),
        words: short(&listener.message),
    });
    let warned = report.warnings.iter().map(|warning| Trouble {
        kind: Kind::Warning(warning.reason.clone()),
        words: short(&warning.message),
    });
    failed.chain(warned).collect()
}

/// One sentence for each kind of trouble, with the nodes that have it and the words of the first one.
pub fn sentences(reports: &[Arc<NodeReport>], node_count: u32, now: Timestamp) -> Vec<String> {
    let mut by_kind: BTreeMap<&Kind, Vec<(&str, &str)>> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.is_fresh(node_count, now)) {
        for trouble in &report.troubles {
            let nodes = by_kind.entry(&trouble.kind).or_default();
            nodes.push((&report.node, &trouble.words));
        }
    }
    let kinds = by_kind.into_iter().take(KINDS_LIMIT);
    kinds
        .map(|(kind, mut nodes)| {
            nodes.sort_unstable();
            let count = nodes.len();
            let words = nodes.first().map_or("", |(_, words)| words);
            let names = listed(nodes.iter().map(|(node, _)| (*node).to_owned()));
            format!("{} {}: {names} ({words})", counted(count), kind.predicate(count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trivet_crds::report::ProxyReport;

    use super::*;

    fn report(node: &str, listeners: &serde_json::Value, warnings: &serde_json::Value) -> Arc<NodeReport> {
        let report: ProxyReport = serde_json::from_value(json!({
            "metadata": { "name": format!("default.{node}") },
            "poolName": "default", "nodeName": node, "observedTime": "1970-01-01T00:16:40Z",
            "listeners": listeners, "warnings": warnings,
        }))
        .unwrap();
        Arc::new(report.into())
    }

    fn full(node: &str) -> Arc<NodeReport> {
        let warning = json!([{ "reason": "CacheUnwritable", "message": format!("{node}: no space left") }]);
        report(node, &json!([]), &warning)
    }

    fn said(reports: &[Arc<NodeReport>], now: i64) -> Vec<String> {
        sentences(reports, 3, Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn a_warning_and_a_failed_listener_are_told_with_node_and_words() {
        let taken = json!([
            { "address": "127.0.0.1:7443", "state": "Failed", "message": "taken by nginx" },
            { "address": "[::1]:7443", "state": "Listening" },
        ]);
        let reports = [full("w2"), report("w1", &taken, &json!([])), full("w3")];
        assert_eq!(
            said(&reports, 1000),
            [
                "1 node does not listen on 127.0.0.1:7443: w1 (taken by nginx)",
                "2 nodes warn of CacheUnwritable: w2, w3 (w2: no space left)",
            ]
        );
        assert!(said(&reports, 1901).is_empty(), "the reports are old");
    }

    #[test]
    fn a_message_is_bounded_whatever_is_reported() {
        let many: Vec<_> = (0..16)
            .map(|number| json!({ "reason": format!("R{number}"), "message": "x".repeat(512) }))
            .collect();
        let reports: Vec<_> = (0..500)
            .map(|number| report(&format!("w{number}"), &json!([]), &json!(many)))
            .collect();
        let said = said(&reports, 1000);
        assert_eq!(said.len(), KINDS_LIMIT);
        assert!(said.iter().all(|sentence| sentence.len() < 400), "{said:?}");
    }
}
