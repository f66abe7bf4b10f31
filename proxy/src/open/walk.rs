//! The walk over all upstreams: dials the best one, and the next one beside it when the first takes long. An upstream
//! that left a dial unanswered is dialled again while there is time: a storm of clients overflows a listener's queue,
//! and the kernel drops what it would accept a second later.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    deadline,
    queue::{Queue, Turn},
};
use crate::{
    balance::{Candidate, Event, PathId},
    clock::event_loop::Lapses,
    net::socket::{self, Fault, UpstreamOptions},
    settings::Settings,
    upstream::{ConnectionGuard, Upstreams},
};

/// A connection to an upstream, counted for it until the guard is dropped.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// Counts it.
    pub guard: ConnectionGuard,
    /// Where it goes.
    pub address: SocketAddr,
}

/// A candidate that was dialled and has not answered.
struct Waiting {
    candidate: Candidate,
    /// Whether the balancer was told that it is overdue.
    reported: bool,
}

struct Dialled {
    candidate: Candidate,
    guard: ConnectionGuard,
    result: io::Result<TcpStream>,
}

/// Walks the upstreams, the best first.
pub struct Walk {
    upstreams: Arc<Upstreams>,
    queue: Queue,
    dials: FuturesUnordered<BoxFuture<'static, Dialled>>,
    waiting: Vec<Waiting>,
    options: UpstreamOptions,
    connect_timeout: Duration,
    hedge_delay: Duration,
    stagger: Duration,
    next_at: Instant,
    deadline: Instant,
    lapses: Lapses,
}

impl Walk {
    /// A walk over the upstreams as they are now, which must bring a connection within two seconds.
    pub fn new(upstreams: &Arc<Upstreams>, settings: &Settings) -> Self {
        let now = Instant::now();
        let candidates = upstreams.candidates();
        Self {
            lapses: upstreams.clock().lapses(),
            upstreams: Arc::clone(upstreams),
            stagger: deadline::stagger(settings.hedge_delay, settings.connect_timeout, candidates.len()),
            queue: Queue::new(candidates, now),
            dials: FuturesUnordered::new(),
            waiting: Vec::new(),
            options: settings.socket,
            connect_timeout: settings.connect_timeout,
            hedge_delay: settings.hedge_delay,
            next_at: now,
            deadline: now + deadline::OPEN_DEADLINE,
        }
    }

    /// The upstreams that are walked over.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// When a client without an upstream is told that there is none.
    pub fn deadline(&mut self) -> Instant {
        self.catch_up();
        self.deadline
    }

    /// How long one upstream is waited for before the next is tried.
    pub fn hedge_delay(&self) -> Duration {
        self.hedge_delay
    }

    /// Starts over with all upstreams but `chosen`, for a client that was slow to speak or that `chosen` left waiting: its
    /// two seconds count from now. Nothing changes within the hedge delay of the start.
    pub fn start_over(&mut self, chosen: PathId) {
        self.catch_up();
        let now = Instant::now();
        let young = self.deadline + self.hedge_delay >= now + deadline::OPEN_DEADLINE;
        if young {
            return;
        }
        self.deadline = now + deadline::OPEN_DEADLINE;
        self.dials.clear();
        self.waiting.clear();
        self.queue = Queue::new(self.upstreams.candidates(), now);
        self.queue.take(chosen);
    }

    /// The next upstream that connects, while the client waits for an answer of `asked`; none once all have been tried or
    /// the time is up. The future may be dropped half way and made again: no dial is lost.
    pub async fn next(&mut self, asked: &[PathId]) -> Option<Connected> {
        loop {
            self.catch_up();
            if Instant::now() >= self.deadline {
                self.report_overdue();
                return None;
            }
            if self.dials.is_empty() && !self.dial_next(asked) {
                if self.is_held(asked) {
                    sleep(self.stagger).await;
                    continue;
                }
                if self.awaits_last_resort().await {
                    continue;
                }
                return None;
            }
            tokio::select! {
                biased;
                Some(dialled) = self.dials.next() => {
                    if let Some(connected) = self.settle(dialled) {
                        self.drop_dials();
                        return Some(connected);
                    }
                    // A dial that fails is replaced at once.
                    self.dial_next(asked);
                }
                // It is looked at above.
                () = sleep_until(self.deadline) => {}
                () = sleep_until(self.next_at), if self.turn(asked) != Turn::Over => {
                    if self.catch_up() {
                        continue;
                    }
                    self.report_overdue();
                    if !self.dial_next(asked) {
                        self.next_at = Instant::now() + self.stagger;
                    }
                }
            }
        }
    }

    /// Leaves out the time in which this process stood still, and says whether it did: upstreams may have answered since.
    fn catch_up(&mut self) -> bool {
        let lapsed = self.lapses.since(self.upstreams.clock());
        self.deadline += lapsed;
        self.next_at += lapsed;
        self.queue.postpone(lapsed);
        !lapsed.is_zero()
    }

