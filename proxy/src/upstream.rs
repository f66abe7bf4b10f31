//! The upstreams of this proxy: the one place where the balancer's decisions are taken and carried out.

mod drain;
mod tether;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::tether::Tether;
use crate::{
    balance::{
        Balance, Candidate, Decision, Event, Identity, Standing, Target, UpstreamId, View,
        health::{Reason, State},
        pace,
    },
    ending::Ending,
    metrics::Metrics,
    probe,
    settings::{self, Settings},
};

/// Cuts that are due so soon are done at once, without a task.
const AT_ONCE: Duration = Duration::from_millis(5);

/// All upstreams, shared by listeners, probes and the document's watch.
#[derive(Debug)]
pub struct Upstreams {
    inner: Mutex<Inner>,
    metrics: Arc<Metrics>,
    proven: watch::Sender<BTreeSet<Identity>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    balance: Balance,
    settings: Option<Arc<Settings>>,
    live: HashMap<UpstreamId, Live>,
    serial: u64,
}

/// What runs for one upstream.
#[derive(Debug)]
struct Live {
    name: String,
    probe: Arc<Notify>,
    stop: CancellationToken,
    drain: Option<CancellationToken>,
    cutting: bool,
    tethers: HashMap<u64, Arc<Tether>>,
    gauge: Gauge,
}

/// A connection, or an attempt at one, that counts for an upstream until this is dropped.
#[derive(Debug)]
pub struct Claim {
    upstreams: Arc<Upstreams>,
    id: UpstreamId,
    serial: u64,
    /// By which the connection is ended from outside.
    pub tether: Arc<Tether>,
}

impl Claim {
    /// Whose connection it is.
    pub fn id(&self) -> UpstreamId {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.upstreams.release(self.id, self.serial);
    }
}

