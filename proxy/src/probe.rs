//! The probe of one upstream: asks it at its pace, and again when an answer is late, and reports each outcome.
//!
//! One question is in flight at a time, on a connection that is kept. `/readyz` asks etcd and may take seconds, so a
//! late answer is not yet a hung server: a second question that leaves etcd out tells the two apart.

mod addresses;
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
    addresses::Addresses,
    connection::{Error, ProbeConnection},
    reply::Reply,
};
use crate::{
    balance::{
        Event, Identity, UpstreamId,
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

/// Probes one upstream for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    reporter: Reporter,
    addresses: Addresses,
    readiness: ProbeConnection,
    liveness: [ProbeConnection; 2],
}

/// Whom the outcomes are told.
#[derive(Debug)]
struct Reporter {
    upstreams: Arc<Upstreams>,
    id: UpstreamId,
    member: String,
}

/// What a round heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Something from the address that was asked for readiness, or our own trouble.
    Here,
    /// Something, but only from another address of the same member.
    Elsewhere,
    /// Nothing but silence and refusals.
    Nothing,
}

impl Prober {
    /// A prober of this upstream.
    pub fn new(upstreams: Arc<Upstreams>, id: UpstreamId, identity: Identity) -> Self {
        let token_file = upstreams.token_file().map(Path::to_owned);
        Self {
            reporter: Reporter {
                upstreams,
                id,
                member: identity.name,
            },
            addresses: Addresses::new(identity.addresses),
            readiness: ProbeConnection::with_token(token_file),
            liveness: Default::default(),
        }
    }

    /// Probes at the pace of the document in force, at once when `wake` says so or the kept connection ends.
    pub async fn run(mut self, wake: Arc<Notify>) {
        let (mut first, mut hurried) = (true, false);
        loop {
            let started = Instant::now();
            let pause = match self.reporter.upstreams.settings() {
                Some(settings) => {
                    let heard = self.round(&settings).await;
                    self.addresses.follow(heard);
                    let interval = settings.policy.probe_interval;
                    if std::mem::take(&mut first) {
                        schedule::first_pause(interval, rand::random())
                    } else {
                        schedule::jittered(interval, rand::random())
                    }
                }
                None => RETRY,
            };
            hurried = tokio::select! {
                () = sleep_until(started + pause) => false,
                () = wake.notified() => false,
                // Once only: a server that ends each connection must not be asked the faster for it.
                () = self.readiness.disconnected(), if !hurried => true,
            };
        }
    }

    /// One question for readiness and, while it is late, questions for life.
    async fn round(&mut self, settings: &Settings) -> Heard {
        let Self {
            reporter,
            addresses,
            readiness,
            liveness,
        } = self;
        let Some((here, there)) = addresses.pair() else {
            return Heard::Nothing;
        };
        let interval = settings.policy.probe_interval;
        let overdue_after = schedule::overdue_after(reporter.health(), interval, settings.probe_timeout);
        let asked = Instant::now();
        let mut ready = pin!(readiness.get(here, READINESS, settings));
        let mut heard = Heard::Nothing;
        let answer = 'answer: {
            if let Ok(answer) = timeout(overdue_after / 2, &mut ready).await {
                break 'answer answer;
            }
            reporter.waits();
            if let Ok(answer) = timeout_at(asked + overdue_after, &mut ready).await {
                break 'answer answer;
            }
            if overdue_after >= READINESS_LIMIT {
                reporter.silent(asked, here);
                return ask_elsewhere(reporter, liveness, there, settings).await;
            }
            let both = (here, there.unwrap_or(here));
            while asked.elapsed() < READINESS_LIMIT {
                let asked_again = Instant::now();
                let limit = asked_again + settings.probe_timeout + GRACE;
                tokio::select! {
                    biased;
                    answer = &mut ready => break 'answer answer,
                    sign = sign_of_life(liveness, both, limit, settings) => match sign {
                        Sign::Answer(via, reply) => {
                            heard = if via == here { Heard::Here } else { Heard::Elsewhere };
                            reporter.late(asked_again, via, &reply);
                        }
                        Sign::Failure(error) => return reporter.failed(asked_again, here, &error),
                        Sign::Silence if heard == Heard::Nothing => {
                            reporter.silent(asked, here);
                            reporter.silent(asked_again, here);
                            return Heard::Nothing;
                        }
                        Sign::Silence => reporter.silent(asked_again, here),
                    },
                }
                // A member that is late for long must not get more questions than one that is well, from a large fleet least.
                let next = (asked_again + interval).min(asked + READINESS_LIMIT);
                if let Ok(answer) = timeout_at(next, &mut ready).await {
                    break 'answer answer;
                }
            }
            return heard;
        };
        match reporter.readiness(asked, here, answer) {
            Heard::Nothing if heard == Heard::Elsewhere => heard,
            Heard::Nothing => ask_elsewhere(reporter, liveness, there, settings).await,
            word @ (Heard::Here | Heard::Elsewhere) => word,
        }
    }
}

