//! The first-flight hedge: until an upstream's first byte arrives the client's ClientHello is kept, and sent to the
//! next upstream as well if the first one resets, closes or stays silent. The first to answer wins.
//!
//! Nothing has happened on a server that has not answered a ClientHello, so this is safe; and it makes a hung apiserver,
//! whose kernel accepts connections as ever, cost no new connection.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    hello::{self, Kind},
    walk::{Connected, Walk},
};
use crate::{
    balance::{Event, UpstreamId},
    ending::Ending,
    metrics::members::Series,
    net::socket::{self, Fault},
    upstream::Upstreams,
};

/// Room for a usual ClientHello.
const USUAL: usize = 2048;

/// What the client began with.
#[derive(Debug)]
pub enum Flight {
    /// A ClientHello that may be sent more than once.
    Hello(Bytes),
    /// Something that may be sent once only, perhaps nothing.
    Other(Bytes),
}

/// Reads the client's first flight, and says for which upstream. A server that speaks first ends the reading; one that
/// ends before it was told a word, as a listener that closes does to those in its queue, leaves its place to the next,
/// and so does one whose connections we end ourselves.
pub async fn read(
    client: &TcpStream,
    first: Connected,
    walk: &mut Walk,
) -> Result<(Flight, Connected), Ending> {
    let mut upstream = first;
    let mut flight = BytesMut::with_capacity(USUAL);
    let mut word = [0];
    loop {
        tokio::select! {
            biased;
            ready = client.readable() => ready.map_err(|_error| Ending::ClientLeft)?,
            ending = upstream.guard.close_signal.ended() => {
                upstream = replace(upstream, ending, walk).await?;
                continue;
            }
            spoken = upstream.stream.peek(&mut word) => {
                let ended = match spoken {
                    Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => return Ok((Flight::Other(flight.freeze()), upstream)),
                    Err(error) => error,
                };
                let Some(next) = walk.next().await else {
                    return match ended.kind() {
                        // Nobody is left, and the relay passes the end on.
                        io::ErrorKind::UnexpectedEof => Ok((Flight::Other(flight.freeze()), upstream)),
                        _ => Err(Ending::UpstreamReset),
                    };
                };
                lose(&upstream, &ended, walk.upstreams());
                upstream = next;
                continue;
            }
        }
        match client.try_read_buf(&mut flight) {
            // A half-close without a word, or in the middle of a word: the relay passes it on.
            Ok(0) => return Ok((Flight::Other(flight.freeze()), upstream)),
            Ok(_) => match hello::classify(&flight) {
                Kind::Incomplete => flight.reserve(USUAL),
                Kind::Replayable => {
                    walk.renew(upstream.guard.id());
                    return Ok((Flight::Hello(flight.freeze()), upstream));
                }
                Kind::Other => return Ok((Flight::Other(flight.freeze()), upstream)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_reset) => return Err(Ending::ClientLeft),
        }
    }
}

/// Gives a client whose upstream is cut or drained another: it has lost nothing yet, however long ago it came.
async fn replace(upstream: Connected, ending: Ending, walk: &mut Walk) -> Result<Connected, Ending> {
    if ending == Ending::ProxyDrained {
        return Err(ending);
    }
    walk.renew(upstream.guard.id());
    // Whoever waits for its connections to end need not wait for this.
    drop(upstream);
    walk.next().await.ok_or(ending)
}

/// The upstream that answered a first flight.
#[derive(Debug)]
pub struct Winner {
    /// The upstream, with its answer unread.
    pub upstream: Connected,
    /// Whether the flight was sent to more than one because one left it unanswered.
    pub hedged: bool,
}

struct Contender {
    upstream: Connected,
    waited: Duration,
    result: Result<(), Lost>,
}

/// Why an upstream is out of the race.
enum Lost {
    /// It ended by itself.
    Broken(io::Error),
    /// We ended it, with this reason.
    Told(Ending),
}

/// Who was sent the first flight.
struct Asked {
    id: UpstreamId,
    since: Instant,
    series: Arc<Series>,
    by_hedge: bool,
    passed_over: bool,
    failed: bool,
}

impl Asked {
    fn new(upstream: &Connected, by_hedge: bool) -> Self {
        Self {
            id: upstream.guard.id(),
            since: Instant::now(),
            series: Arc::clone(upstream.guard.series()),
            by_hedge,
            passed_over: false,
            failed: false,
        }
    }
}

/// Why the next upstream is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    Replacement,
    Hedge,
}

