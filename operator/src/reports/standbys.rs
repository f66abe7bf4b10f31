//! Which nodes have no standby, by what their proxies report. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use trivet_crds::report::StandbyState;

use super::NodeReport;
use super::words::{counted, listed};

/// The nodes on which no standby takes over if the proxy ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standbys {
    /// Those whose proxies say so, with their word.
    pub without: Vec<(String, &'static str)>,
    /// Those of which nobody reports: whether they have a standby is not known.
    pub unreported: Vec<String>,
}

/// The standbys of the nodes on which a proxy runs.
pub fn standbys<'a>(
    nodes: impl Iterator<Item = &'a str>,
    reports: &[Arc<NodeReport>],
    node_count: u32,
    now: Timestamp,
) -> Standbys {
    let reports: BTreeMap<_, _> = reports
        .iter()
        .map(|report| (report.node.as_str(), report))
        .collect();
    let mut found = Standbys::default();
    for node in nodes {
        match reports
            .get(node)
            .filter(|report| report.is_fresh(node_count, now))
        {
            None => found.unreported.push(node.to_owned()),
            Some(report) => match report.standby {
                StandbyState::Ready => {}
                StandbyState::Absent | StandbyState::Stale => {
                    found.without.push((node.to_owned(), report.standby.as_str()));
                }
            },
        }
    }
    found.without.sort();
    found.unreported.sort();
    found
}

impl Standbys {
    /// The parts of a message: none if every node has a standby.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if !self.without.is_empty() {
            let names = self.without.iter().map(|(node, word)| format!("{node} ({word})"));
            let count = counted(self.without.len());
            sentences.push(format!("{count} without a standby: {}", listed(names)));
        }
        if !self.unreported.is_empty() {
            let count = counted(self.unreported.len());
            let names = listed(self.unreported.iter().cloned());
            sentences.push(format!("nobody reports from {count}: {names}"));
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: &str, standby: StandbyState, observed: i64) -> Arc<NodeReport> {
        Arc::new(NodeReport {
            version: None,
            pool: "default".to_owned(),
            node: node.to_owned(),
            revision: 1,
            template: String::new(),
            members: Vec::new(),
            open_files: 0,
            memory_mebibytes: 0,
            earlier_mebibytes: 0,
            connections: 0,
            idle_seconds: 0,
            standby,
            troubles: Vec::new(),
            observed: Timestamp::from_second(observed).ok(),
        })
    }

    fn said(nodes: &[&str], reports: &[Arc<NodeReport>], now: i64) -> Vec<String> {
        let now = Timestamp::from_second(now).unwrap();
        standbys(nodes.iter().copied(), reports, 3, now).sentences()
    }

    #[test]
    fn nodes_without_a_standby_are_named_with_the_word_of_their_proxy() {
        let reports = [
            report("w2", StandbyState::Stale, 1000),
            report("w1", StandbyState::Absent, 1000),
            report("w3", StandbyState::Ready, 1000),
        ];
        let said = said(&["w1", "w2", "w3"], &reports, 1000);
        assert_eq!(said, ["2 nodes without a standby: w1 (Absent), w2 (Stale)"]);
    }

    #[test]
    fn a_report_older_than_three_intervals_says_that_nobody_reports() {
        let reports = [report("w1", StandbyState::Absent, 1000)];
        assert_eq!(
            said(&["w1"], &reports, 1900),
            ["1 node without a standby: w1 (Absent)"]
        );
        assert_eq!(said(&["w1"], &reports, 1901), ["nobody reports from 1 node: w1"]);
        assert_eq!(said(&["w4"], &reports, 1000), ["nobody reports from 1 node: w4"]);
        // A clock that is ahead makes no report old.
        assert_eq!(
            said(&["w1"], &reports, 0),
            ["1 node without a standby: w1 (Absent)"]
        );
    }

    #[test]
    fn a_large_cluster_is_told_by_ten_names_and_a_count() {
        let names: Vec<_> = (10..30).map(|number| format!("w{number}")).collect();
        let said = said(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[], 0);
        assert!(
            said[0].starts_with("nobody reports from 20 nodes: w10, w11"),
            "{said:?}"
        );
        assert!(said[0].ends_with("w19 and 10 more"), "{said:?}");
    }
}
