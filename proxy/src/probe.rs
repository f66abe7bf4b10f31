//! The probe of one path: asks it at its rate, and again when an answer is late, and reports each outcome.
//!
//! One question is in flight at a time, on a connection that is kept. `/readyz` asks etcd and may take seconds, so a
//! late answer is not yet a hung server: a second question that leaves etcd out tells the two apart.

mod connection;
mod credential;
pub mod reply;

use std::{net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::debug;

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
    net::socket::Fault,
    settings::Settings,
    upstream::Upstreams,
};

/// Verbose, because the answer must be longer than a packet and is served to anonymous callers.
const READINESS: &str = "/readyz?verbose";

/// Alive, even where etcd is not.
const LIVENESS: &str = "/livez?exclude=etcd";

/// Added to the time of the second question, so that an apiserver that takes 1.5 s to the first is never taken for a
/// hung one.
const GRACE: Duration = Duration::from_millis(100);

/// How soon to look again where there is no document to probe by, or the last question could not be put.
const RETRY: Duration = Duration::from_secs(1);

/// Probes one path for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    reporter: Reporter,
    readiness: ProbeConnection,
    liveness: ProbeConnection,
}

/// Tells the outcomes.
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

    /// Probes at the rate of the document in force, at once when `wake` says so or the kept connection ends.
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
                // Once only: a server that ends each connection must not be asked the faster for it.
                () = self.readiness.disconnected(), if !hurried => true,
            };
        }
    }

    /// One question for readiness and, while it is late, questions for life.
    async fn round(&mut self, settings: &Settings) {
        let Self {
            reporter,
            readiness,
            liveness,
        } = self;
        let address = reporter.key.address;
        let interval = settings.policy.probe_interval;
        let overdue_after = schedule::overdue_after(reporter.health(), interval, settings.probe_timeout);
        let asked = Instant::now();
        let mut ready = pin!(readiness.get(address, READINESS, settings));
        if let Ok(answer) = timeout(overdue_after / 2, &mut ready).await {
            return reporter.readiness(asked, answer);
        }
        reporter.waits();
        if let Ok(answer) = timeout_at(asked + overdue_after, &mut ready).await {
            return reporter.readiness(asked, answer);
        }
        if overdue_after >= READINESS_LIMIT {
            return reporter.silent(asked);
        }
        let mut is_alive = false;
        while asked.elapsed() < READINESS_LIMIT {
            let asked_again = Instant::now();
            let limit = asked_again + settings.probe_timeout + GRACE;
            tokio::select! {
                biased;
                answer = &mut ready => return reporter.readiness(asked, answer),
                sign = sign_of_life(liveness, address, limit, settings) => match sign {
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
            // A member that is late for long must not get more questions than one that is well, from a large fleet least.
            let next = (asked_again + interval).min(asked + READINESS_LIMIT);
            if let Ok(answer) = timeout_at(next, &mut ready).await {
                return reporter.readiness(asked, answer);
            }
        }
    }
}

/// What came of asking for a sign of life.
enum Sign {
    Answer(Reply),
    Failure(Error),
    Silence,
}

async fn sign_of_life(
    connection: &mut ProbeConnection,
    address: SocketAddr,
    limit: Instant,
    settings: &Settings,
) -> Sign {
    match timeout_at(limit, connection.get(address, LIVENESS, settings)).await {
        Ok(Ok(reply)) => Sign::Answer(reply),
        // No way to the member looks from here like its silence. The readiness probe that is under way may know better.
        Ok(Err(error)) if error.fault() == Fault::Unreachable => {
            sleep_until(limit).await;
            Sign::Silence
        }
        Ok(Err(error)) => Sign::Failure(error),
        Err(_) => Sign::Silence,
    }
}

impl Reporter {
    /// Waits until the path is due again, after a probe that started then. Whether it is in use may change meanwhile.
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

    /// Half way to the next question, so that the others have had the time to be heard before it.
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
        let detail = format!("no answer from {} in time", self.key.address);
        self.report(asked, Outcome::Silent, None, &detail);
    }

    fn report(&self, asked: Instant, outcome: Outcome, reply: Option<&Reply>, detail: &str) {
        self.upstreams.metrics().probed(&self.key.member, outcome);
        let verified = reply.is_some_and(Reply::verified);
        if reply.is_some() {
            self.upstreams.certificate_shown(self.id, verified);
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
