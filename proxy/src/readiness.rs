//! Readiness and liveness of this proxy.
//!
//! Readiness latches after one verified answer through the proxy's own listener; from then on it needs its listeners'
//! addresses only. If readiness followed the upstreams, the DaemonSet controller would replace every proxy during an outage.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use crate::{
    handover::{driver::Standing, machine::State},
    listener::{Listeners, holding::Holding},
    probe,
    settings::Settings,
    upstream::Upstreams,
    vital::VitalTasks,
};

/// How soon the proxy tries its own listener again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The limit of an answer through the own listener.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A proxy that is not ready after this long has started all the same: a startup probe that goes on failing restarts the
/// container, and in an outage a restart helps nobody.
const STARTED: Duration = Duration::from_secs(20);

/// The answers to the exec probes.
#[derive(Debug)]
pub struct Readiness {
    listeners: Arc<Listeners>,
    vital: Arc<VitalTasks>,
    forwarded: AtomicBool,
    ending: AtomicBool,
    created: Instant,
    /// What this process is to others of its node; none where there is no hand-over.
    standing: Option<watch::Receiver<Standing>>,
}

impl Readiness {
    /// A proxy that is not ready yet.
    pub fn new(
        listeners: Arc<Listeners>,
        vital: Arc<VitalTasks>,
        standing: Option<watch::Receiver<Standing>>,
    ) -> Self {
        Self {
            standing,
            listeners,
            vital,
            forwarded: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            created: Instant::now(),
        }
    }

    /// Why this proxy is not ready; none if it is ready.
    pub fn objection(&self) -> Option<String> {
        if self.is_ending() {
            return Some("this proxy is ending".to_owned());
        }
        let standing = self.standing.as_ref().map(|standing| *standing.borrow());
        if let Some(Standing { state, is_ready }) = standing {
            if !is_ready {
                return Some(format!("this proxy is {}", state.as_str()));
            }
            if !self.listeners.sockets().part().accepts() {
                return None;
            }
        }
        if let Some(unheld) = self.unheld() {
            return Some(unheld);
        }
        if !self.forwarded.load(Ordering::Relaxed) {
            return Some("no member has answered through this proxy's own listener yet".to_owned());
        }
        None
    }

    /// Why this proxy does not hold all addresses at which clients reach the apiservers; none if it does.
    pub fn unheld(&self) -> Option<String> {
        // An extra listener whose port another program has must not take the apiservers' clients from their proxy.
        let mut holdings = self.listeners.holdings();
        holdings.retain(|address, _| self.listeners.is_of_apiservers(*address));
        if let Some((address, fault)) = holdings
            .iter()
            .find_map(|(address, holding)| Some((address, holding.fault()?)))
        {
            return Some(format!("listener {address}: {fault}"));
        }
        if !holdings.values().any(Holding::is_bound) {
            return Some("no listener is bound: there is no document yet".to_owned());
        }
        None
    }

    /// Why this proxy has not started yet; none if it has.
    pub fn unstarted(&self, now: Instant) -> Option<String> {
        let is_slow = now.saturating_duration_since(self.created) >= STARTED;
        if is_slow {
            self.lifeless()
        } else {
            self.objection()
        }
    }

    /// Why this proxy must be restarted; none if it is alive. Any answer shows that the event loop turns.
    pub fn lifeless(&self) -> Option<String> {
        if !self.listeners.alive() {
            return Some("an accept loop has died".to_owned());
        }
        let panicked = self.vital.panicked()?;
        Some(format!("a task that must not end has panicked: {panicked}"))
    }

    /// Waits until this process is the one of its node that serves. Without a hand-over it is.
    pub async fn serving(&self) {
        if let Some(standing) = &self.standing {
            until(standing, serves).await;
        }
    }

    /// Waits until another process of the node may serve.
    pub async fn not_serving(&self) {
        match &self.standing {
            Some(standing) => until(standing, |state| !serves(state)).await,
            None => pending().await,
        }
    }

    /// Whether the proxy ends.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// The proxy ends: it is never ready again.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Tries the own listener until a member answers through it.
    pub async fn prove(&self, upstreams: &Upstreams) {
        while let Err(reason) = self.try_forward(upstreams).await {
            debug!(reason, "not ready yet");
            sleep(TRY_AGAIN).await;
        }
        self.forwarded.store(true, Ordering::Relaxed);
        info!("ready: a member answered through this proxy's own listener");
    }

    async fn try_forward(&self, upstreams: &Upstreams) -> Result<(), String> {
        let settings = upstreams.settings().ok_or("no document yet")?;
        if self.standing.is_some() {
            return self.try_relay(&settings).await;
        }
        let bound = self.listeners.bound().into_iter();
        let mut bound = bound.filter(|address| self.listeners.is_of_apiservers(*address));
        let address: SocketAddr = bound.next().ok_or("no listener is bound")?;
        probe::verified_answer(address, &settings, ANSWER_LIMIT).await
    }

    /// Not through a listener: another process may accept there.
    async fn try_relay(&self, settings: &Settings) -> Result<(), String> {
        let listener = self
            .listeners
            .of_apiservers()
            .ok_or("the document has no listener")?;
        let answered = self.listeners.relay_own(listener, async |address| {
            probe::verified_answer(address, settings, ANSWER_LIMIT).await
        });
        answered.await.map_err(|error| error.to_string())?
    }
}

/// Waits for such a state. The last one of a process whose hand-over has ended lasts.
async fn until(standing: &watch::Receiver<Standing>, is_such: impl Fn(State) -> bool) {
    let mut standing = standing.clone();
    let came = standing
        .wait_for(|standing| is_such(standing.state))
        .await
        .is_ok();
    if !came {
        pending::<()>().await;
    }
}

/// Whether a process in this state has the lock of its node, or needs none.
fn serves(state: State) -> bool {
    match state {
        State::Alone | State::Binding | State::Serving | State::Giving | State::Leaving => true,
        State::Seeking
        | State::Newcomer
        | State::Gated
        | State::Taking
        | State::Standby
        | State::Assisting
        | State::Retiring
        | State::Draining => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{systemd::sockets::PassedSockets, upstream::fixture};

    fn readiness() -> Readiness {
        let (upstreams, []) = fixture::proven([]);
        let vital = Arc::clone(upstreams.vital_tasks());
        Readiness::new(
            Arc::new(Listeners::new(upstreams, PassedSockets::default(), false)),
            vital,
            None,
        )
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_ready_has_started_after_20_seconds() {
        let readiness = readiness();
        let after = |seconds| readiness.created + Duration::from_secs(seconds);
        assert!(readiness.objection().is_some());
        assert_eq!(readiness.unstarted(after(19)), readiness.objection());
        assert_eq!(readiness.unstarted(after(20)), None);
    }

    #[tokio::test]
    async fn a_vital_task_that_panicked_ends_liveness() {
        let readiness = readiness();
        assert_eq!(readiness.lifeless(), None);
        let vital = Arc::clone(&readiness.vital);
        let task =
            tokio::spawn(async move { vital.run("prober", async { panic!("as a prober may") }).await });
        assert!(task.await.unwrap_err().is_panic());
        assert!(readiness.lifeless().unwrap().contains("prober"));
    }
}
