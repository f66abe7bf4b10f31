//! Whether it is an upstream's own fault that it lets us wait, the others can tell. In a large fleet their next probe may
//! be many seconds away: they are asked at once, where a connection is at stake, but not the oftener the more are late.

use std::{cmp::Reverse, time::Duration};

use tokio::time::Instant;

use super::{Balance, Decision, Standing, UpstreamId, upstream::Upstream};

/// So many questions at once: three upstreams that fall within an interval are told by the rest without delay, each of
/// them when it is late and when it falls.
const AT_ONCE: u32 = 6;

/// One that was late before, within the time in which all of them are earned back, leaves so many to the others: else those
/// that are late again and again would leave nothing to one that falls.
const SPARED: u32 = 2;

/// So many tell of one that has fallen: whoever answered while it was late will most likely answer again, but may itself
/// have died just now.
const AFTER_A_FALL: usize = 2;

/// What an upstream may still be asked on behalf of others, whoever they are. In the long run it is one question an
/// interval: else those that are late would add up on one that is well, and a slow cluster be made slower.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CrossCheckBudget {
    /// Each question pays with an interval, and so far they are spent.
    spent_until: Option<Instant>,
}

impl CrossCheckBudget {
    /// Takes one question out of what it may be asked now, if there is one left beside those to spare.
    fn spend(&mut self, spared: u32, interval: Duration, now: Instant) -> bool {
        let from = self.spent_until.map_or(now, |until| until.max(now));
        let left = from.saturating_duration_since(now) <= interval * (AT_ONCE - 1 - spared);
        if left {
            self.spent_until = Some(from + interval);
        }
        left
    }
}

impl Balance {
    /// Asks all others at once, for one is late and who else is silent is not known yet. `called` is when they were last
    /// asked about it.
    pub(super) fn cross_check(
        &mut self,
        late: UpstreamId,
        called: Option<Instant>,
        now: Instant,
    ) -> Vec<Decision> {
        let earned_back = self.policy.probe_interval * AT_ONCE;
        let lately = |called: Instant| now.saturating_duration_since(called) < earned_back;
        let spared = if called.is_some_and(lately) { SPARED } else { 0 };
        let witnesses = self.witnesses(late).into_iter();
        let called = witnesses.filter_map(|witness| self.call(witness, spared, now));
        called.collect()
    }

    /// Asks the best of the others at once, for one has fallen: those that are Up, and of them who was heard last.
    pub(super) fn cross_check_after_a_fall(&mut self, fallen: UpstreamId, now: Instant) -> Vec<Decision> {
        let mut witnesses = self.witnesses(fallen);
        witnesses.sort_by_key(|id| {
            let witness = self.upstreams.get(id);
            witness.map(|upstream| (upstream.health.state(), Reverse(upstream.heard)))
        });
        let witnesses = witnesses.into_iter();
        let called = witnesses.filter_map(|witness| self.call(witness, 0, now));
        called.take(AFTER_A_FALL).collect()
    }

    /// Who can tell; nobody needs to where no connection is at stake.
    fn witnesses(&self, silent: UpstreamId) -> Vec<UpstreamId> {
        let at_stake = |upstream: &Upstream| upstream.connections > 0;
        if !self.upstreams.get(&silent).is_some_and(at_stake) {
            return Vec::new();
        }
        let able =
            |upstream: &Upstream| upstream.standing == Standing::Active && upstream.health.is_answering();
        let others = self.upstreams.iter().filter(|(id, _)| **id != silent);
        let witnesses = others.filter(|(_, upstream)| able(upstream));
        witnesses.map(|(id, _)| *id).collect()
    }

    /// Asks a witness, unless it was asked enough already.
    fn call(&mut self, witness: UpstreamId, spared: u32, now: Instant) -> Option<Decision> {
        let interval = self.policy.probe_interval;
        let upstream = self.upstreams.get_mut(&witness)?;
        let called = upstream.cross_checks.spend(spared, interval, now);
        called.then_some(Decision::Probe(witness))
    }
}
