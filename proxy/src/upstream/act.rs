//! Carries out the balancer's decisions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};
use tracing::{info, warn};

use super::{Emptying, Evidence, Live, Upstreams, drain};
use crate::{
    balance::{Change, Decision, PathId, PathKey, cuts, health::State, stranded},
    ending::Ending,
    probe,
};

/// A cut with a shorter delay than this is done at once, without a task.
const AT_ONCE: Duration = Duration::from_millis(5);

impl Upstreams {
    pub(super) fn carry_out(self: &Arc<Self>, decision: Decision, detail: &str) {
        match decision {
            Decision::Watch(id, key) => self.watch(id, key),
            Decision::Probe(id) => {
                if let Some(live) = self.lock().live.get(&id) {
                    live.probe.notify_one();
                }
            }
            Decision::Tell { id, path, member } => self.tell(id, path, member, detail),
            Decision::Remember(_, key) => {
                let listener = self.listener_name();
                info!(listener, member = key.member, address = %key.address, "upstream is proven: it gave a verified answer");
                self.proven.send_modify(|proven| {
                    proven.insert(key);
                });
            }
            Decision::Cut(id) => self.cut(id),
            Decision::Drain(id) => {
                self.show_state_of(id);
                let within = self.drain_timeout().unwrap_or_default();
                self.empty(id, Ending::MemberDrained, within);
            }
            Decision::Move(id) => self.empty(id, Ending::MemberStranded, stranded::MOVE_WITHIN),
            Decision::Restore(id) => {
                self.show_state_of(id);
                if let Some(emptying) = self
                    .lock()
                    .live
                    .get_mut(&id)
                    .and_then(|live| live.emptying.take())
                {
                    emptying.stop.cancel();
                }
            }
            Decision::Forget(id, key) => self.forget(id, &key),
        }
    }

