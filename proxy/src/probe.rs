//! The probe of one upstream: asks it at its pace, and again when an answer is late, and reports each outcome.
//!
//! One question is in flight at a time, on a connection that is kept. `/readyz` asks etcd and may take seconds, so a
//! late answer is not yet a hung server: a second question that leaves etcd out tells the two apart.

mod question;
pub mod reply;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::debug;

use self::{
    question::{Error, Questioner},
    reply::Reply,
};
use crate::{
    balance::{Event, Identity, UpstreamId, health::Outcome, pace},
    cause,
    net::socket::Fault,
    settings::Settings,
    upstream::Upstreams,
};

/// Verbose, because the answer must be longer than a packet and is served to anonymous callers.
const READINESS: &str = "/readyz?verbose";

/// Alive, even where etcd is not.
const LIVENESS: &str = "/livez?exclude=etcd";

/// From here on an answer is late. A busy apiserver answers `/readyz` within a few tens of milliseconds.
const LATE_AFTER: Duration = Duration::from_millis(500);

/// Added to the time of the second question, so that an apiserver that takes 1.5 s to the first is never taken for a
/// hung one.
const GRACE: Duration = Duration::from_millis(100);

/// An apiserver cut off from etcd answers `/readyz` after 4 s. Past this it is asked anew.
const READINESS_LIMIT: Duration = Duration::from_secs(6);

/// How soon to look again where there is no document to probe by, or the last question could not be put.
const RETRY: Duration = Duration::from_secs(1);

/// Probes one upstream for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    reporter: Reporter,
    addresses: Vec<SocketAddr>,
    turn: usize,
    readiness: Questioner,
    liveness: Questioner,
}

/// Whom the outcomes are told.
#[derive(Debug)]
struct Reporter {
    upstreams: Arc<Upstreams>,
    id: UpstreamId,
    member: String,
}

/// Whether a round heard from its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    Nothing,
}

impl Prober {
    /// A prober of this upstream.
    pub fn new(upstreams: Arc<Upstreams>, id: UpstreamId, identity: Identity) -> Self {
        Self {
            reporter: Reporter {
                upstreams,
                id,
                member: identity.name,
            },
            addresses: identity.addresses,
            turn: 0,
            readiness: Questioner::default(),
            liveness: Questioner::default(),
        }
    }

    /// Probes at the pace of the document in force, at once when `wake` says so or the kept connection ends.
    pub async fn run(mut self, wake: Arc<Notify>) {
        loop {
            let started = Instant::now();
            let pause = match self.reporter.upstreams.settings() {
                Some(settings) => {
                    if self.round(&settings).await == Heard::Nothing {
                        // Another address of the same master may still be reached.
                        self.turn = self.turn.wrapping_add(1);
                    }
                    pace::jittered(interval(&settings), rand::random())
                }
                None => RETRY,
            };
            tokio::select! {
                () = sleep_until(started + pause) => {}
                () = wake.notified() => {}
                () = self.readiness.disconnected() => {}
            }
        }
    }

