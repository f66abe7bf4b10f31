//! The whole proxy: bind, run, drain.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};
use trivet_crds::wire::{self, Listener};

use crate::{
    admin::{self, Admin, Exposure, Guard, NodeAddresses, ProbeAnswers},
    api::Credentials,
    authn::Reviewer,
    balance::place::Place,
    cause,
    document::{
        Documents, InForce, cache::Cache, file, keeper::Keeper, seed::Seed, stale, watch as config_map,
    },
    ending::Ending,
    files,
    handover::{
        driver::{self, Driver, End, Standing, Warmth},
        machine::Event,
        pairs::{giver, takings::Takings},
    },
    listener::Listeners,
    metrics::Metrics,
    net::socket,
    readiness::Readiness,
    report::{HandOver, Reporter, elsewhere},
    settings,
    source::Source,
    status::Subject,
    systemd::{self, report as service_report},
    upstream::Upstreams,
    warnings::{Topic, Warnings},
};

/// File descriptors for everything but client connections: probes, watch, cache, logs and hedges.
const SPARE_FILES: u64 = 256;

/// How to run a proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file with the document, if any.
    pub file: Option<PathBuf>,
    /// The document of the first start, if any.
    pub seed: Option<Seed>,
    /// The directory of the last good documents, if any.
    pub cache: Option<PathBuf>,
    /// The ConfigMap to follow, if any.
    pub watch: Option<config_map::ConfigMapTarget>,
    /// The file with the token for probes that are refused without one, if any.
    pub token_file: Option<PathBuf>,
    /// This node's name and zone.
    pub place: Place,
    /// The unix socket of exec probes and `status`, if any.
    pub socket: Option<PathBuf>,
    /// The address of the metrics, if any.
    pub metrics: Option<SocketAddr>,
    /// Where else they are served at its port, to callers that the API server allows.
    pub exposed: Option<ExposedMetrics>,
    /// What systemd passed.
    pub service: systemd::Service,
    /// How to hand listeners over to other processes of this node; none: they are shared by `SO_REUSEPORT`.
    pub handover: Option<driver::Config>,
}

/// Metrics at addresses of the node.
#[derive(Clone, Debug)]
pub struct ExposedMetrics {
    /// The addresses; none is no fault.
    pub addresses: NodeAddresses,
    /// With which credentials the API is asked about callers.
    pub credentials: Credentials,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The unix socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] admin::BindError),
}

/// A proxy with all of its parts and the newest document that it found.
#[derive(Debug)]
pub struct BoundProxy {
    config: Config,
    documents: Arc<Documents>,
    upstreams: Arc<Upstreams>,
    listeners: Arc<Listeners>,
    readiness: Arc<Readiness>,
    warnings: Arc<Warnings>,
    admin: Arc<Admin>,
    answers: Option<ProbeAnswers>,
    driver: Option<Driver>,
    reporter: Option<Reporter>,
    /// The name of this process among those of its node.
    name: String,
    files: u64,
}

