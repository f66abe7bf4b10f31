//! The prober of one path: it probes the path periodically and reports each outcome.
//!
//! At most one request of a kind is in flight, on a connection that is kept. `/readyz` depends on etcd and may take seconds,
//! so an overdue answer does not mean that the server hangs. A second request, for `/livez` without etcd, decides.

mod connection;
mod credential;
pub mod reply;
mod server;

use std::{net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::debug;

pub use self::server::ServerProber;
use self::{
    connection::{Error, ProbeConnection},
    reply::Reply,
};
use crate::{
    balance::{
        Event, PathId, PathKey,
        health::{Outcome, Reason, State},
        schedule::{self, READINESS_LIMIT},
    },
    cause,
    clock::event_loop::LoopClock,
    net::socket::Fault,
    settings::Settings,
    upstream::{Shown, Upstreams},
};

/// Verbose, so that the answer is longer than a packet: a path that drops large packets then fails the probe. Apiservers
/// serve it to anonymous callers by default.
const READINESS: &str = "/readyz?verbose";

/// An apiserver without etcd passes this check.
const LIVENESS: &str = "/livez?exclude=etcd";

/// Added to the time-out of the second request, so that an apiserver that takes 1.5 s for the first one never counts as
/// silent.
const GRACE: Duration = Duration::from_millis(100);

/// The pause while no document is in force.
const RETRY: Duration = Duration::from_secs(1);

/// Probes one path for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    reporter: Reporter,
    readiness: ProbeConnection,
    liveness: ProbeConnection,
}

/// Reports the outcomes.
#[derive(Debug)]
struct Reporter {
    upstreams: Arc<Upstreams>,
    id: PathId,
    key: PathKey,
}

impl Prober {
    /// A prober of this path.
    pub fn new(upstreams: Arc<Upstreams>, id: PathId, key: PathKey) -> Self {
        let token_file = upstreams.token_file().map(Path::to_owned);
        Self {
            reporter: Reporter { upstreams, id, key },
            readiness: ProbeConnection::with_token(token_file),
            liveness: ProbeConnection::default(),
        }
    }

    /// Probes at the interval of the document in force, and at once when `wake` is notified or the kept connection ends.
    pub async fn run(mut self, wake: Arc<Notify>) {
        let (mut first, mut hurried) = (true, false);
        loop {
            let started = Instant::now();
            if let Some(settings) = self.reporter.upstreams.settings() {
                self.round(&settings).await;
            }
            let reporter = &self.reporter;
            hurried = tokio::select! {
                () = reporter.until_due(started, std::mem::take(&mut first)) => false,
                () = wake.notified() => false,
                // Not twice in a row: a server that closes each connection must not be probed faster because of it.
                () = self.readiness.disconnected(), if !hurried => true,
            };
        }
    }

    /// Sends one readiness request and, while its answer is overdue, liveness requests.
    async fn round(&mut self, settings: &Settings) {
        let Self {
            reporter,
            readiness,
            liveness,
        } = self;
        let address = reporter.key.address;
        let interval = settings.policy.probe_interval;
        let overdue_after = schedule::overdue_after(reporter.health(), interval, settings.probe_timeout);
        let clock = reporter.upstreams.clock();
        let asked = Instant::now();
        let mut ready = pin!(readiness.get(address, READINESS, settings));
        if let Ok(answer) = clock.timeout(overdue_after / 2, ready.as_mut()).await {
            return reporter.readiness(asked, answer);
        }
        reporter.waits();
        if let Ok(answer) = clock.timeout(overdue_after / 2, ready.as_mut()).await {
            return reporter.readiness(asked, answer);
        }
        if overdue_after >= READINESS_LIMIT {
            return reporter.silent(asked);
        }
        let mut is_alive = false;
        while asked.elapsed() < READINESS_LIMIT {
            let asked_again = Instant::now();
            tokio::select! {
                biased;
                answer = &mut ready => return reporter.readiness(asked, answer),
                sign = sign_of_life(liveness, address, settings, clock) => match sign {
                    Sign::Answer(reply) => {
                        is_alive = true;
                        reporter.late(asked_again, &reply);
                    }
                    Sign::Failure(error) => return reporter.failed(asked_again, &error),
                    Sign::Silence if is_alive => reporter.silent(asked_again),
                    Sign::Silence => {
                        reporter.silent(asked);
                        return reporter.silent(asked_again);
                    }
                },
            }
            // An overdue member must not get more requests than a healthy one, above all not from a large fleet.
            let next = (asked_again + interval).min(asked + READINESS_LIMIT);
            if let Ok(answer) = timeout_at(next, &mut ready).await {
                return reporter.readiness(asked, answer);
            }
        }
    }
}

/// The result of a liveness request.
enum Sign {
    Answer(Reply),
    Failure(Error),
    Silence,
}