    fn watch(self: &Arc<Self>, id: PathId, key: PathKey) {
        info!(listener = self.listener_name(), member = key.member, address = %key.address, "upstream added");
        let live = Live {
            key: key.clone(),
            probe: Arc::new(Notify::new()),
            stop: self.stop.child_token(),
            emptying: None,
            cutting: false,
            close_signals: BTreeMap::new(),
            evidence: Evidence::default(),
            certificate: None,
            series: Arc::new(self.metrics.member(&key.member)),
        };
        let (wake, stop) = (Arc::clone(&live.probe), live.stop.clone());
        self.lock().live.insert(id, live);
        self.show_state(&key.member);
        let upstreams = Arc::clone(self);
        let probing: BoxFuture<'static, ()> = if self.extra.is_some() {
            Box::pin(probe::ServerProber::new(upstreams, id, key).run(wake))
        } else {
            Box::pin(probe::Prober::new(upstreams, id, key).run(wake))
        };
        let vital = Arc::clone(&self.vital);
        let probing = async move { vital.run("prober", probing).await };
        self.tasks.spawn(stop.run_until_cancelled_owned(probing));
    }

    /// Sets the state of a member in the metrics. It is that of the best path, so it may change when a path comes or goes.
    pub(super) fn show_state(&self, member: &str) {
        let health = self.lock().balance.member_health(member);
        if let Some((state, _)) = health {
            self.metrics.state(member, state);
            let settings = self.settings();
            let is_active = settings.is_some_and(|settings| settings.has_active(member));
            self.metrics.active(member, is_active);
        }
    }

    fn show_state_of(&self, id: PathId) {
        let key = self.lock().live.get(&id).map(|live| live.key.clone());
        if let Some(key) = key {
            self.show_state(&key.member);
        }
    }

    /// Logs a change of a path, as a warning only if the state of its member gets worse.
    fn tell(&self, id: PathId, path: Change, member: Change, detail: &str) {
        let Some(PathKey {
            member: name,
            address,
        }) = self.lock().live.get(&id).map(|live| live.key.clone())
        else {
            return;
        };
        self.show_state(&name);
        if member.is_of_state() {
            self.metrics.turned(&name, member.to.0);
        }
        let (from, to, reason) = (path.from.0.as_str(), path.to.0.as_str(), path.to.1.as_str());
        let (listener, member_is) = (self.listener_name(), member.to.0.as_str());
        if member.is_of_state() && member.to.0 != State::Up {
            warn!(listener, member = name, %address, from, to, reason, member_is, detail, "upstream health changed");
        } else {
            info!(listener, member = name, %address, from, to, reason, member_is, detail, "upstream health changed");
        }
    }

    fn cut(self: &Arc<Self>, id: PathId) {
        let nodes = self.settings().map_or(0, |settings| settings.document.nodes);
        self.cut_after(id, cuts::cut_delay(nodes, rand::random()));
    }

    fn cut_after(self: &Arc<Self>, id: PathId, delay: Duration) {
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        if live.cutting {
            return;
        }
        live.cutting = delay > AT_ONCE;
        let pending = live.cutting;
        drop(inner);
        if !pending {
            return self.cut_now(id);
        }
        let upstreams = Arc::clone(self);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(tokio::time::sleep(delay)).await;
            upstreams.cut_now(id);
        });
    }

    fn cut_now(&self, id: PathId) {
        let mut inner = self.lock();
        let down = inner
            .balance
            .health(id)
            .is_some_and(|(state, _)| state == State::Down);
        let (mut silent_since, mut key) = (None, None);
        if let Some(live) = inner.live.get_mut(&id) {
            live.cutting = false;
            key = Some(live.key.clone());
            silent_since = down.then(|| live.evidence.cut()).flatten();
        }
        drop(inner);
        // The path may have answered since the cut was decided.
        if !down {
            return;
        }
        if let Some(since) = silent_since {
            self.metrics.failed_over(since.elapsed());
        }
        let close_signals = self.close_signals(Some(id));
        if let Some(PathKey { member, address }) = key {
            let connections = close_signals.len();
            warn!(listener = self.listener_name(), member, %address, connections, "cutting the connections of a silent upstream");
        }
        for close_signal in close_signals {
            close_signal.end(Ending::MemberSilent);
        }
    }

    /// Closes the connections of a path one after the other. Replaces a drain or move that is under way.
    fn empty(self: &Arc<Self>, id: PathId, ending: Ending, within: Duration) {
        let stop = self.stop.child_token();
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        let deadline = Instant::now() + within;
        let emptying = Emptying {
            stop: stop.clone(),
            ending,
            deadline,
        };
        if let Some(before) = live.emptying.replace(emptying) {
            before.stop.cancel();
        }
        let reason = ending.as_str();
        info!(
            listener = self.listener_name(),
            member = live.key.member,
            address = %live.key.address,
            connections = live.close_signals.len(),
            reason,
            ?within,
            "closing the connections of an upstream gradually"
        );
        drop(inner);
        let upstreams = Arc::clone(self);
        self.tasks.spawn(async move {
            let closing = drain::gradually(&upstreams, Some(id), ending, within);
            if stop.run_until_cancelled(closing).await.is_some() {
                upstreams.emptied(id, deadline);
            }
        });
    }

    /// No connection is left to close, and those that come later are told anew.
    fn emptied(&self, id: PathId, deadline: Instant) {
        if let Some(live) = self.lock().live.get_mut(&id) {
            live.emptying.take_if(|emptying| emptying.deadline == deadline);
        }
    }

    /// How much time is left to the connections of a path whose member drains.
    pub fn drains_within(&self, id: PathId) -> Option<Duration> {
        let inner = self.lock();
        let emptying = inner.live.get(&id)?.emptying.as_ref()?;
        let is_drain = emptying.ending == Ending::MemberDrained;
        is_drain.then(|| emptying.deadline.saturating_duration_since(Instant::now()))
    }

    /// How long a path drains by the document in force, if there is one.
    fn drain_timeout(&self) -> Option<Duration> {
        self.settings().map(|settings| settings.drain_timeout)
    }

    /// Drains a path to which a connection of another process of this node has come, if it leaves. `given` is the time left of a
    /// drain that the other process has begun. One that follows an earlier document has begun none.
    pub(super) fn go_on_draining(self: &Arc<Self>, id: PathId, given: Option<Duration>) {
        // Without a document no member is known to leave.
        let Some(within) = given.or_else(|| self.drain_timeout()) else {
            return;
        };
        let mut inner = self.lock();
        let drains = match given {
            Some(_) => inner.balance.goes_on_draining(id),
            None => inner.balance.begins_draining(id),
        };
        if !drains {
            return;
        }
        let is_under_way = inner.live.get(&id).is_some_and(|live| live.emptying.is_some());
        drop(inner);
        if !is_under_way {
            self.empty(id, Ending::MemberDrained, within);
        }
    }

    fn forget(&self, id: PathId, key: &PathKey) {
        let mut inner = self.lock();
        if let Some(live) = inner.live.remove(&id) {
            live.stop.cancel();
        }
        let mut siblings = inner.live.values();
        let is_known = siblings.any(|other| other.key.member == key.member);
        drop(inner);
        info!(listener = self.listener_name(), member = key.member, address = %key.address, "upstream removed");
        if is_known {
            self.show_state(&key.member);
            self.show_certificate(&key.member);
        } else {
            self.metrics.member_gone(&key.member);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::{
        balance::health::{Outcome, Reason},
        upstream::fixture::{self, in_time, probed},
    };

    #[test]
    fn a_prober_that_panics_is_named_for_liveness() {
        // Without timers, what waits for the next probe panics.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (upstreams, [_]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
            upstreams.tasks.close();
            upstreams.tasks.wait().await;
            assert_eq!(upstreams.vital_tasks().panicked(), Some("prober"));
        });
    }

    /// How the connection of a silent upstream ended by a delayed cut, before which the upstream did this.
    async fn ended_after(meanwhile: Option<Outcome>) -> Option<Ending> {
        let (upstreams, [id]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
        let guard = upstreams.guard_connection(id).unwrap();
        for _ in 0..2 {
            upstreams.observe(probed(id, Outcome::Silent), "");
        }
        assert_eq!(upstreams.health(id), Some((State::Down, Reason::Silent)));
        upstreams.cut_after(id, AT_ONCE * 4);
        if let Some(outcome) = meanwhile {
            upstreams.observe(probed(id, outcome), "");
        }
        assert_eq!(guard.close_signal.ended().now_or_never(), None, "it is too early");
        // Nothing is left to do but the cut once the prober is gone.
        upstreams.lock().live.get(&id).unwrap().stop.cancel();
        upstreams.tasks.close();
        in_time(upstreams.tasks.wait()).await;
        guard.close_signal.ended().now_or_never()
    }

    #[tokio::test]
    async fn a_delayed_cut_is_judged_again() {
        assert_eq!(ended_after(None).await, Some(Ending::MemberSilent));
        assert_eq!(
            ended_after(Some(Outcome::Silent)).await,
            Some(Ending::MemberSilent)
        );
        for answer in [Outcome::Ready, Outcome::Late, Outcome::Refused] {
            assert_eq!(ended_after(Some(answer)).await, None, "{answer:?}");
        }
    }
}