/// Builds the parts, reads the disk, and binds the unix socket. Nothing is forwarded yet.
pub async fn bind(config: Config, metrics: Arc<Metrics>) -> Result<BoundProxy, Error> {
    let files = socket::raise_nofile().unwrap_or_else(|error| {
        warn!(%error, "failed to raise the limit of open files");
        1024
    });
    let cache = config.cache.clone().map(Cache::new);
    let proven = cache.as_ref().map(Cache::proven).unwrap_or_default();
    let upstreams = Upstreams::new(
        config.place.clone(),
        Arc::clone(&metrics),
        config.token_file.clone(),
        watch::Sender::new(proven),
    );
    let warnings = Arc::new(Warnings::new(Arc::clone(&metrics)));
    let documents = Arc::new(Documents::new(cache, Arc::clone(&metrics), Arc::clone(&warnings)));
    documents.offer_cached();
    if let Some(path) = &config.file
        && let Some(text) = file::look(path).await
    {
        documents.offer(&text, Source::File);
    }
    if let Some(seed) = &config.seed {
        documents.offer(seed.text(), Source::Seed);
    }
    let listeners = Arc::new(Listeners::new(
        Arc::clone(&upstreams),
        config.service.sockets.clone(),
        config.handover.is_some(),
    ));
    let driver = config.handover.clone().map(|handover| {
        let warmth = Warmth::new(Arc::clone(&documents), Arc::clone(&upstreams));
        Driver::new(handover, Arc::clone(&listeners), warmth, Arc::clone(&warnings))
    });
    let readiness = Arc::new(Readiness::new(
        Arc::clone(&listeners),
        Arc::clone(upstreams.vital_tasks()),
        driver.as_ref().map(Driver::standing),
    ));
    let subject = Subject {
        documents: Arc::clone(&documents),
        upstreams: Arc::clone(&upstreams),
        listeners: Arc::clone(&listeners),
        readiness: Arc::clone(&readiness),
        warnings: Arc::clone(&warnings),
    };
    let name = elsewhere::own_name();
    let reporter = config.watch.as_ref().map(|target| Reporter {
        subject: subject.clone(),
        upstreams: Arc::clone(&upstreams),
        credentials: target.credentials(),
        hand_over: driver
            .as_ref()
            .zip(config.handover.as_ref())
            .map(|(driver, handover)| HandOver {
                standing: driver.standing(),
                standby: driver.standby(),
                template: handover.template.clone(),
                directory: handover.directory.clone(),
                name: name.clone(),
            }),
    });
    let admin = Admin::new(metrics.registry(), Arc::clone(&readiness), subject);
    let answers = match &config.socket {
        Some(path) => Some(admin.open_for_probes(path)?),
        None => None,
    };
    Ok(BoundProxy {
        config,
        documents,
        upstreams,
        listeners,
        readiness,
        warnings,
        admin,
        answers,
        driver,
        reporter,
        name,
        files,
    })
}