/// What came of asking for a sign of life.
enum Sign {
    Answer(SocketAddr, Reply),
    Failure(Error),
    Silence,
}

/// Asks at both addresses of a member that has two, since the path to the first may be what is broken. From the second
/// only a good word counts: this node may lack that family, or the apiserver may not listen there, and neither says
/// anything about the first.
async fn sign_of_life(
    [first, second]: &mut [ProbeConnection; 2],
    (here, there): (SocketAddr, SocketAddr),
    limit: Instant,
    settings: &Settings,
) -> Sign {
    let mut direct = pin!(first.get(here, LIVENESS, settings));
    let mut detour = pin!(async {
        if there == here {
            return None;
        }
        good_word(second, there, settings).await
    });
    let (mut judged, mut heard_out) = (None, false);
    loop {
        tokio::select! {
            biased;
            answer = &mut direct, if judged.is_none() => match answer {
                Ok(reply) => return Sign::Answer(here, reply),
                // No way to the member looks from here like its silence. A question that is under way may know better.
                Err(error) if error.fault() == Fault::Unreachable => judged = Some(Sign::Silence),
                Err(error) => judged = Some(Sign::Failure(error)),
            },
            answer = &mut detour, if !heard_out => match answer {
                Some(reply) => return Sign::Answer(there, reply),
                None => heard_out = true,
            },
            () = sleep_until(limit) => return judged.unwrap_or(Sign::Silence),
        }
        judged = match judged {
            Some(failure @ Sign::Failure(_)) if heard_out => return failure,
            other => other,
        };
    }
}

/// A sign of life from another address of a member; none for whatever else comes.
async fn good_word(
    connection: &mut ProbeConnection,
    there: SocketAddr,
    settings: &Settings,
) -> Option<Reply> {
    let answer = connection.get(there, LIVENESS, settings).await;
    answer
        .inspect_err(|error| debug!(%there, error = cause::chain(error), "no sign of life from there"))
        .ok()
}

/// Asks for a sign of life where else the member may be reached, once there was none where it is asked.
async fn ask_elsewhere(
    reporter: &Reporter,
    [_, second]: &mut [ProbeConnection; 2],
    there: Option<SocketAddr>,
    settings: &Settings,
) -> Heard {
    let Some(there) = there else {
        return Heard::Nothing;
    };
    let asked = Instant::now();
    let limit = settings.probe_timeout + GRACE;
    match timeout(limit, good_word(second, there, settings)).await {
        Ok(Some(reply)) => {
            reporter.late(asked, there, &reply);
            Heard::Elsewhere
        }
        Ok(None) | Err(_) => Heard::Nothing,
    }
}

impl Reporter {
    fn health(&self) -> (State, Reason) {
        let known = self.upstreams.health(self.id);
        known.unwrap_or((State::Unready, Reason::NotProbed))
    }

    /// Half way to the next question, so that the others have had the time to be heard before it.
    fn waits(&self) {
        self.upstreams.observe(Event::ProbeOverdue(self.id), "");
    }

    fn readiness(&self, asked: Instant, via: SocketAddr, answer: Result<Reply, Error>) -> Heard {
        match answer {
            Ok(reply) => {
                let metrics = self.upstreams.metrics();
                metrics.probe_took(&self.member, asked.elapsed());
                self.report(asked, via, reply.outcome(), Some(&reply), &reply.detail());
                Heard::Here
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
                return Heard::Here;
            }
            Fault::Timeout | Fault::Unreachable => {
                self.report(asked, via, Outcome::Silent, None, &cause::chain(error));
            }
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
    let mut connection = ProbeConnection::default();
    tokio::select! {
        answer = connection.get(address, READINESS, settings) => match answer {
            Ok(reply) if reply.trusted() => Ok(()),
            Ok(reply) => Err(reply.detail()),
            Err(error) => Err(cause::chain(&error)),
        },
        () = sleep(within) => Err(format!("no answer within {within:?}")),
    }
}
