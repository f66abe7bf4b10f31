//! The upstreams of this proxy: reports events to the balancer and carries out its decisions.

mod act;
mod close_signal;
mod connection_guard;
mod drain;
mod evidence;
mod extra;
#[cfg(test)]
pub(crate) mod fixture;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::{
    close_signal::{Call, CloseSignal},
    connection_guard::ConnectionGuard,
    evidence::{Origin, Run},
    extra::Check,
    service::{Service, ServiceLog},
};
use self::{evidence::Evidence, extra::Extra};
use crate::{
    balance::{
        Balance, Candidate, Disabled, Event, PathId, PathKey, Target, View,
        health::{Reason, State},
        place::{Distance, Place},
    },
    clock::event_loop::LoopClock,
    ending::Ending,
    metrics::{Metrics, members::Series},
    settings::{self, Settings},
    trust::{Certificate, CertificateStatus},
    vital::VitalTasks,
    warnings::{Topic, Warnings},
};

/// After a client has waited this long for an answer, its path gets an extra probe.
const QUIET_FOR: Duration = Duration::from_secs(2);

/// The pause between two checks of the connections for such clients, and of the members for their [`Service`].
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The pause between two checks for connections while a proxy that ends has none: short enough for a drain of one second.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// All upstreams, shared by listeners, probes and the document's watch.
#[derive(Debug)]
pub struct Upstreams {
    inner: Mutex<Inner>,
    place: Place,
    metrics: Arc<Metrics>,
    token_file: Option<PathBuf>,
    proven: watch::Sender<BTreeSet<PathKey>>,
    /// Notified after each outcome of a probe.
    probed: Notify,
    tasks: TaskTracker,
    vital: Arc<VitalTasks>,
    clock: Arc<LoopClock>,
    stop: CancellationToken,
    /// Of the upstreams of an extra listener; none of those of the apiservers.
    extra: Option<Extra>,
}

/// The paths that have proved themselves to this node.
type Proven = BTreeSet<PathKey>;

#[derive(Debug)]
struct Inner {
    balance: Balance,
    settings: Option<Arc<Settings>>,
    live: HashMap<PathId, Live>,
    serial: u64,
}

/// A certificate as a path has shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether it is one of this cluster.
    pub status: CertificateStatus,
    /// What it says of itself.
    pub certificate: Certificate,
}

impl Shown {
    fn is_refused(&self) -> bool {
        self.status != CertificateStatus::Verified
    }
}

/// What runs for one path.
#[derive(Debug)]
struct Live {
    key: PathKey,
    probe: Arc<Notify>,
    stop: CancellationToken,
    emptying: Option<Emptying>,
    cutting: bool,
    /// By serial number, so the oldest connection comes first.
    close_signals: BTreeMap<u64, Arc<CloseSignal>>,
    evidence: Evidence,
    /// The certificate that it showed last; none before the first.
    certificate: Option<Shown>,
    series: Arc<Series>,
}

/// The gradual end of a path's connections.
#[derive(Debug)]
struct Emptying {
    stop: CancellationToken,
    ending: Ending,
    /// When the last one is closed.
    deadline: Instant,
}