impl BoundProxy {
    /// Forwards until `shutdown`, then drains.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        let (events, inbox) = mpsc::channel(EVENTS);
        let driver = self.driver.take();
        let standing = driver.as_ref().map(Driver::standing);
        self.start(&mut tasks, events.clone(), standing);
        let end = CancellationToken::new();
        let keeper = self.keep(end.clone());
        let documents = self.documents.subscribe();
        let ended = async {
            match driver {
                None => {
                    shutdown.await;
                    alone()
                }
                Some(driver) => hand_over(driver, inbox, events, shutdown).await,
            }
        };
        let end_of_part = tokio::select! {
            () = self.follow(documents) => alone(),
            ended = ended => ended,
        };
        self.drain(end_of_part).await;
        end.cancel();
        if let Some(keeper) = keeper
            && timeout(LAST_WRITE, keeper).await.is_err()
        {
            warn!("leaving the disk behind: a write takes too long");
        }
        tasks.shutdown().await;
    }

    /// Starts the tasks that last as long as the proxy.
    fn start(
        &mut self,
        tasks: &mut JoinSet<()>,
        events: mpsc::Sender<Event>,
        standing: Option<watch::Receiver<Standing>>,
    ) {
        let vital = Arc::clone(self.upstreams.vital_tasks());
        let mut spawn = |name, task: BoxFuture<'static, ()>| {
            let vital = Arc::clone(&vital);
            tasks.spawn(async move { vital.run(name, task).await });
        };
        if let Some(answers) = self.answers.take() {
            spawn(
                "answers to probes",
                Arc::clone(&self.admin).answer_probes(answers).boxed(),
            );
        }
        for (address, exposure) in self.scraped() {
            let serving = Arc::clone(&self.admin).serve_tcp(address, exposure);
            spawn("metrics", serving.boxed());
        }
        if let Some(path) = self.config.file.clone() {
            spawn(
                "document file",
                file::follow(path, Arc::clone(&self.documents)).boxed(),
            );
        }
        let (documents, upstreams) = (Arc::clone(&self.documents), Arc::clone(&self.upstreams));
        if let Some(target) = self.config.watch.clone() {
            let watch = config_map::follow(target, Arc::clone(&upstreams), Arc::clone(&documents));
            spawn("watch", watch.boxed());
        }
        if let Some(reporter) = self.reporter.take() {
            spawn("report", reporter.run().boxed());
        }
        let warnings = Arc::clone(&self.warnings);
        spawn(
            "stale documents",
            stale::resolve(documents, Arc::clone(&upstreams), warnings).boxed(),
        );
        spawn(
            "overdue replies",
            Arc::clone(&upstreams).watch_for_overdue_replies().boxed(),
        );
        let warnings = Arc::clone(&self.warnings);
        spawn("service", Arc::clone(&upstreams).watch_service(warnings).boxed());
        let (extras, warnings) = (Arc::clone(self.listeners.extras()), Arc::clone(&self.warnings));
        spawn(
            "extra listeners",
            async move { extras.watch(warnings).await }.boxed(),
        );
        if let Some((handover, standing)) = self.config.handover.as_ref().zip(standing) {
            let (directory, listeners) = (handover.directory.clone(), Arc::clone(&self.listeners));
            let giving = giver::give_while_standing_by(directory, listeners, standing);
            spawn("connections of a standby", giving.boxed());
            let telling = elsewhere::tell(
                handover.directory.clone(),
                self.name.clone(),
                Arc::clone(&self.listeners),
            );
            spawn("connections for the report", telling.boxed());
        }
        let clock = Arc::clone(upstreams.clock());
        spawn("clock", async move { clock.run().await }.boxed());
        let report = service_report::report(
            self.config.service.clone(),
            Arc::clone(&self.readiness),
            Arc::clone(&self.listeners),
            Arc::clone(&upstreams),
        );
        spawn("systemd", report.boxed());
        let (listeners, warnings) = (Arc::clone(&self.listeners), Arc::clone(&self.warnings));
        spawn("files", files::watch(listeners, warnings, self.files).boxed());
        let readiness = Arc::clone(&self.readiness);
        spawn(
            "readiness",
            async move {
                readiness.prove(&upstreams).await;
                // Nobody takes it where there is no hand-over.
                let _untold = events.send(Event::Proven).await;
            }
            .boxed(),
        );
    }

    /// Where the metrics are served, and how.
    fn scraped(&self) -> Vec<(SocketAddr, Exposure)> {
        let Some(address) = self.config.metrics else {
            return Vec::new();
        };
        let mut scraped = vec![(address, Exposure::Plain)];
        if let Some(ExposedMetrics {
            addresses: NodeAddresses(addresses),
            credentials,
        }) = &self.config.exposed
        {
            let warnings = Arc::clone(&self.warnings);
            let reviewer = Reviewer::new(Arc::clone(&self.upstreams), credentials.clone(), warnings);
            match Guard::new(addresses, reviewer) {
                Ok(guard) => {
                    let exposure = Exposure::Reviewed(Arc::new(guard));
                    let at = |ip: &IpAddr| (SocketAddr::new(*ip, address.port()), exposure.clone());
                    scraped.extend(addresses.iter().map(at));
                }
                // A node must not lose its apiservers for it.
                Err(error) => warn!(
                    cause = cause::chain(&error),
                    "not serving metrics at the node's addresses"
                ),
            }
        }
        scraped
    }

    /// Starts to write the cache, if there is one. Called before anything changes.
    fn keep(&self, end: CancellationToken) -> Option<AbortOnDropHandle<()>> {
        let cache = Cache::new(self.config.cache.clone()?);
        let (documents, proven) = (self.documents.subscribe(), self.upstreams.subscribe_proven());
        let keeper = Keeper::new(cache, documents, proven, Arc::clone(&self.warnings));
        let vital = Arc::clone(self.upstreams.vital_tasks());
        let keeper = async move { vital.run("document cache", keeper.run(end)).await };
        Some(AbortOnDropHandle::new(tokio::spawn(keeper)))
    }

    async fn follow(&self, mut documents: watch::Receiver<Option<InForce>>) {
        loop {
            let current = documents.borrow_and_update().clone();
            if let Some(in_force) = current {
                self.apply(in_force);
            } else {
                info!("no document yet: waiting for one");
                self.listeners.refuse_passed();
            }
            if documents.changed().await.is_err() {
                return;
            }
        }
    }

    fn apply(&self, in_force: InForce) {
        let InForce {
            settings,
            source,
            text,
            ..
        } = in_force;
        let document = Arc::clone(&settings.document);
        self.upstreams.apply(Arc::clone(&settings));
        self.listeners.extras().apply(&settings);
        self.upstreams
            .remember(self.documents.earlier_paths(), self.documents.further_paths());
        self.upstreams.forget_proofs_but(&self.documents.known_paths());
        let addresses: Vec<_> = document.listeners.iter().flat_map(Listener::sockets).collect();
        self.listeners.apply(
            &document.listeners,
            &settings::ports_on_node(&document, &self.config.place.node),
            self.connection_limit(document.connection.max_connections),
        );
        self.warn_of_other_sockets(&addresses);
        self.warn_of_unknown_listeners(&text);
        self.upstreams
            .metrics()
            .document_applied(document.revision, source);
    }

    /// No error: an edit of the document must not keep the proxy from starting.
    fn warn_of_other_sockets(&self, addresses: &[SocketAddr]) {
        let Some(others) = self.config.service.sockets.others(addresses) else {
            return self.warnings.clear(Topic::PassedSockets);
        };
        let message = format!(
            "systemd passed {others}, where the document has no listener: clients are reset there; remove ListenStream= from the socket unit, or add the listener to the document"
        );
        self.warnings
            .raise(Topic::PassedSockets, "SocketNotInDocument", message);
    }

    /// They are left out: a document of a later release must be followed in all else.
    fn warn_of_unknown_listeners(&self, text: &str) {
        let unknown = wire::unknown_listeners(text);
        if unknown.is_empty() {
            return self.warnings.clear(Topic::ListenerKinds);
        }
        let message = format!(
            "the document has listeners of a kind that this release does not know, and this proxy does not listen there: {}; upgrade the proxies",
            unknown.join(", ")
        );
        self.warnings
            .raise(Topic::ListenerKinds, "ListenerKindUnknown", message);
    }

    /// The limit of the document, lowered to what the file descriptors allow at two per connection.
    fn connection_limit(&self, wanted: u32) -> u32 {
        let possible = (self.files * 95 / 100).saturating_sub(SPARE_FILES) / 2;
        wanted.min(u32::try_from(possible).unwrap_or(u32::MAX)).max(1)
    }

    /// Gives the connections to the process that goes on with the listeners, unless there is none.
    async fn give(&self, is_last: bool) {
        if let Some(handover) = self.config.handover.as_ref().filter(|_| !is_last) {
            giver::give_all(&handover.directory, &self.listeners, || true).await;
        }
    }

    async fn drain(
        &self,
        End {
            is_last,
            lock,
            takings,
        }: End,
    ) {
        self.readiness.end();
        self.config.service.notify("STOPPING=1");
        self.listeners.close(is_last).await;
        drop(lock);
        if takings.is_empty() {
            self.give(is_last).await;
        } else {
            tokio::join!(self.give(is_last), takings.finish());
            // What has come since.
            self.give(is_last).await;
        }
        let within = self
            .upstreams
            .settings()
            .map(|settings| settings.drain_timeout)
            .unwrap_or_default();
        info!(connections = self.listeners.connections(), ?within, "draining");
        let finished = async {
            tokio::select! {
                () = self.listeners.finished(within) => {}
                () = self.drain_upstreams(within) => {}
            }
        };
        if timeout(within + LAST_TURN, finished).await.is_err() {
            let connections = self.listeners.connections();
            warn!(
                connections,
                reason = Ending::Aborted.as_str(),
                "leaving connections behind"
            );
        }
        for upstreams in self.listeners.all_upstreams() {
            upstreams.stop().await;
        }
        info!("drained");
    }

    /// Closes the connections to all upstreams gradually, without end.
    async fn drain_upstreams(&self, within: Duration) {
        let all = self.listeners.all_upstreams();
        join_all(all.iter().map(|upstreams| upstreams.drain_all(within))).await;
    }
}

/// The end of a process without others.
fn alone() -> End {
    End {
        is_last: true,
        lock: None,
        takings: Takings::default(),
    }
}

/// How many events may wait for the hand-over, which takes each at once.
const EVENTS: usize = 16;

/// Runs the hand-over until this process must end: after SIGTERM, once another process serves or none can.
async fn hand_over(
    driver: Driver,
    inbox: mpsc::Receiver<Event>,
    events: mpsc::Sender<Event>,
    shutdown: impl Future<Output = ()>,
) -> End {
    let leave = async {
        shutdown.await;
        let _ended = events.send(Event::Terminated).await;
        pending().await
    };
    tokio::select! {
        end = driver.run(inbox) => end,
        end = leave => end,
    }
}

/// How long connections may take to end after they were told to.
const LAST_TURN: Duration = Duration::from_secs(1);

/// How long the end waits for the disk. What is not written by then is lost, or comes again with the document of the
/// next start.
const LAST_WRITE: Duration = Duration::from_secs(2);