    /// Waits for the outcome of a probe while a member of the last resort is being probed for the first time; false if none
    /// is, and nothing else is left to dial.
    async fn awaits_last_resort(&mut self) -> bool {
        let upstreams = Arc::clone(&self.upstreams);
        let mut outcome = pin!(upstreams.next_outcome());
        outcome.as_mut().enable();
        if !upstreams.awaits_last_resort() {
            return self.turn(&[]) != Turn::Over;
        }
        // The deadline is the caller's to look at.
        tokio::select! {
            () = outcome => {}
            () = sleep_until(self.deadline) => {}
        }
        true
    }

    /// Whether paths are left that must not be dialled yet, because the client waits for better ones, `asked` among them.
    pub fn is_held(&mut self, asked: &[PathId]) -> bool {
        self.turn(asked) == Turn::Held
    }

    fn turn(&mut self, asked: &[PathId]) -> Turn {
        if self.queue.is_short() {
            self.queue.refresh(&self.upstreams.candidates());
        }
        let is_dialled = |id| self.waiting.iter().any(|waiting| waiting.candidate.id == id);
        let is_awaited = |id| asked.contains(&id) || is_dialled(id);
        let is_silent = |id| self.upstreams.are_silent(&[id]);
        self.queue.turn(is_awaited, is_silent, Instant::now())
    }

    /// Dials the next one, unless none can be dialled now.
    fn dial_next(&mut self, asked: &[PathId]) -> bool {
        while let Turn::Of(candidate) = self.turn(asked) {
            self.queue.take(candidate.id);
            let Some(guard) = self.upstreams.guard_connection(candidate.id) else {
                continue;
            };
            let (options, limit) = (self.options, self.connect_timeout);
            let clock = Arc::clone(self.upstreams.clock());
            let dial = async move {
                let started = Instant::now();
                let connect = pin!(socket::connect(candidate.address, options));
                let result = match clock.timeout(limit, connect).await {
                    Ok(result) => result,
                    Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
                };
                if result.is_ok() {
                    guard.series().dial.observe(started.elapsed());
                }
                Dialled {
                    candidate,
                    guard,
                    result,
                }
            };
            self.dials.push(dial.boxed());
            self.waiting.push(Waiting {
                candidate,
                reported: false,
            });
            self.next_at = Instant::now() + self.stagger;
            return true;
        }
        false
    }

    fn settle(&mut self, dialled: Dialled) -> Option<Connected> {
        let Dialled {
            candidate,
            guard,
            result,
        } = dialled;
        let Candidate { id, address, .. } = candidate;
        self.waiting.retain(|waiting| waiting.candidate != candidate);
        let error = match result {
            Ok(stream) => {
                return Some(Connected {
                    stream,
                    guard,
                    address,
                });
            }
            Err(error) => error,
        };
        let fault = Fault::of(&error);
        let member = &guard.series().member;
        debug!(member, %address, %error, reason = fault.as_str(), "dial failed");
        // The guard keeps the member and its series from being forgotten.
        self.upstreams.metrics().dial_failed(member, fault);
        drop(guard);
        match fault {
            Fault::Refused | Fault::Reset => self
                .upstreams
                .observe(Event::Refused(id), "refused a client's dial"),
            Fault::Timeout | Fault::Unreachable | Fault::Other => {
                if fault == Fault::Timeout {
                    self.queue.retry(candidate);
                }
                self.upstreams
                    .observe(Event::OpenOverdue(id), "left a client's dial unanswered");
            }
            // A fault of this node is no evidence against an upstream.
            Fault::Local => {}
        }
        None
    }

    fn report_overdue(&mut self) {
        for waiting in self.waiting.iter_mut().filter(|waiting| !waiting.reported) {
            waiting.reported = true;
            let overdue = Event::OpenOverdue(waiting.candidate.id);
            self.upstreams
                .observe(overdue, "leaves a client's dial unanswered");
        }
    }

    /// Drops the dials that are under way, because nothing would poll them, and keeps their candidates for later.
    fn drop_dials(&mut self) {
        self.dials.clear();
        let dropped = self.waiting.drain(..).map(|waiting| waiting.candidate);
        self.queue.put_back(dropped);
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use tokio::{
        net::{TcpListener, TcpSocket},
        task::yield_now,
        time::{advance, timeout},
    };

    use super::*;
    use crate::{
        balance::{
            Target,
            health::{Reason, State},
        },
        upstream::fixture,
    };

    /// A listener whose queue is full: dials of it wait until it accepts.
    struct Full {
        listener: TcpListener,
        queued: Vec<TcpStream>,
    }

    impl Full {
        async fn new() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
                queued.push(connected.unwrap());
            }
            Self { listener, queued }
        }