/// Sends the ClientHello to `first` and, where that does not answer, to what the walk brings next. The first to answer
/// wins; the others are closed.
pub async fn race(
    client: &TcpStream,
    hello: &Bytes,
    first: Connected,
    walk: &mut Walk,
) -> Result<Winner, Ending> {
    let upstreams = Arc::clone(walk.upstreams());
    let hedge_delay = upstreams.hedge_delay(walk.hedge_delay());
    let mut asked = vec![Asked::new(&first, false)];
    let mut contenders: FuturesUnordered<BoxFuture<'static, Contender>> = FuturesUnordered::new();
    contenders.push(contend(first, hello.clone()).boxed());
    let mut hedge_at = Instant::now() + hedge_delay;
    let mut give_up_at = walk.deadline();
    let (mut want, mut exhausted, mut renewed) = (Want::Nothing, false, false);
    loop {
        if contenders.is_empty() && exhausted {
            return Err(Ending::NoUpstream);
        }
        tokio::select! {
            biased;
            Some(contender) = contenders.next() => match settle(contender, &upstreams) {
                Ok(upstream) => {
                    let hedged = award(&asked, upstream.guard.id());
                    return Ok(Winner { upstream, hedged });
                }
                Err((_, Some(Ending::ProxyDrained))) => return Err(Ending::ProxyDrained),
                Err((lost, _)) => {
                    fail(&mut asked, lost);
                    want = Want::Replacement;
                    // Whoever was slow to answer was waited for, and has ended: the others have had no chance. Once only,
                    // or members that end each flight late would hold the client.
                    if contenders.is_empty() && Instant::now() >= walk.deadline() && !renewed {
                        walk.renew(lost);
                        give_up_at = walk.deadline();
                        (exhausted, renewed) = (false, true);
                    }
                }
            },
            () = gone(client) => return Err(Ending::ClientLeft),
            next = walk.next(), if want != Want::Nothing && !exhausted => {
                let by_hedge = std::mem::replace(&mut want, Want::Nothing) == Want::Hedge;
                hedge_at = Instant::now() + hedge_delay;
                match next {
                    Some(next) => {
                        asked.push(Asked::new(&next, by_hedge));
                        contenders.push(contend(next, hello.clone()).boxed());
                    }
                    None => exhausted = true,
                }
            }
            () = sleep_until(give_up_at) => {
                give_up_at = Instant::now() + hedge_delay;
                // Who is merely slow is waited for, as long as the client likes.
                if upstreams.are_silent(&awaited(&asked)) {
                    return Err(Ending::NoUpstream);
                }
            }
            () = sleep_until(hedge_at), if want == Want::Nothing && !exhausted => {
                hedge_at = Instant::now() + hedge_delay;
                if suspect(&mut asked, &upstreams) {
                    want = Want::Hedge;
                }
            }
        }
    }
}

/// Who may yet answer.
fn awaited(asked: &[Asked]) -> Vec<UpstreamId> {
    let awaited = asked.iter().filter(|asked| !asked.failed);
    awaited.map(|asked| asked.id).collect()
}

fn fail(asked: &mut [Asked], lost: UpstreamId) {
    for contender in asked.iter_mut().filter(|asked| asked.id == lost) {
        contender.failed = true;
    }
}

/// Says who leaves the client waiting, and whether the budget has a hedge for it.
fn suspect(asked: &mut [Asked], upstreams: &Arc<Upstreams>) -> bool {
    let awaited = awaited(asked);
    for late in &awaited {
        upstreams.observe(
            Event::OpenOverdue(*late),
            "leaves a client's first flight unanswered",
        );
    }
    let last = asked.iter().map(|asked| asked.since).max();
    if !upstreams.spend_hedge(&awaited, last.unwrap_or_else(Instant::now)) {
        upstreams.metrics().hedge_refused();
        return false;
    }
    for late in asked.iter_mut().filter(|asked| !asked.failed) {
        late.passed_over = true;
        late.series.hedges.inc();
    }
    true
}

