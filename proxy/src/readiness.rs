//! Whether this proxy is ready, and whether it is alive.
//!
//! Readiness latches: one verified answer through the proxy's own listener, afterwards only a live accept loop. One
//! that followed the upstreams would make the DaemonSet controller replace every proxy during an outage.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tracing::{debug, info};

use crate::{listener::Listeners, probe, upstream::Upstreams};

/// How soon the own listener is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How long an answer through the own listener may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the exec probes are told.
#[derive(Debug)]
pub struct Readiness {
    listeners: Arc<Listeners>,
    forwarded: AtomicBool,
    ending: AtomicBool,
}

impl Readiness {
    /// Not ready yet.
    pub fn new(listeners: Arc<Listeners>) -> Self {
        Self {
            listeners,
            forwarded: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        }
    }

    /// Why this proxy is not ready; none if it is.
    pub fn objection(&self) -> Option<&'static str> {
        if self.ending.load(Ordering::Relaxed) {
            return Some("this proxy is ending");
        }
        if self.listeners.bound().is_empty() {
            return Some("no listener is bound: there is no document yet, or the port is taken");
        }
        if !self.forwarded.load(Ordering::Relaxed) {
            return Some("no member has answered through this proxy's own listener yet");
        }
        None
    }

    /// Why this proxy should be restarted; none if it is alive. Whoever asks and is answered knows that its event loop
    /// turns.
    pub fn lifeless(&self) -> Option<&'static str> {
        (!self.listeners.alive()).then_some("an accept loop has died")
    }

    /// Never ready again.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Tries the own listener until a member has answered through it.
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
        let address: SocketAddr = *self.listeners.bound().first().ok_or("no listener is bound")?;
        probe::verified_answer(address, &settings, ANSWER_LIMIT).await
    }
}
