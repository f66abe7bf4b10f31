//! The first-flight hedge: until an upstream's first byte arrives the client's ClientHello is kept. If the upstream
//! resets, closes or stays silent, the same bytes are sent to the next one, and the first to answer wins.
//!
//! Nothing has happened on a server that has not answered a ClientHello, so this is safe. It makes a hung apiserver,
//! whose kernel still accepts connections, cost no new connection. What to do when is decided in [`race`](super::race).

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    first_flight::gone,
    race::{ContenderId, Due, Loss, Race},
    walk::{Connected, Walk},
};
use crate::{
    balance::{Event, PathId},
    clock::event_loop::{Lapses, LoopClock},
    ending::Ending,
    metrics::members::Series,
    net::socket::{self, Fault},
    upstream::Upstreams,
};

/// The upstream that answered a first flight.
#[derive(Debug)]
pub struct Winner {
    /// The upstream, with its answer unread.
    pub upstream: Connected,
    /// Whether the flight was sent to more than one because one left it unanswered.
    pub hedged: bool,
}

/// The connections that were sent the client's first flight, and their race.
struct Contenders {
    hello: Bytes,
    upstreams: Arc<Upstreams>,
    race: Race<PathId>,
    awaited: FuturesUnordered<BoxFuture<'static, Finished>>,
    series: BTreeMap<ContenderId, Arc<Series>>,
    lapses: Lapses,
}

/// A contender that has answered or ended.
struct Finished {
    id: ContenderId,
    upstream: Connected,
    waited: Duration,
    result: Result<(), Lost>,
}

/// Why a contender is out of the race.
enum Lost {
    /// It ended by itself.
    Broken(io::Error),
    /// This proxy ended it, for this reason.
    Closed(Ending),
}

/// Sends the ClientHello to `first` and, where that does not answer, to what the walk brings next. The first to answer
/// wins; the others are closed.
pub async fn first_to_answer(
    client: &TcpStream,
    hello: &Bytes,
    first: Connected,
    walk: &mut Walk,
) -> Result<Winner, Ending> {
    let mut contenders = Contenders::new(hello, walk);
    contenders.add(first);
    while !contenders.race.is_over() {
        let asked = contenders.race.awaited();
        tokio::select! {
            biased;
            Some(finished) = contenders.awaited.next() => {
                if let Some(winner) = contenders.settle(finished, walk)? {
                    return Ok(winner);
                }
            }
            () = gone(client) => return Err(Ending::ClientLeft),
            next = walk.next(&asked), if contenders.race.wants_another() => match next {
                Some(next) => contenders.add(next),
                None => contenders.race.exhaust(),
            },
            () = sleep_until(contenders.race.next_timer()) => contenders.look_at_the_clock(walk)?,
        }
    }
    Err(Ending::NoUpstream)
}

impl Contenders {
    fn new(hello: &Bytes, walk: &mut Walk) -> Self {
        let upstreams = Arc::clone(walk.upstreams());
        let hedge_delay = upstreams.hedge_delay(walk.hedge_delay());
        Self {
            hello: hello.clone(),
            race: Race::new(hedge_delay, walk.deadline(), Instant::now()),
            lapses: upstreams.clock().lapses(),
            upstreams,
            awaited: FuturesUnordered::new(),
            series: BTreeMap::new(),
        }
    }

    fn add(&mut self, upstream: Connected) {
        let id = self.race.join(upstream.guard.id(), Instant::now());
        self.series.insert(id, Arc::clone(upstream.guard.series()));
        let clock = Arc::clone(self.upstreams.clock());
        self.awaited
            .push(contend(id, upstream, self.hello.clone(), clock).boxed());
    }

    /// The winner, if there is one now.
    fn settle(&mut self, finished: Finished, walk: &mut Walk) -> Result<Option<Winner>, Ending> {
        let Finished {
            id,
            upstream,
            waited,
            result,
        } = finished;
        let lost = match result {
            Ok(()) => return Ok(Some(self.award(id, upstream, waited))),
            Err(lost) => lost,
        };
        match lost {
            Lost::Broken(error) => note_loss(&upstream, &error, &self.upstreams),
            // What this proxy does itself is no evidence against an upstream.
            Lost::Closed(ending) => {
                socket::reset_on_close(&upstream.stream);
                if ending == Ending::ProxyDrained {
                    return Err(ending);
                }
            }
        }
        self.catch_up();
        if self.race.lose(id, Instant::now()) == Loss::StartOver {
            walk.start_over(upstream.guard.id());
            self.race.start_over(walk.deadline());
        }
        Ok(None)
    }

