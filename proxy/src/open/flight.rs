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
            ending = upstream.claim.tether.ended() => {
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
                    walk.renew(upstream.claim.id());
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
    walk.renew(upstream.claim.id());
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
    result: io::Result<()>,
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
            id: upstream.claim.id(),
            since: Instant::now(),
            series: Arc::clone(upstream.claim.series()),
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
    let patience = upstreams.patience(walk.hedge_delay());
    let mut asked = vec![Asked::new(&first, false)];
    let mut contenders: FuturesUnordered<BoxFuture<'static, Contender>> = FuturesUnordered::new();
    contenders.push(contend(first, hello.clone()).boxed());
    let mut hedge_at = Instant::now() + patience;
    let mut give_up_at = walk.deadline();
    let (mut want, mut exhausted) = (Want::Nothing, false);
    loop {
        if contenders.is_empty() && exhausted {
            return Err(Ending::NoUpstream);
        }
        tokio::select! {
            biased;
            Some(contender) = contenders.next() => match settle(contender, &upstreams) {
                Ok(upstream) => {
                    let hedged = award(&asked, upstream.claim.id());
                    return Ok(Winner { upstream, hedged });
                }
                Err(lost) => {
                    fail(&mut asked, lost);
                    want = Want::Replacement;
                }
            },
            () = gone(client) => return Err(Ending::ClientLeft),
            next = walk.next(), if want != Want::Nothing && !exhausted => {
                let by_hedge = std::mem::replace(&mut want, Want::Nothing) == Want::Hedge;
                hedge_at = Instant::now() + patience;
                match next {
                    Some(next) => {
                        asked.push(Asked::new(&next, by_hedge));
                        contenders.push(contend(next, hello.clone()).boxed());
                    }
                    None => exhausted = true,
                }
            }
            () = sleep_until(give_up_at) => {
                give_up_at = Instant::now() + patience;
                // Who is merely slow is waited for, as long as the client likes.
                if upstreams.are_silent(&awaited(&asked)) {
                    return Err(Ending::NoUpstream);
                }
            }
            () = sleep_until(hedge_at), if want == Want::Nothing && !exhausted => {
                hedge_at = Instant::now() + patience;
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
            Event::Unanswered(*late),
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
    let Connected { stream, claim, .. } = &mut upstream;
    let result = tokio::select! {
        biased;
        result = first_byte(stream, &hello) => result,
        ending = claim.tether.ended() => Err(io::Error::other(ending.word())),
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

fn settle(contender: Contender, upstreams: &Arc<Upstreams>) -> Result<Connected, UpstreamId> {
    let Contender {
        upstream,
        waited,
        result,
    } = contender;
    let id = upstream.claim.id();
    match result {
        Ok(()) => {
            upstream.claim.series().first_byte.observe(waited);
            upstreams.observe(Event::Answered(id, waited), "");
            Ok(upstream)
        }
        Err(error) => {
            lose(&upstream, &error, upstreams);
            Err(id)
        }
    }
}

/// Notes that an upstream ended before it had answered a client.
fn lose(upstream: &Connected, error: &io::Error, upstreams: &Arc<Upstreams>) {
    let member = &upstream.claim.series().member;
    debug!(member, %error, "upstream ended before it answered");
    upstreams.metrics().dial_failed(member, Fault::of(error));
    upstreams.observe(
        Event::Unanswered(upstream.claim.id()),
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