impl Upstreams {
    /// No upstreams yet. `proven` is what this node remembers; additions are published there.
    pub fn new(node: &str, metrics: Arc<Metrics>, proven: watch::Sender<BTreeSet<Identity>>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                balance: Balance::new(node),
                settings: None,
                live: HashMap::new(),
                serial: 0,
            }),
            metrics,
            proven,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Puts a document in force. Members that stay keep their health and their connections.
    pub fn apply(self: &Arc<Self>, settings: Arc<Settings>) {
        let proven = self.proven.borrow().clone();
        let targets = settings.document.members.iter().map(|member| {
            let identity = settings::identity(member);
            Target {
                draining: settings::drains(member),
                proven: proven.contains(&identity),
                identity,
            }
        });
        let event = Event::Configured(targets.collect(), settings.policy);
        self.lock().settings = Some(settings);
        self.observe(event, "");
    }

    /// The document in force, worked out.
    pub fn settings(&self) -> Option<Arc<Settings>> {
        self.lock().settings.clone()
    }

    /// The members that this node ever had a verified answer from.
    pub fn subscribe_proven(&self) -> watch::Receiver<BTreeSet<Identity>> {
        self.proven.subscribe()
    }

    /// What the proxy counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Tells the balancer what happened and does what it decides; `detail` is for the log.
    pub fn observe(self: &Arc<Self>, event: Event, detail: &str) {
        let decisions = self.lock().balance.observe(event, Instant::now());
        for decision in decisions {
            self.carry_out(decision, detail);
        }
    }

    /// Where to dial for a new connection, the best first.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.lock().balance.candidates()
    }

    /// Counts a connection, or an attempt at one, for an upstream; none if it was forgotten meanwhile.
    pub fn claim(self: &Arc<Self>, id: UpstreamId) -> Option<Claim> {
        let mut inner = self.lock();
        let serial = inner.serial;
        let live = inner.live.get_mut(&id)?;
        let tether = Arc::new(Tether::default());
        live.tethers.insert(serial, Arc::clone(&tether));
        live.gauge.inc();
        inner.serial = serial.wrapping_add(1);
        // Counting never asks for anything to be done.
        inner.balance.observe(Event::Opened(id), Instant::now());
        drop(inner);
        Some(Claim {
            upstreams: Arc::clone(self),
            id,
            serial,
            tether,
        })
    }

    /// The member's name, for logs and metrics.
    pub fn name(&self, id: UpstreamId) -> String {
        self.lock()
            .live
            .get(&id)
            .map(|live| live.name.clone())
            .unwrap_or_default()
    }

    /// How long to wait for a first byte before the first flight is sent to another upstream as well.
    pub fn patience(&self, hedge_delay: Duration) -> Duration {
        self.lock().balance.patience(hedge_delay)
    }

    /// Counts an opened connection, which earns part of a hedge.
    pub fn earn_hedge(&self) {
        self.lock().balance.earn_hedge();
    }

    /// Takes a hedge out of the budget, if it has one.
    pub fn spend_hedge(&self) -> bool {
        self.lock().balance.spend_hedge()
    }

    /// All upstreams as they are.
    pub fn view(&self) -> Vec<View> {
        self.lock().balance.view()
    }

    /// Closes all connections gradually, the last one `within` this time from now.
    pub async fn drain_all(&self, within: Duration) {
        drain::gradually(|| self.tethers(|_| true), Ending::ProxyDrained, within).await;
    }

    /// Ends all that runs for upstreams.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn carry_out(self: &Arc<Self>, decision: Decision, detail: &str) {
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
            Decision::Drain(id) => self.drain(id),
            Decision::Restore(id) => {
                if let Some(drain) = self.lock().live.get_mut(&id).and_then(|live| live.drain.take()) {
                    drain.cancel();
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
            drain: None,
            cutting: false,
            tethers: HashMap::new(),
            gauge: self.metrics.connections_of(&identity.name),
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
        self.tasks
            .spawn(stop.run_until_cancelled_owned(Box::pin(prober.run(wake))));
    }

    fn tell(&self, id: UpstreamId, from: (State, Reason), to: (State, Reason), detail: &str) {
        let member = self.name(id);
        if !self
            .view()
            .iter()
            .any(|view| view.id == id && view.standing == Standing::Removed)
        {
            self.metrics.state(&member, to.0);
        }
        let loud = from.0 != to.0 && to.0 != State::Up;
        let (from, to, reason) = (from.0.word(), to.0.word(), to.1.word());
        if loud {
            warn!(member, from, to, reason, detail, "upstream health changed");
        } else {
            info!(member, from, to, reason, detail, "upstream health changed");
        }
    }

    fn cut(self: &Arc<Self>, id: UpstreamId) {
        let mut inner = self.lock();
        let nodes = inner
            .settings
            .as_ref()
            .map_or(0, |settings| settings.document.nodes);
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        if live.cutting {
            return;
        }
        let delay = pace::cut_delay(nodes, rand::random());
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
        if let Some(live) = self.lock().live.get_mut(&id) {
            live.cutting = false;
        }
        let tethers = self.tethers(|of| of == id);
        warn!(
            member = self.name(id),
            connections = tethers.len(),
            "cutting the connections of a silent upstream"
        );
        for tether in tethers {
            tether.end(Ending::MemberSilent);
        }
    }

    fn drain(self: &Arc<Self>, id: UpstreamId) {
        let stop = self.stop.child_token();
        let within = self
            .settings()
            .map(|settings| settings.drain_timeout)
            .unwrap_or_default();
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        live.drain = Some(stop.clone());
        info!(
            member = live.name,
            connections = live.tethers.len(),
            ?within,
            "draining upstream"
        );
        drop(inner);
        let upstreams = Arc::clone(self);
        self.tasks.spawn(async move {
            let drain = drain::gradually(|| upstreams.tethers(|of| of == id), Ending::MemberDrained, within);
            stop.run_until_cancelled(drain).await;
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

    fn release(self: &Arc<Self>, id: UpstreamId, serial: u64) {
        if let Some(live) = self.lock().live.get_mut(&id) {
            live.tethers.remove(&serial);
            live.gauge.dec();
        }
        self.observe(Event::Closed(id), "");
    }

    fn tethers(&self, of: impl Fn(UpstreamId) -> bool) -> Vec<Arc<Tether>> {
        let inner = self.lock();
        let chosen = inner.live.iter().filter(|(id, _)| of(**id));
        chosen
            .flat_map(|(_, live)| live.tethers.values().cloned())
            .collect()
    }

    /// A panic elsewhere must not take the balancer with it: what it left is still a valid state.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
