//! Carries out what the balancer decided.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::{Evidence, Live, Upstreams, drain};
use crate::{
    balance::{
        Decision, Identity, Standing, UpstreamId, cuts,
        health::{Reason, State},
        stranded,
    },
    ending::Ending,
    probe,
};

/// Cuts that are due so soon are done at once, without a task.
const AT_ONCE: Duration = Duration::from_millis(5);

impl Upstreams {
    pub(super) fn carry_out(self: &Arc<Self>, decision: Decision, detail: &str) {
        match decision {
            Decision::Watch(id, identity) => self.watch(id, identity),
            Decision::Probe(id) => {
                if let Some(live) = self.lock().live.get(&id) {
                    live.probe.notify_one();
                }
            }
            Decision::Tell { id, from, to } => self.tell(id, from, to, detail),
            Decision::Remember(_, identity) => {
                info!(member = identity.name, "upstream proved itself");
                self.proven.send_modify(|proven| {
                    proven.insert(identity);
                });
            }
            Decision::Cut(id) => self.cut(id),
            Decision::Drain(id) => {
                let within = self
                    .settings()
                    .map(|settings| settings.drain_timeout)
                    .unwrap_or_default();
                self.empty(id, Ending::MemberDrained, within);
            }
            Decision::Move(id) => self.empty(id, Ending::MemberStranded, stranded::MOVE_WITHIN),
            Decision::Restore(id) => {
                if let Some(emptying) = self
                    .lock()
                    .live
                    .get_mut(&id)
                    .and_then(|live| live.emptying.take())
                {
                    emptying.cancel();
                }
            }
            Decision::Forget(id, identity) => self.forget(id, &identity),
        }
    }

    fn watch(self: &Arc<Self>, id: UpstreamId, identity: Identity) {
        info!(member = identity.name, addresses = ?identity.addresses, "upstream added");
        let live = Live {
            name: identity.name.clone(),
            probe: Arc::new(Notify::new()),
            stop: self.stop.child_token(),
            emptying: None,
            cutting: false,
            close_signals: BTreeMap::new(),
            evidence: Evidence::default(),
            series: Arc::new(self.metrics.member(&identity.name)),
        };
        let (wake, stop) = (Arc::clone(&live.probe), live.stop.clone());
        let mut inner = self.lock();
        inner.live.insert(id, live);
        let state = inner
            .balance
            .view()
            .into_iter()
            .find(|view| view.id == id)
            .map(|view| view.state);
        drop(inner);
        if let Some(state) = state {
            self.metrics.state(&identity.name, state);
        }
        let prober = probe::Prober::new(Arc::clone(self), id, identity);
        let vital = Arc::clone(&self.vital);
        let probing = Box::pin(prober.run(wake));
        let probing = async move { vital.run("prober", probing).await };
        self.tasks.spawn(stop.run_until_cancelled_owned(probing));
    }

    fn tell(&self, id: UpstreamId, from: (State, Reason), to: (State, Reason), detail: &str) {
        let member = self.name(id);
        if !self
            .view()
            .iter()
            .any(|view| view.id == id && view.standing == Standing::Removed)
        {
            self.metrics.state(&member, to.0);
            if from.0 != to.0 {
                self.metrics.turned(&member, to.0);
            }
        }
        let loud = from.0 != to.0 && to.0 != State::Up;
        let (from, to, reason) = (from.0.as_str(), to.0.as_str(), to.1.as_str());
        if loud {
            warn!(member, from, to, reason, detail, "upstream health changed");
        } else {
            info!(member, from, to, reason, detail, "upstream health changed");
        }
    }

    fn cut(self: &Arc<Self>, id: UpstreamId) {
        let nodes = self.settings().map_or(0, |settings| settings.document.nodes);
        self.cut_after(id, cuts::cut_delay(nodes, rand::random()));
    }

    fn cut_after(self: &Arc<Self>, id: UpstreamId, delay: Duration) {
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

    fn cut_now(&self, id: UpstreamId) {
        let mut inner = self.lock();
        let down = inner
            .balance
            .health(id)
            .is_some_and(|(state, _)| state == State::Down);
        let mut silent_since = None;
        if let Some(live) = inner.live.get_mut(&id) {
            live.cutting = false;
            silent_since = down.then(|| live.evidence.cut()).flatten();
        }
        drop(inner);
        // It may have spoken since the cut was decided.
        if !down {
            return;
        }
        if let Some(since) = silent_since {
            self.metrics.failed_over(since.elapsed());
        }
        let close_signals = self.close_signals(Some(id));
        warn!(
            member = self.name(id),
            connections = close_signals.len(),
            "cutting the connections of a silent upstream"
        );
        for close_signal in close_signals {
            close_signal.end(Ending::MemberSilent);
        }
    }

    /// Closes the connections of an upstream one after the other, in place of what was done to them before.
    fn empty(self: &Arc<Self>, id: UpstreamId, ending: Ending, within: Duration) {
        let stop = self.stop.child_token();
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        if let Some(before) = live.emptying.replace(stop.clone()) {
            before.cancel();
        }
        let reason = ending.as_str();
        info!(
            member = live.name,
            connections = live.close_signals.len(),
            reason,
            ?within,
            "closing the connections of an upstream gradually"
        );
        drop(inner);
        let upstreams = Arc::clone(self);
        self.tasks.spawn(async move {
            let closing = drain::gradually(&upstreams, Some(id), ending, within);
            stop.run_until_cancelled(closing).await;
        });
    }

    fn forget(&self, id: UpstreamId, identity: &Identity) {
        let mut inner = self.lock();
        if let Some(live) = inner.live.remove(&id) {
            live.stop.cancel();
        }
        let replaced = inner.live.values().any(|other| other.name == identity.name);
        drop(inner);
        info!(member = identity.name, "upstream removed");
        if !replaced {
            self.metrics.member_gone(&identity.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::{
        balance::health::Outcome,
        upstream::fixture::{self, in_time, probed},
    };

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