    fn award(&self, id: ContenderId, upstream: Connected, waited: Duration) -> Winner {
        let win = self.race.win(id);
        let series = upstream.guard.series();
        series.first_byte.observe(waited);
        self.upstreams
            .observe(Event::Answered(upstream.guard.id(), waited), "");
        if win.by_hedge {
            series.hedges_won.inc();
            for series in win
                .passed_over
                .iter()
                .filter(|passed_over| **passed_over != id)
                .filter_map(|passed_over| self.series.get(passed_over))
            {
                series.hedges_lost.inc();
            }
        }
        Winner {
            upstream,
            hedged: win.hedged,
        }
    }

    /// Leaves out the time in which this process stood still: upstreams may have answered since.
    fn catch_up(&mut self) {
        self.race.postpone(self.lapses.since(self.upstreams.clock()));
    }

    fn look_at_the_clock(&mut self, walk: &mut Walk) -> Result<(), Ending> {
        self.catch_up();
        loop {
            match self.race.due(Instant::now()) {
                Due::Nothing => return Ok(()),
                Due::GiveUpOnSilence if self.upstreams.are_silent(&self.race.awaited()) => {
                    return Err(Ending::NoUpstream);
                }
                Due::GiveUpOnSilence => {}
                Due::Hedge => self.hedge(walk),
            }
        }
    }

    /// Tells the balancer who leaves the client waiting, and sends the flight to another if there is one that may have it
    /// and the budget allows it.
    fn hedge(&mut self, walk: &mut Walk) {
        let awaited = self.race.awaited();
        for overdue in &awaited {
            self.upstreams.observe(
                Event::OpenOverdue(*overdue),
                "leaves a client's first flight unanswered",
            );
        }
        if walk.is_held(&awaited) {
            return;
        }
        let since = self.race.asked_last().unwrap_or_else(Instant::now);
        if !self.upstreams.spend_hedge(&awaited, since) {
            self.upstreams.metrics().hedge_refused();
            return;
        }
        for passed_over in self.race.hedge() {
            if let Some(series) = self.series.get(&passed_over) {
                series.hedges.inc();
            }
        }
    }
}

async fn contend(id: ContenderId, mut upstream: Connected, hello: Bytes, clock: Arc<LoopClock>) -> Finished {
    let (started, mut lapses) = (Instant::now(), clock.lapses());
    let Connected { stream, guard, .. } = &mut upstream;
    let result = tokio::select! {
        biased;
        result = first_byte(stream, &hello) => result.map_err(Lost::Broken),
        ending = guard.close_signal.ended() => Err(Lost::Closed(ending)),
    };
    Finished {
        id,
        upstream,
        waited: started.elapsed().saturating_sub(lapses.since(&clock)),
        result,
    }
}

