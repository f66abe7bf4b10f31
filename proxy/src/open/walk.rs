//! The walk over all upstreams: dials the best one, and the next one beside it when the first lets us wait. Whoever
//! left a dial unanswered is dialled again while there is time: a storm of clients overflows a listener's queue, and the
//! kernel then drops what it would have accepted a second later.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use crate::{
    balance::{Candidate, Event, UpstreamId, pace},
    net::socket::{self, Fault, UpstreamOptions},
    settings::Settings,
    upstream::{Claim, Upstreams},
};

/// A connection to an upstream, counted for it as long as the claim lives.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// What counts it.
    pub claim: Claim,
    /// Where it goes.
    pub address: SocketAddr,
}

/// Who was dialled and has not answered, and whether that was said.
struct Waiting {
    candidate: Candidate,
    suspected: bool,
}

struct Dialled {
    candidate: Candidate,
    claim: Claim,
    result: io::Result<TcpStream>,
}

/// Walks the upstreams, the best first.
pub struct Walk {
    upstreams: Arc<Upstreams>,
    left: VecDeque<Candidate>,
    dials: FuturesUnordered<BoxFuture<'static, Dialled>>,
    waiting: Vec<Waiting>,
    options: UpstreamOptions,
    connect_timeout: Duration,
    hedge_delay: Duration,
    stagger: Duration,
    next_at: Instant,
    deadline: Instant,
}

impl Walk {
    /// A walk over the upstreams as they are now, which must bring a connection within two seconds.
    pub fn new(upstreams: &Arc<Upstreams>, settings: &Settings) -> Self {
        let left: VecDeque<_> = upstreams.candidates().into();
        let now = Instant::now();
        Self {
            upstreams: Arc::clone(upstreams),
            stagger: pace::stagger(settings.hedge_delay, settings.connect_timeout, left.len()),
            left,
            dials: FuturesUnordered::new(),
            waiting: Vec::new(),
            options: settings.socket,
            connect_timeout: settings.connect_timeout,
            hedge_delay: settings.hedge_delay,
            next_at: now,
            deadline: now + pace::OPEN_DEADLINE,
        }
    }

    /// The upstreams that are walked over.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// When a client that has no upstream yet is told so.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long one upstream is waited for before the next is tried.
    pub fn hedge_delay(&self) -> Duration {
        self.hedge_delay
    }

    /// Begins anew for a client that took its time to say its first word to `chosen`: its two seconds count from now.
    pub fn renew(&mut self, chosen: UpstreamId) {
        let now = Instant::now();
        let young = self.deadline + self.hedge_delay >= now + pace::OPEN_DEADLINE;
        if young {
            return;
        }
        self.deadline = now + pace::OPEN_DEADLINE;
        self.left = self.upstreams.candidates().into();
        self.left.retain(|candidate| candidate.id != chosen);
    }

    /// The next upstream that connects; none once all have been tried or the time is up. Nothing is lost if this is
    /// dropped half way and called again.
    pub async fn next(&mut self) -> Option<Connected> {
        loop {
            if Instant::now() >= self.deadline {
                self.suspect_waiting();
                return None;
            }
            if self.dials.is_empty() && !self.dial_next() {
                return None;
            }
            tokio::select! {
                biased;
                Some(dialled) = self.dials.next() => {
                    if let Some(connected) = self.settle(dialled) {
                        self.call_off();
                        return Some(connected);
                    }
                    // Whoever failed at once leaves its turn to the next.
                    self.dial_next();
                }
                () = sleep_until(self.deadline) => {
                    self.suspect_waiting();
                    return None;
                }
                () = sleep_until(self.next_at), if !self.left.is_empty() => {
                    self.suspect_waiting();
                    self.dial_next();
                }
            }
        }
    }

    fn dial_next(&mut self) -> bool {
        while let Some(candidate) = self.left.pop_front() {
            let Some(claim) = self.upstreams.claim(candidate.id) else {
                continue;
            };
            let (options, limit) = (self.options, self.connect_timeout);
            let dial = async move {
                let started = Instant::now();
                let result = match timeout(limit, socket::connect(candidate.address, options)).await {
                    Ok(result) => result,
                    Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
                };
                if result.is_ok() {
                    claim.series().dial.observe(started.elapsed());
                }
                Dialled {
                    candidate,
                    claim,
                    result,
                }
            };
            self.dials.push(dial.boxed());
            self.waiting.push(Waiting {
                candidate,
                suspected: false,
            });
            self.next_at = Instant::now() + self.stagger;
            return true;
        }
        false
    }

    fn settle(&mut self, dialled: Dialled) -> Option<Connected> {
        let Dialled {
            candidate,
            claim,
            result,
        } = dialled;
        let Candidate { id, address } = candidate;
        self.waiting.retain(|waiting| waiting.candidate != candidate);
        let error = match result {
            Ok(stream) => {
                return Some(Connected {
                    stream,
                    claim,
                    address,
                });
            }
            Err(error) => error,
        };
        let fault = Fault::of(&error);
        let member = &claim.series().member;
        debug!(member, %address, %error, reason = fault.word(), "dial failed");
        // While the claim lives the member is not forgotten, nor its series.
        self.upstreams.metrics().dial_failed(member, fault);
        drop(claim);
        match fault {
            Fault::Refused | Fault::Reset => self
                .upstreams
                .observe(Event::Refused(id), "refused a client's dial"),
            Fault::Timeout | Fault::Unreachable | Fault::Other => {
                if fault == Fault::Timeout {
                    self.left.push_back(candidate);
                }
                self.upstreams
                    .observe(Event::Unanswered(id), "left a client's dial waiting");
            }
            // Our own trouble is no evidence against anybody.
            Fault::Local => {}
        }
        None
    }

    fn suspect_waiting(&mut self) {
        for waiting in self.waiting.iter_mut().filter(|waiting| !waiting.suspected) {
            waiting.suspected = true;
            let unanswered = Event::Unanswered(waiting.candidate.id);
            self.upstreams.observe(unanswered, "lets a client's dial wait");
        }
    }

    /// Gives up the dials that are under way, in case they are wanted later: until then nobody would attend to them.
    fn call_off(&mut self) {
        self.dials.clear();
        for waiting in self.waiting.drain(..).rev() {
            self.left.push_front(waiting.candidate);
        }
    }
}
