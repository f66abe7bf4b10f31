//! How many cross-checks a path may still get.

use std::time::Duration;

use tokio::time::Instant;

/// The most cross-checks of one path at once. Each path that falls needs two, one when it is overdue and one when it falls,
/// so three paths that fall within an interval are told apart from this node's faults without delay.
pub(super) const AT_ONCE: u32 = 6;

/// The cross-checks that a path may still get. In the long run it is one an interval: otherwise those of many slow paths
/// would add up on one that is well, and make a slow cluster slower.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::balance) struct CrossCheckBudget {
    /// Each cross-check costs an interval, and the intervals up to here are spent.
    spent_until: Option<Instant>,
}

impl CrossCheckBudget {
    /// Takes one cross-check out of those that are left, unless only those to spare are.
    pub(super) fn spend(&mut self, spared: u32, interval: Duration, now: Instant) -> bool {
        let from = self.spent_until.map_or(now, |until| until.max(now));
        let left = from.saturating_duration_since(now) <= interval * (AT_ONCE - 1 - spared);
        if left {
            self.spent_until = Some(from + interval);
        }
        left
    }
}
