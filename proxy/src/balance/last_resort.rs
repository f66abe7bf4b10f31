//! The last resort: upstreams that get connections only while no member that is to be used answers. In order: members
//! that drain, removed ones whose connections still drain, and members of earlier documents.

use tokio::time::Instant;

use super::{
    Balance, Decision, Standing, UpstreamId,
    health::{Reason, State},
    upstream::Upstream,
};

impl Balance {
    /// Whether no member that is to be used answers. One that was never probed may, and is waited for.
    pub(super) fn needs_last_resort(&self) -> bool {
        let active = self
            .upstreams
            .values()
            .filter(|upstream| !upstream.is_last_resort());
        let mut hopeful = active.filter(|upstream| {
            let health = &upstream.health;
            health.answers() || (health.state(), health.reason()) == (State::Unready, Reason::NotProbed)
        });
        hopeful.next().is_none()
    }

    /// Whether a member of the last resort is being probed for the first time: a new connection waits for the outcome
    /// rather than be refused.
    pub fn awaits_last_resort(&self) -> bool {
        let mut upstreams = self.upstreams.values();
        self.needs_last_resort()
            && upstreams.any(|upstream| upstream.is_last_resort() && !upstream.health.is_judged())
    }

    /// Turns to the last resort as soon as no member that is to be used answers, and away from it as soon as one does:
    /// the document may be out of date after a long absence, and any apiserver of the cluster has the newest one. Called
    /// with what an upstream just did.
    pub(super) fn follow_last_resort(
        &mut self,
        id: UpstreamId,
        answered: bool,
        now: Instant,
    ) -> Vec<Decision> {
        let by_last_resort = self.upstreams.get(&id).is_none_or(Upstream::is_last_resort);
        if answered && !by_last_resort {
            self.leave_last_resort()
        } else if self.needs_last_resort() {
            self.take_last_resort(now)
        } else {
            Vec::new()
        }
    }

    fn take_last_resort(&mut self, now: Instant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let earlier = std::mem::take(&mut self.earlier);
        for target in &earlier {
            match self.find(&target.identity) {
                None => decisions.extend(self.add(target.clone(), Standing::LastResort, now)),
                Some(id) if self.is_removed(id) => decisions.extend(self.stand(id, Standing::LastResort)),
                Some(_) => {}
            }
        }
        self.earlier = earlier;
        // To close the connections of the last members that answer would gain nothing.
        for (id, upstream) in &self.upstreams {
            if upstream.standing == Standing::Draining && upstream.connections > 0 {
                self.drain_again.insert(*id);
                decisions.push(Decision::Restore(*id));
            }
        }
        decisions
    }

    fn leave_last_resort(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let resorts = self.upstreams.iter();
        let resorts = resorts.filter(|(_, upstream)| upstream.standing == Standing::LastResort);
        for id in resorts.map(|(id, _)| *id).collect::<Vec<_>>() {
            decisions.extend(self.stand(id, Standing::Removed));
            decisions.extend(self.forget(id));
        }
        for id in std::mem::take(&mut self.drain_again) {
            let upstream = self.upstreams.get(&id);
            if upstream.is_some_and(|upstream| upstream.is_leaving() && upstream.connections > 0) {
                decisions.push(Decision::Drain(id));
            }
        }
        decisions
    }

    fn is_removed(&self, id: UpstreamId) -> bool {
        let removed = |upstream: &Upstream| upstream.standing == Standing::Removed;
        self.upstreams.get(&id).is_some_and(removed)
    }
}