async fn first_byte(stream: &mut TcpStream, hello: &[u8]) -> io::Result<()> {
    stream.write_all(hello).await?;
    match stream.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Notes that an upstream ended before it had answered a client.
fn note_loss(upstream: &Connected, error: &io::Error, upstreams: &Arc<Upstreams>) {
    let member = &upstream.guard.series().member;
    debug!(member, %error, "upstream ended before it answered");
    upstreams.metrics().dial_failed(member, Fault::of(error));
    upstreams.observe(
        Event::OpenOverdue(upstream.guard.id()),
        "ended before it answered a client's first flight",
    );
    socket::reset_on_close(&upstream.stream);
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, time::sleep};

    use super::*;
    use crate::{
        balance::{Target, health::Outcome},
        metrics,
        upstream::fixture::{self, in_time},
    };

    const HELLO: &[u8] = b"hello";

    /// A client and two members, the first of which is to be sent its hello.
    struct Race {
        hello: Bytes,
        members: [TcpListener; 2],
        upstreams: Arc<Upstreams>,
        ids: [PathId; 2],
        client: TcpStream,
        _far_end: TcpStream,
        first: Connected,
        walk: Walk,
    }

    impl Race {
        async fn new() -> Self {
            let any = "127.0.0.1:0";
            let members = [TcpListener::bind(any).await, TcpListener::bind(any).await];
            let members = members.map(Result::unwrap);
            let addresses = members.each_ref().map(|member| member.local_addr().unwrap());
            let listener = TcpListener::bind(any).await.unwrap();
            let far_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (upstreams, ids) = fixture::proven(addresses);
            let mut walk = Walk::new(&upstreams, &fixture::settings());
            let first = walk.next(&[]).await.unwrap();
            assert_eq!(first.guard.id(), ids[0]);
            Self {
                hello: HELLO.into(),
                client: listener.accept().await.unwrap().0,
                _far_end: far_end,
                members,
                upstreams,
                ids,
                first,
                walk,
            }
        }
    }

    /// Answers the one who says hello, and stays.
    async fn answer(member: &TcpListener) {
        let (mut stream, _) = member.accept().await.unwrap();
        let mut word = [0; HELLO.len()];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(word, HELLO);
        stream.write_all(b"!").await.unwrap();
        std::future::pending::<()>().await;
    }

    fn blamed(upstreams: &Upstreams, id: PathId) -> bool {
        let metrics = metrics::encode(&upstreams.metrics().registry());
        let views = upstreams.view();
        metrics.contains("dial_failures_total{") || views.iter().any(|view| view.id == id && view.suspect)
    }

    #[tokio::test]
    async fn a_race_ends_with_the_proxy_and_blames_nobody() {
        let mut race = Race::new().await;
        let running = first_to_answer(&race.client, &race.hello, race.first, &mut race.walk);
        let outcome = tokio::select! {
            biased;
            outcome = in_time(running) => outcome,
            () = race.upstreams.drain_all(Duration::ZERO) => panic!("the drain ended before its connections"),
        };
        assert_eq!(outcome.unwrap_err(), Ending::ProxyDrained);
        assert!(!blamed(&race.upstreams, race.ids[0]));
    }

    #[tokio::test]
    async fn a_contender_that_is_drained_is_replaced_and_not_blamed() {
        let mut race = Race::new().await;
        race.first.guard.close_signal.end(Ending::MemberDrained);
        let running = first_to_answer(&race.client, &race.hello, race.first, &mut race.walk);
        let winner = tokio::select! {
            winner = in_time(running) => winner.unwrap(),
            () = answer(&race.members[1]) => panic!("the member ended"),
        };
        assert_eq!(winner.upstream.guard.id(), race.ids[1]);
        assert!(!blamed(&race.upstreams, race.ids[0]));
    }

    #[tokio::test]
    async fn a_member_that_ends_late_leaves_its_client_to_another() {
        let mut race = Race::new().await;
        // A slow cluster, in which nothing is sent twice.
        while race.upstreams.spend_hedge(&race.ids, Instant::now()) {}
        let late = race.walk.deadline() + Duration::from_millis(200);
        let running = first_to_answer(&race.client, &race.hello, race.first, &mut race.walk);
        let ends = async {
            let (stream, _) = race.members[0].accept().await.unwrap();
            sleep(late.saturating_duration_since(Instant::now())).await;
            drop(stream);
            answer(&race.members[1]).await;
        };
        let winner = tokio::select! {
            winner = in_time(running) => winner.unwrap(),
            () = ends => panic!("the member ended"),
        };
        assert_eq!(winner.upstream.guard.id(), race.ids[1]);
    }

    /// Who wins and how many connections the second member got, if the first, which is proven and active, answers after
    /// three hedge delays and the second at once.
    async fn slow_against(draining: bool, proven: bool) -> (bool, usize) {
        let any = "127.0.0.1:0";
        let (a, b) = (
            TcpListener::bind(any).await.unwrap(),
            TcpListener::bind(any).await.unwrap(),
        );
        let (a_address, b_address) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        let (upstreams, _) = fixture::proven([a_address]);
        let second = Target {
            draining,
            proven,
            ..fixture::target(b_address)
        };
        fixture::obey(&upstreams, vec![fixture::target(a_address), second]);
        for view in upstreams.view().iter().filter(|view| view.proven) {
            upstreams.observe(fixture::probed(view.id, Outcome::Ready), "");
        }
        let listener = TcpListener::bind(any).await.unwrap();
        let _far_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let client = listener.accept().await.unwrap().0;
        let settings = fixture::settings();
        let mut walk = Walk::new(&upstreams, &settings);
        let first = walk.next(&[]).await.unwrap();
        assert_eq!(first.address, a_address);
        let accepted = std::cell::Cell::new(0);
        let slow = async {
            let (mut stream, _) = a.accept().await.unwrap();
            sleep(settings.hedge_delay * 3).await;
            stream.write_all(b"!").await.unwrap();
            std::future::pending::<()>().await;
        };
        let quick = async {
            let (mut stream, _) = b.accept().await.unwrap();
            accepted.set(accepted.get() + 1);
            stream.write_all(b"!").await.unwrap();
            std::future::pending::<()>().await;
        };
        let hello = HELLO.into();
        let winner = tokio::select! {
            winner = in_time(first_to_answer(&client, &hello, first, &mut walk)) => winner.unwrap(),
            () = slow => panic!("the member ended"),
            () = quick => panic!("the member ended"),
        };
        (winner.upstream.address == a_address, accepted.get())
    }

    #[tokio::test]
    async fn a_slow_proven_member_is_not_hedged_to_one_that_is_unproven() {
        assert_eq!(slow_against(false, false).await, (true, 0));
    }

    #[tokio::test]
    async fn a_slow_active_member_is_not_hedged_to_one_that_drains() {
        assert_eq!(slow_against(true, true).await, (true, 0));
    }
}