        async fn accept(&mut self) {
            for _ in self.queued.drain(..) {
                self.listener.accept().await.unwrap();
            }
        }
    }

    fn connections(upstreams: &Arc<Upstreams>, ids: [PathId; 2]) -> [usize; 2] {
        let views = upstreams.view();
        ids.map(|id| views.iter().find(|view| view.id == id).unwrap().connections)
    }

    #[tokio::test]
    async fn a_dial_is_dropped_with_its_guard_when_another_wins_and_made_again_when_it_is_wanted() {
        let mut full = Full::new().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [&full.listener, &good].map(|listener| listener.local_addr().unwrap());
        let (upstreams, ids) = fixture::proven(addresses);
        let mut walk = Walk::new(&upstreams, &fixture::settings());
        let winner = walk.next(&[]).await.unwrap();
        assert_eq!(winner.guard.id(), ids[1]);
        let late = upstreams.view().into_iter().find(|view| view.id == ids[0]);
        assert!(late.unwrap().suspect, "it was dialled first");
        assert_eq!(connections(&upstreams, ids), [0, 1]);
        full.accept().await;
        let next = walk.next(&[]).await.unwrap();
        assert_eq!(next.guard.id(), ids[0]);
        assert_eq!(connections(&upstreams, ids), [1, 1]);
        drop((walk, winner, next));
        assert_eq!(connections(&upstreams, ids), [0, 0]);
    }

    #[tokio::test]
    async fn a_dial_that_a_proven_member_lets_wait_is_not_replaced_by_one_of_an_unproven_member() {
        let mut full = Full::new().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = full.listener.local_addr().unwrap();
        let (upstreams, _) = fixture::proven([slow]);
        let unproven = Target {
            proven: false,
            ..fixture::target(good.local_addr().unwrap())
        };
        fixture::obey(&upstreams, vec![fixture::target(slow), unproven]);
        assert_eq!(upstreams.candidates().len(), 2);
        let settings = fixture::settings();
        let mut walk = Walk::new(&upstreams, &settings);
        let early = timeout(settings.hedge_delay * 3, walk.next(&[])).await;
        assert!(early.is_err(), "the unproven one was dialled");
        full.accept().await;
        assert_eq!(walk.next(&[]).await.unwrap().address, slow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_goes_on_where_a_process_that_stood_still_has_left_it() {
        let member = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, [id]) = fixture::proven([member.local_addr().unwrap()]);
        let clock = Arc::clone(upstreams.clock());
        tokio::spawn(async move { clock.run().await });
        yield_now().await;
        for is_dialled in [false, true] {
            let mut walk = Walk::new(&upstreams, &fixture::settings());
            let mut next = pin!(walk.next(&[]));
            if is_dialled {
                assert!(futures::poll!(next.as_mut()).is_pending());
            }
            advance(Duration::from_secs(10)).await;
            assert!(next.await.is_some(), "{is_dialled}");
            let suspects = upstreams.view().into_iter().filter(|view| view.suspect);
            assert_eq!(suspects.map(|view| view.id).collect::<Vec<_>>(), [], "{id:?}");
        }
    }

    /// The health of an upstream after its dial failed with this error.
    fn after_a_dial(errno: Errno) -> (State, Reason, bool) {
        let (upstreams, [id]) = fixture::proven(["127.0.0.1:6443".parse().unwrap()]);
        let mut walk = Walk::new(&upstreams, &fixture::settings());
        let dialled = Dialled {
            candidate: upstreams.candidates().remove(0),
            guard: upstreams.guard_connection(id).unwrap(),
            result: Err(errno.into()),
        };
        assert!(walk.settle(dialled).is_none());
        let found = upstreams.view().remove(0);
        assert_eq!(found.connections, 0);
        (found.state, found.reason, found.suspect)
    }

    #[tokio::test]
    async fn no_route_to_a_host_is_silence_and_a_refusal_is_an_answer() {
        for silence in [Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ETIMEDOUT] {
            assert_eq!(
                after_a_dial(silence),
                (State::Up, Reason::Remembered, true),
                "{silence}"
            );
        }
        for answer in [Errno::ECONNREFUSED, Errno::ECONNRESET] {
            assert_eq!(
                after_a_dial(answer),
                (State::Unready, Reason::Refused, false),
                "{answer}"
            );
        }
        let ours = after_a_dial(Errno::EMFILE);
        assert_eq!(ours, (State::Up, Reason::Remembered, false));
    }

    #[tokio::test]
    async fn members_that_a_new_document_adds_meanwhile_are_dialled_too() {
        let full = Full::new().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, _) = fixture::proven([full.listener.local_addr().unwrap()]);
        let mut walk = Walk::new(&upstreams, &fixture::settings());
        let (found, ()) = tokio::join!(walk.next(&[]), async {
            // The dial of the only member is under way.
            yield_now().await;
            fixture::configure(&upstreams, [good.local_addr().unwrap()]);
        });
        assert_eq!(found.unwrap().address, good.local_addr().unwrap());
    }
}