/// Counts who won a client from whom, and says whether there was a hedge.
fn award(asked: &[Asked], winner: UpstreamId) -> bool {
    let won_by_hedge = asked.iter().any(|asked| asked.id == winner && asked.by_hedge);
    if won_by_hedge {
        for contender in asked {
            if contender.id == winner {
                contender.series.hedges_won.inc();
            } else if contender.passed_over {
                contender.series.hedges_lost.inc();
            }
        }
    }
    won_by_hedge || asked.iter().any(|asked| asked.passed_over)
}

async fn contend(mut upstream: Connected, hello: Bytes) -> Contender {
    let started = Instant::now();
    let Connected { stream, guard, .. } = &mut upstream;
    let result = tokio::select! {
        biased;
        result = first_byte(stream, &hello) => result.map_err(Lost::Broken),
        ending = guard.close_signal.ended() => Err(Lost::Told(ending)),
    };
    Contender {
        upstream,
        waited: started.elapsed(),
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

/// The winner, or who has lost and, if we ended it, why.
fn settle(
    contender: Contender,
    upstreams: &Arc<Upstreams>,
) -> Result<Connected, (UpstreamId, Option<Ending>)> {
    let Contender {
        upstream,
        waited,
        result,
    } = contender;
    let id = upstream.guard.id();
    match result {
        Ok(()) => {
            upstream.guard.series().first_byte.observe(waited);
            upstreams.observe(Event::Answered(id, waited), "");
            Ok(upstream)
        }
        Err(Lost::Broken(error)) => {
            lose(&upstream, &error, upstreams);
            Err((id, None))
        }
        // Our own doing is no evidence against anybody.
        Err(Lost::Told(ending)) => {
            socket::reset_on_close(&upstream.stream);
            Err((id, Some(ending)))
        }
    }
}

/// Notes that an upstream ended before it had answered a client.
fn lose(upstream: &Connected, error: &io::Error, upstreams: &Arc<Upstreams>) {
    let member = &upstream.guard.series().member;
    debug!(member, %error, "upstream ended before it answered");
    upstreams.metrics().dial_failed(member, Fault::of(error));
    upstreams.observe(
        Event::OpenOverdue(upstream.guard.id()),
        "ended before it answered a client's first flight",
    );
    socket::reset_on_close(&upstream.stream);
}

/// Waits until the client has given up. Bytes that it sends meanwhile stay where they are.
async fn gone(client: &TcpStream) {
    match client.ready(Interest::READABLE | Interest::ERROR).await {
        Ok(ready) if !ready.is_read_closed() && !ready.is_error() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, time::sleep};

    use super::*;
    use crate::{
        metrics,
        upstream::fixture::{self, in_time},
    };

    const HELLO: &[u8] = b"hello";

    /// A client and two members, the first of which is to be sent its hello.
    struct Race {
        hello: Bytes,
        members: [TcpListener; 2],
        upstreams: Arc<Upstreams>,
        ids: [UpstreamId; 2],
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
            let first = walk.next().await.unwrap();
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

    fn blamed(upstreams: &Upstreams, id: UpstreamId) -> bool {
        let metrics = metrics::encode(&upstreams.metrics().registry());
        let views = upstreams.view();
        metrics.contains("dial_failures_total{") || views.iter().any(|view| view.id == id && view.suspect)
    }

    #[tokio::test]
    async fn a_race_ends_with_the_proxy_and_blames_nobody() {
        let mut race = Race::new().await;
        let running = super::race(&race.client, &race.hello, race.first, &mut race.walk);
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
        let running = super::race(&race.client, &race.hello, race.first, &mut race.walk);
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
        let running = super::race(&race.client, &race.hello, race.first, &mut race.walk);
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
}