impl Upstreams {
    /// No upstreams yet, on a node at this place. `proven` is what the node remembers; additions are published there.
    /// Probes that are refused without a token are sent again with the one in `token_file`.
    pub fn new(
        place: Place,
        metrics: Arc<Metrics>,
        token_file: Option<PathBuf>,
        proven: watch::Sender<BTreeSet<PathKey>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner::new(&place.node)),
            place,
            metrics,
            token_file,
            proven,
            probed: Notify::new(),
            tasks: TaskTracker::new(),
            vital: Arc::default(),
            clock: Arc::default(),
            stop: CancellationToken::new(),
            extra: None,
        })
    }

    /// Puts a document in force. Paths that stay keep their health and their connections.
    pub fn apply(self: &Arc<Self>, settings: Arc<Settings>) {
        let disabled = match &self.extra {
            None => Disabled::of(&settings.document.disabled_members),
            Some(extra) => extra.disabled(&settings),
        };
        let event = Event::Configured {
            targets: self.targets(&settings),
            disabled,
            policy: settings.policy,
        };
        let takes_turns = self.extra.as_ref().is_some_and(|extra| extra.follow(&settings));
        let mut inner = self.lock();
        inner.settings = Some(settings);
        inner.balance.take_turns(takes_turns);
        drop(inner);
        self.observe(event, "");
        // Some that are known already may be Active, or drain, by this document.
        let known: BTreeSet<_> = self
            .lock()
            .live
            .values()
            .map(|live| live.key.member.clone())
            .collect();
        for member in &known {
            self.show_state(member);
        }
    }

    /// The paths of a document. For an extra listener that is not in it, there are none.
    fn targets(&self, settings: &Settings) -> Vec<Target> {
        let proven = self.proven.borrow().clone();
        let locality = settings.document.balancing.locality;
        let members = settings.document.members.iter();
        let served = members.filter_map(|member| match &self.extra {
            None => Some((member, member.port)),
            Some(extra) => Some((member, extra.port(settings)?)),
        });
        let targets = served.flat_map(|(member, port)| {
            let draining = settings::drains(member);
            let distance = self.place.counted_distance(locality, member);
            let proven = &proven;
            let paths = settings::paths_at(member, port).enumerate();
            paths.map(move |(preference, key)| Target {
                preference,
                draining,
                proven: proven.contains(&key),
                distance,
                key,
            })
        });
        targets.collect()
    }

    /// Keeps the paths of earlier documents for the time when no other path answers, and the further endpoints for the time
    /// when these do not either.
    pub fn remember(self: &Arc<Self>, earlier: Vec<PathKey>, further: Vec<PathKey>) {
        let proven = self.proven.borrow().clone();
        let target = |key: PathKey| Target {
            preference: 0,
            draining: false,
            proven: proven.contains(&key),
            // The node and zone of an earlier document may be out of date, so distance does not count.
            distance: Distance::Elsewhere,
            key,
        };
        let event = Event::Remembered {
            earlier: earlier.into_iter().map(target).collect(),
            further: further.into_iter().map(target).collect(),
        };
        self.observe(event, "");
    }

    /// Trusts paths that another process of this node has proven.
    pub fn learn_proofs(self: &Arc<Self>, proofs: BTreeSet<PathKey>) {
        let is_new = self.proven.send_if_modified(|proven| {
            let before = proven.len();
            proven.extend(proofs);
            proven.len() > before
        });
        if is_new && let Some(settings) = self.settings() {
            self.apply(settings);
        }
    }

    /// Forgets the proofs of paths that are neither among these nor in use any more: otherwise the list grows with every
    /// master that the node ever had. A path that comes back is proven again by its first probe.
    pub fn forget_proofs_but(&self, known: &BTreeSet<PathKey>) {
        let views = self.view();
        let is_known = |key: &PathKey| known.contains(key) || views.iter().any(|view| view.key == *key);
        self.proven.send_if_modified(|proven| {
            let before = proven.len();
            proven.retain(is_known);
            proven.len() < before
        });
    }

    /// The tasks that must not end before the proxy does, the probers among them.
    pub fn vital_tasks(&self) -> &Arc<VitalTasks> {
        &self.vital
    }

    /// By which limits on clients and members are measured.
    pub fn clock(&self) -> &Arc<LoopClock> {
        &self.clock
    }

    /// Where this node is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The settings of the document in force.
    pub fn settings(&self) -> Option<Arc<Settings>> {
        self.lock().settings.clone()
    }

    /// The proven paths of this node, without those that were forgotten.
    pub fn subscribe_proven(&self) -> watch::Receiver<BTreeSet<PathKey>> {
        self.proven.subscribe()
    }

    /// The file with the token of this proxy, if it has one.
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// The metrics of the proxy.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Reports an event to the balancer and carries out its decisions; `detail` is for people.
    pub fn observe(self: &Arc<Self>, event: Event, detail: &str) {
        let now = Instant::now();
        let mut inner = self.lock();
        let live = Evidence::subject(&event).and_then(|id| inner.live.get_mut(&id));
        if let Some(live) = live {
            live.evidence.note(&event, detail, now);
        }
        let probed = matches!(event, Event::Probed { .. });
        let decisions = inner.balance.observe(event, now);
        drop(inner);
        for decision in decisions {
            self.carry_out(decision, detail);
        }
        if probed {
            self.probed.notify_waiters();
        }
    }

    /// Ready after the next outcome of a probe.
    pub fn next_outcome(&self) -> Notified<'_> {
        self.probed.notified()
    }

    /// Whether a member of the last resort is being probed for the first time.
    pub fn awaits_last_resort(&self) -> bool {
        self.lock().balance.awaits_last_resort()
    }

    /// Where to dial for a new connection, the best first.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.lock().balance.candidates()
    }

    /// Whether an upstream is expected to answer a new connection.
    pub fn expects_answers(&self) -> bool {
        self.lock().balance.expects_answers()
    }

    /// How long to wait for a first byte before the first flight is sent to another upstream as well.
    pub fn hedge_delay(&self, configured: Duration) -> Duration {
        self.lock().balance.hedge_delay(configured)
    }

    /// Counts an opened connection, which earns part of a hedge.
    pub fn earn_hedge(&self) {
        self.lock().balance.earn_hedge();
    }

    /// Whether a first flight that no path of `asked` has answered since then may be sent to another.
    pub fn spend_hedge(&self, asked: &[PathId], since: Instant) -> bool {
        self.lock().balance.spend_hedge(asked, since)
    }

    /// What a path may get, and why; none once it is forgotten.
    pub fn health(&self, id: PathId) -> Option<(State, Reason)> {
        self.lock().balance.health(id)
    }

    /// Whether a path is probed at the full rate.
    pub fn is_in_use(&self, id: PathId) -> bool {
        self.lock().balance.is_in_use(id)
    }

    /// A path has shown a certificate that verifies, or one that does not. The metric is about the member.
    pub fn certificate_shown(&self, id: PathId, shown: Shown) {
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&id) else {
            return;
        };
        live.certificate = Some(shown);
        let series = Arc::clone(&live.series);
        drop(inner);
        self.show_certificate(&series.member);
    }

    fn show_certificate(&self, member: &str) {
        let inner = self.lock();
        let paths = inner.live.values().filter(|live| live.key.member == member);
        let shown = || paths.clone().filter_map(|live| live.certificate.as_ref());
        let refused = shown().map(Shown::is_refused).max();
        let end = shown().filter_map(|shown| shown.certificate.not_after).min();
        drop(inner);
        if let Some(refused) = refused {
            self.metrics.certificate(member, !refused, end);
        }
    }

    /// The certificates that paths have shown last.
    pub fn certificates(&self) -> HashMap<PathId, Shown> {
        let inner = self.lock();
        let shown = inner.live.iter();
        shown
            .filter_map(|(id, live)| Some((*id, live.certificate.clone()?)))
            .collect()
    }

    /// Whether all of these paths are silent.
    pub fn are_silent(&self, asked: &[PathId]) -> bool {
        self.lock().balance.are_silent(asked)
    }

    /// All paths as they are.
    pub fn view(&self) -> Vec<View> {
        self.lock().balance.view()
    }

    /// All paths as they are, each with its latest outcomes, the latest first.
    pub fn with_evidence(&self) -> Vec<(View, Vec<Run>)> {
        let inner = self.lock();
        let heard = |id| inner.live.get(&id).map(|live| live.evidence.runs());
        let views = inner.balance.view().into_iter();
        views
            .map(|view| {
                let runs = heard(view.id).unwrap_or_default();
                (view, runs)
            })
            .collect()
    }

    /// Checks periodically, without end, for clients that wait too long for an answer: in a large cluster, where probes are
    /// rare, traffic shows a hung upstream before a probe does.
    pub async fn watch_for_overdue_replies(self: Arc<Self>) {
        let mut lapses = self.clock.lapses();
        loop {
            sleep(LOOK_EVERY).await;
            // Otherwise the answers may lie unread.
            if lapses.since(&self.clock).is_zero() {
                self.look_for_overdue_replies();
            }
        }
    }

    /// Checks once for such clients.
    pub fn look_for_overdue_replies(self: &Arc<Self>) {
        let long_ago = |since: Instant| since.elapsed() >= QUIET_FOR;
        let quiet = |live: &Live| {
            live.close_signals
                .values()
                .any(|close_signal| close_signal.waiting_since().is_some_and(long_ago))
        };
        let inner = self.lock();
        let found: Vec<_> = inner
            .live
            .iter()
            .filter(|(_, live)| quiet(live))
            .map(|(id, _)| *id)
            .collect();
        drop(inner);
        for id in found {
            self.observe(Event::ReplyOverdue(id), "");
        }
    }

    /// When a client of this path that had waited got its reply last; none while there is none, or after it has left.
    pub fn last_reply(&self, id: PathId) -> Option<Instant> {
        let inner = self.lock();
        let close_signals = inner.live.get(&id)?.close_signals.values();
        close_signals
            .filter_map(|close_signal| close_signal.last_reply())
            .max()
    }

    /// Lets the balancer look, without end, whether anything serves, and says each lasting change of [`Service`]. That no
    /// member answers is a warning, until the service is another one for as long.
    pub async fn watch_service(self: Arc<Self>, warnings: Arc<Warnings>) {
        let mut service_log = ServiceLog::default();
        loop {
            sleep(LOOK_EVERY).await;
            let Some((news, members)) = self.look_at_service(&mut service_log) else {
                continue;
            };
            if news != Service::Gone {
                warnings.clear(Topic::Service);
            }
            match news {
                Service::Up => info!(members, "a member is Up again"),
                Service::Unready => {
                    warn!(
                        members,
                        "no member is Up: clients are sent to those that answer, and nothing is cut"
                    );
                }
                Service::LastResort => warn!(
                    members,
                    "no Active member answers: clients are sent to members that drain, were removed, or are of earlier documents, or to further endpoints"
                ),
                Service::Gone => {
                    warnings.raise(
                        Topic::Service,
                        "NoMemberAnswers",
                        service::nobody_answers(&members),
                    );
                }
            }
        }
    }

    /// Lets the balancer look once whether anything serves, and returns what to log of it, with the members as they are.
    pub fn look_at_service(self: &Arc<Self>, service_log: &mut ServiceLog) -> Option<(Service, String)> {
        self.observe(Event::Elapsed, "");
        let views = self.view();
        let service = Service::of(views.iter().map(|view| (view.standing, view.state, view.reason)));
        let news = service_log.look(service?, Instant::now())?;
        Some((news, service::members(&views)))
    }

    /// Closes all connections gradually, the last one `within` this time from now. Then closes, without end, those that come
    /// later from an open that was under way.
    pub async fn drain_all(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            drain::gradually(self, None, Ending::ProxyDrained, remaining).await;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends all tasks of the upstreams.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The connections of one path, or of all.
    fn close_signals(&self, of: Option<PathId>) -> Vec<Arc<CloseSignal>> {
        let inner = self.lock();
        let connections = inner.connections(of);
        connections.flat_map(BTreeMap::values).cloned().collect()
    }

    /// The oldest connection of one path, or of all, and how many there are. The oldest is the least likely to end by
    /// itself. A drain asks before each close, so the cost must not grow with the number of connections.
    fn next_to_close(&self, of: Option<PathId>) -> Option<(Arc<CloseSignal>, usize)> {
        let inner = self.lock();
        let left = inner.connections(of).map(BTreeMap::len).sum();
        let oldest = inner.connections(of).filter_map(BTreeMap::first_key_value);
        let (_, close_signal) = oldest.min_by_key(|(serial, _)| **serial)?;
        Some((Arc::clone(close_signal), left))
    }

    /// A panic while the lock is held leaves a valid state, so the lock is taken all the same.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(node: &str) -> Self {
        Self {
            balance: Balance::new(node),
            settings: None,
            live: HashMap::new(),
            serial: 0,
        }
    }

    fn connections(&self, of: Option<PathId>) -> impl Iterator<Item = &BTreeMap<u64, Arc<CloseSignal>>> {
        let chosen = self
            .live
            .iter()
            .filter(move |(id, _)| of.is_none_or(|of| of == **id));
        chosen.map(|(_, live)| &live.close_signals)
    }
}