    /// One question for readiness and, while it is late, questions for life.
    async fn round(&mut self, settings: &Settings) -> Heard {
        let Self {
            reporter,
            addresses,
            turn,
            readiness,
            liveness,
        } = self;
        let Some(here) = turn_of(addresses, *turn) else {
            return Heard::Nothing;
        };
        // Where a member has a second address, life is asked for there: the path to the first may be what is broken.
        let there = turn_of(addresses, turn.wrapping_add(1)).unwrap_or(here);
        let asked = Instant::now();
        let mut ready = pin!(readiness.ask(here, READINESS, settings));
        if let Ok(answer) = timeout(LATE_AFTER.min(settings.probe_timeout / 2), &mut ready).await {
            return reporter.readiness(asked, here, answer);
        }
        let mut heard = Heard::Nothing;
        while asked.elapsed() < READINESS_LIMIT {
            let asked_again = Instant::now();
            let limit = asked_again + settings.probe_timeout + GRACE;
            tokio::select! {
                biased;
                answer = &mut ready => return reporter.readiness(asked, here, answer),
                answer = timeout_at(limit, liveness.ask(there, LIVENESS, settings)) => match answer {
                    Ok(Ok(reply)) => {
                        heard = Heard::Something;
                        reporter.late(asked_again, there, &reply);
                    }
                    Ok(Err(error)) => return reporter.failed(asked_again, there, &error),
                    Err(_elapsed) if heard == Heard::Nothing => {
                        reporter.silent(asked, here);
                        reporter.silent(asked_again, there);
                        return Heard::Nothing;
                    }
                    Err(_elapsed) => reporter.silent(asked_again, there),
                },
            }
            // A member that is late for long must not get more questions than one that is well, from a large fleet least.
            let next = (asked_again + interval(settings)).min(asked + READINESS_LIMIT);
            if let Ok(answer) = timeout_at(next, &mut ready).await {
                return reporter.readiness(asked, here, answer);
            }
        }
        heard
    }
}

fn interval(settings: &Settings) -> Duration {
    pace::probe_interval(settings.document.nodes, settings.probe_period)
}

fn turn_of(addresses: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    addresses.get(turn.checked_rem(addresses.len())?).copied()
}

impl Reporter {
    fn readiness(&self, asked: Instant, via: SocketAddr, answer: Result<Reply, Error>) -> Heard {
        match answer {
            Ok(reply) => {
                let metrics = self.upstreams.metrics();
                metrics.probe_took(&self.member, asked.elapsed());
                self.report(asked, via, reply.outcome(), Some(&reply), &reply.detail());
                Heard::Something
            }
            Err(error) => self.failed(asked, via, &error),
        }
    }

    fn late(&self, asked: Instant, via: SocketAddr, reply: &Reply) {
        let outcome = if reply.trusted() {
            Outcome::Late
        } else {
            Outcome::Untrusted
        };
        self.report(
            asked,
            via,
            outcome,
            Some(reply),
            "alive, but late with its readiness",
        );
    }

    fn failed(&self, asked: Instant, via: SocketAddr, error: &Error) -> Heard {
        match error.fault() {
            Fault::Local => {
                debug!(member = self.member, %via, error = cause::chain(error), "probe could not be sent");
                return Heard::Something;
            }
            Fault::Timeout => self.report(asked, via, Outcome::Silent, None, &cause::chain(error)),
            Fault::Refused | Fault::Reset | Fault::Other => {
                self.report(asked, via, Outcome::Refused, None, &cause::chain(error));
            }
        }
        Heard::Nothing
    }

    fn silent(&self, asked: Instant, via: SocketAddr) {
        let detail = format!("no answer from {via} in time");
        self.report(asked, via, Outcome::Silent, None, &detail);
    }

    fn report(&self, asked: Instant, via: SocketAddr, outcome: Outcome, reply: Option<&Reply>, detail: &str) {
        let metrics = self.upstreams.metrics();
        metrics.probed(&self.member, outcome);
        if let Some(reply) = reply {
            metrics.certificate(&self.member, reply.verified());
        }
        let verified = reply.is_some_and(Reply::verified);
        let via = reply.map(|_| via);
        self.upstreams.observe(
            Event::Probed {
                id: self.id,
                asked,
                via,
                verified,
                outcome,
            },
            detail,
        );
    }
}

/// Asks one address once and says what came: for callers that need a verified answer and keep no health.
pub async fn verified_answer(
    address: SocketAddr,
    settings: &Settings,
    within: Duration,
) -> Result<(), String> {
    let mut questioner = Questioner::default();
    tokio::select! {
        answer = questioner.ask(address, READINESS, settings) => match answer {
            Ok(reply) if reply.trusted() => Ok(()),
            Ok(reply) => Err(reply.detail()),
            Err(error) => Err(cause::chain(&error)),
        },
        () = sleep(within) => Err(format!("no answer within {within:?}")),
    }
}
