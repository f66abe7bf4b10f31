//! The history of each node: its Lease renewals, and when it left Ready.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

/// The Leases' renewals and the nodes' readiness from one moment to another.
#[derive(Debug, Clone)]
pub struct History {
    start: Timestamp,
    end: Timestamp,
    renewals: BTreeMap<String, BTreeSet<Timestamp>>,
    readiness: BTreeMap<String, Vec<(Timestamp, bool)>>,
}

impl History {
    pub(super) fn new(start: Timestamp) -> Self {
        Self {
            start,
            end: start,
            renewals: BTreeMap::new(),
            readiness: BTreeMap::new(),
        }
    }

    pub(super) fn renewed(&mut self, node: &str, at: Timestamp) {
        self.renewals.entry(node.to_owned()).or_default().insert(at);
    }

    pub(super) fn ready(&mut self, node: &str, ready: bool, seen: Timestamp) {
        let readiness = self.readiness.entry(node.to_owned()).or_default();
        if readiness.last().is_none_or(|(_, last)| *last != ready) {
            readiness.push((seen, ready));
        }
    }

    pub(super) fn close(&mut self, end: Timestamp) {
        self.end = end;
    }

    /// When it ended.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// How long it lasted.
    pub fn length(&self) -> Duration {
        between(self.start, self.end)
    }

    /// The longest time for which a node's Lease was not renewed, the time since its last renewal included. A node
    /// without a Lease never renewed it.
    pub fn worst_lease_gap(&self, node: &str) -> Duration {
        let Some(renewals) = self.renewals.get(node) else {
            return self.length();
        };
        let ends = renewals.iter().skip(1).copied().chain([self.end]);
        renewals
            .iter()
            .zip(ends)
            .map(|(start, end)| between(*start, end))
            .max()
            .unwrap_or_default()
    }

    /// When a node was first not Ready, possibly at the start. A node that was never seen counts as never Ready.
    pub fn left_ready(&self, node: &str) -> Option<Timestamp> {
        let Some(readiness) = self.readiness.get(node) else {
            return Some(self.start);
        };
        readiness.iter().find(|(_, ready)| !ready).map(|(seen, _)| *seen)
    }
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    end.duration_since(start).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn history(renewals: &[i64], end: i64) -> History {
        let mut history = History::new(second(100));
        for at in renewals {
            history.renewed("w1", second(*at));
        }
        history.close(second(end));
        history
    }

    #[test]
    fn a_gap_counts_from_the_renewal_before_the_observation() {
        assert_eq!(
            history(&[95, 110, 120], 125).worst_lease_gap("w1"),
            Duration::from_secs(15)
        );
    }

    #[test]
    fn a_lease_that_is_never_renewed_again_shows_at_the_end() {
        assert_eq!(
            history(&[95, 105], 180).worst_lease_gap("w1"),
            Duration::from_secs(75)
        );
    }

    #[test]
    fn the_order_of_events_does_not_matter() {
        assert_eq!(
            history(&[120, 95, 110, 110], 125).worst_lease_gap("w1"),
            Duration::from_secs(15)
        );
    }

    #[test]
    fn a_node_that_nobody_saw_is_no_success() {
        assert_eq!(history(&[], 160).worst_lease_gap("w1"), Duration::from_secs(60));
        assert_eq!(history(&[], 160).left_ready("w1"), Some(second(100)));
    }

    #[test]
    fn leaving_ready_is_remembered_after_the_return() {
        let mut history = history(&[], 200);
        history.ready("w1", true, second(101));
        history.ready("w1", true, second(102));
        assert_eq!(history.left_ready("w1"), None);
        history.ready("w1", false, second(150));
        history.ready("w1", true, second(160));
        assert_eq!(history.left_ready("w1"), Some(second(150)));
    }
}