async fn sign_of_life(
    connection: &mut ProbeConnection,
    address: SocketAddr,
    settings: &Settings,
    clock: &LoopClock,
) -> Sign {
    let within = settings.probe_timeout + GRACE;
    let limit = Instant::now() + within;
    match clock
        .timeout(within, pin!(connection.get(address, LIVENESS, settings)))
        .await
    {
        Ok(Ok(reply)) => Sign::Answer(reply),
        // A missing route cannot be told from a silent member, so this waits for the readiness request until the limit.
        Ok(Err(error)) if error.fault() == Fault::Unreachable => {
            sleep_until(limit).await;
            Sign::Silence
        }
        Ok(Err(error)) => Sign::Failure(error),
        Err(_) => Sign::Silence,
    }
}

impl Reporter {
    /// Waits until the next probe is due, after one that began at `started`. A path in use is due after an interval, one on
    /// standby after several; this may change during the wait.
    async fn until_due(&self, started: Instant, first: bool) {
        let (mut look_at, mut first) = (started, first);
        let chance = rand::random();
        loop {
            let Some(settings) = self.upstreams.settings() else {
                return sleep(RETRY).await;
            };
            let interval = settings.policy.probe_interval;
            look_at += if std::mem::take(&mut first) {
                schedule::first_pause(interval, rand::random())
            } else {
                schedule::jittered(interval, rand::random())
            };
            let latest = started + schedule::jittered(schedule::standby_interval(interval), chance);
            if look_at >= latest {
                return sleep_until(latest).await;
            }
            sleep_until(look_at).await;
            if self.upstreams.is_in_use(self.id) {
                return;
            }
        }
    }

    fn health(&self) -> (State, Reason) {
        let known = self.upstreams.health(self.id);
        known.unwrap_or((State::Unready, Reason::NotProbed))
    }

    /// Half way to the liveness request the balancer cross-checks, so that other paths can answer before that request.
    fn waits(&self) {
        self.upstreams.observe(Event::ProbeOverdue(self.id), "");
    }

    fn readiness(&self, asked: Instant, answer: Result<Reply, Error>) {
        match answer {
            Ok(reply) => {
                let metrics = self.upstreams.metrics();
                metrics.probe_took(&self.key.member, asked.elapsed());
                self.report(asked, reply.outcome(), Some(&reply), &reply.detail());
            }
            Err(error) => self.failed(asked, &error),
        }
    }

    fn late(&self, asked: Instant, reply: &Reply) {
        let outcome = if reply.trusted() {
            Outcome::Late
        } else {
            Outcome::Untrusted
        };
        self.report(asked, outcome, Some(reply), "alive, but late with its readiness");
    }

    fn failed(&self, asked: Instant, error: &Error) {
        let PathKey { member, address } = &self.key;
        let outcome = match error.fault() {
            // A fault of this node is no outcome.
            Fault::Local => {
                let error = cause::chain(error);
                debug!(member, %address, error, "probe could not be sent");
                self.upstreams.observe(Event::ProbeUnsent(self.id), &error);
                return;
            }
            Fault::Timeout | Fault::Unreachable => Outcome::Silent,
            Fault::Refused | Fault::Reset | Fault::Other => Outcome::Refused,
        };
        self.report(asked, outcome, None, &cause::chain(error));
    }

    fn silent(&self, asked: Instant) {
        if let Some(replied) = self.upstreams.last_reply(self.id) {
            self.upstreams.observe(Event::Replied(self.id, replied), "");
        }
        let detail = format!("no answer from {} in time", self.key.address);
        self.report(asked, Outcome::Silent, None, &detail);
    }

    fn report(&self, asked: Instant, outcome: Outcome, reply: Option<&Reply>, detail: &str) {
        self.upstreams.metrics().probed(&self.key.member, outcome);
        let verified = reply.is_some_and(Reply::verified);
        if let Some(reply) = reply {
            let shown = Shown {
                status: reply.certificate.clone(),
                certificate: reply.shown.clone(),
            };
            self.upstreams.certificate_shown(self.id, shown);
        }
        self.upstreams.observe(
            Event::Probed {
                id: self.id,
                asked,
                verified,
                outcome,
            },
            detail,
        );
    }
}

/// Asks one address once and says what came: for callers that keep no health.
pub async fn answer(address: SocketAddr, settings: &Settings, within: Duration) -> Result<Reply, String> {
    let mut connection = ProbeConnection::default();
    tokio::select! {
        answer = connection.get(address, READINESS, settings) => answer.map_err(|error| cause::chain(&error)),
        () = sleep(within) => Err(format!("no answer within {within:?}")),
    }
}

/// The same for callers that need a verified answer.
pub async fn verified_answer(
    address: SocketAddr,
    settings: &Settings,
    within: Duration,
) -> Result<(), String> {
    let reply = answer(address, settings, within).await?;
    if reply.trusted() {
        Ok(())
    } else {
        Err(reply.detail())
    }
}
