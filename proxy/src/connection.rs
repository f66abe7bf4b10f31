//! One client's connection, from its accept to its end, which is counted and logged, or until another process of this node
//! goes on with it.

mod record;
pub mod transfer;

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::net::TcpStream;
use tracing::debug;

pub use self::record::Record;
use self::transfer::{Passport, Progress, Sockets, Transfers, Verdict};
use crate::{
    balance::Event,
    ending::Ending,
    listener::slots::SilentClient,
    net::socket,
    open::{self, Heard, Opened},
    relay::{Pair, Stop, TailBudget},
    upstream::{ConnectionGuard, Upstreams},
};

/// A client that is to be served, accepted by this process or by the one that had it before.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub client: TcpStream,
    /// What it has said already.
    pub heard: Bytes,
    /// Its slot while it says nothing.
    pub silent: SilentClient,
    /// Its record.
    pub record: Record,
}

/// A connection with an upstream, that this process has opened or another one.
#[derive(Debug)]
pub struct Established {
    pair: Pair,
    guard: ConnectionGuard,
    record: Record,
}

/// What all connections of a proxy share.
#[derive(Debug)]
pub struct Shared {
    /// The upstreams.
    pub upstreams: Arc<Upstreams>,
    /// Where the bytes count that the proxy keeps for them.
    pub tails: Arc<TailBudget>,
    /// Where they go when another process takes them.
    pub transfers: Arc<Transfers>,
}

impl Shared {
    /// Of connections to these upstreams.
    pub fn new(upstreams: Arc<Upstreams>) -> Self {
        Self {
            upstreams,
            tails: Arc::default(),
            transfers: Arc::default(),
        }
    }

    /// The same of connections to other upstreams of this proxy: those of an extra listener.
    #[must_use]
    pub fn beside(&self, upstreams: Arc<Upstreams>) -> Self {
        Self {
            upstreams,
            tails: Arc::clone(&self.tails),
            transfers: Arc::clone(&self.transfers),
        }
    }

    /// Whether the connections are those of an extra listener.
    pub fn is_of_extra(&self) -> bool {
        self.upstreams.listener_name().is_some()
    }
}

/// How a connection begins in this process.
enum Beginning {
    /// Its upstream is looked for. Boxed, because a task is as large as its largest step. What opening needs ends with it: an
    /// old document is not kept for as long as a connection lasts, nor a byte of memory.
    Opening(BoxFuture<'static, Option<Established>>),
    /// Another process has relayed it.
    Relayed(Box<Established>),
}

/// Serves a client to its end.
pub fn serve(accepted: Accepted, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    run(
        Beginning::Opening(open(accepted, Arc::clone(&shared)).boxed()),
        shared,
    )
}

/// Goes on with a connection that another process has relayed.
pub fn resume(established: Established, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    run(Beginning::Relayed(Box::new(established)), shared)
}

impl Established {
    /// The connection of this passport, on its sockets in the event loop. It counts for its upstream from now on.
    pub fn new(
        passport: &Passport,
        (client, upstream): (TcpStream, TcpStream),
        shared: &Shared,
    ) -> Option<Self> {
        let Progress::Established {
            upstream: given,
            pair,
        } = &passport.progress
        else {
            return None;
        };
        let guard = shared
            .upstreams
            .adopt_connection(&given.path, given.drains_within)?;
        let mut record = Record::resumed(passport, Arc::clone(shared.upstreams.metrics()));
        record.given_before(given, &guard);
        Some(Self {
            pair: Pair::resume(client, upstream, pair.clone(), &shared.tails),
            guard,
            record,
        })
    }
}

/// Finds the client's upstream; none if there is nothing left to do here.
#[allow(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn open(mut accepted: Accepted, shared: Arc<Shared>) -> impl Future<Output = Option<Established>> + Send {
    async move {
        let upstreams = &shared.upstreams;
        let (mut heard, mut silent) = (Heard::new(&accepted.heard), Some(accepted.silent));
        loop {
            let Some(settings) = upstreams.settings() else {
                refuse(&accepted.client, accepted.record, Ending::NoUpstream);
                return None;
            };
            let opened = tokio::select! {
                biased;
                opened = open::open(&accepted.client, &mut silent, &mut heard, upstreams, &settings) => opened,
                () = shared.transfers.begun(shared.is_of_extra()), if !accepted.record.was_offered() => {
                    let heard = heard.bytes();
                    let passport = accepted.record.passport(Progress::Opening { heard });
                    // Boxed, because no other open needs the room.
                    match Box::pin(give(passport, accepted.client, None, &shared)).await {
                        Ok(Some((kept, _))) => accepted.client = kept,
                        Ok(None) => {
                            accepted.record.taken();
                            return None;
                        }
                        Err(error) => {
                            debug!(%error, "failed to go on with a client that was not handed over");
                            return None;
                        }
                    }
                    accepted.record.offered();
                    continue;
                }
            };
            return match opened {
                Ok(opened) => {
                    accepted.record.opened(&opened);
                    let Opened { upstream, unsent, .. } = opened;
                    Some(Established {
                        pair: Pair::new(accepted.client, upstream.stream, unsent, &shared.tails),
                        guard: upstream.guard,
                        record: accepted.record,
                    })
                }
                Err(ending) => {
                    refuse(&accepted.client, accepted.record, ending);
                    None
                }
            };
        }
    }
}

/// Ends a client that no upstream serves.
pub fn refuse(client: &TcpStream, mut record: Record, ending: Ending) {
    // A client that has closed without a word gets the same.
    end(client, ending != Ending::Finished, record.was_offered());
    record.refused(ending);
}

/// Relays a connection until it has ended, or another process goes on with it.
async fn run(beginning: Beginning, shared: Arc<Shared>) {
    let Some(Established {
        mut pair,
        guard,
        mut record,
    }) = (match beginning {
        Beginning::Opening(opening) => opening.await,
        Beginning::Relayed(established) => Some(*established),
    })
    else {
        return;
    };
    loop {
        guard.close_signal.establish();
        match pair.run(&guard.close_signal, shared.upstreams.metrics()).await {
            Stop::Ended(summary) => {
                for side in [pair.client(), pair.upstream()] {
                    end(side, summary.ending.resets(), record.was_offered());
                }
                if summary.ending == Ending::UpstreamTimeout {
                    shared.upstreams.observe(
                        Event::OpenOverdue(guard.id()),
                        "the kernel gave up on a client's connection",
                    );
                }
                return record.relayed(summary);
            }
            Stop::HandOver => match Box::pin(give_pair(pair, &guard, &record, &shared)).await {
                Ok(Some(kept)) => pair = kept,
                Ok(None) => return record.taken(),
                Err(error) => {
                    debug!(%error, "failed to go on with a connection that was not handed over");
                    return;
                }
            },
        }
        record.offered();
    }
}

/// Ends a side. A process that hangs may still have a duplicate of a socket that it was offered: then its close alone would
/// end nothing.
fn end(side: &TcpStream, resets: bool, was_offered: bool) {
    match (resets, was_offered) {
        (true, false) => socket::reset_on_close(side),
        (true, true) => socket::reset(side),
        (false, true) => socket::end(side),
        (false, false) => {}
    }
}

/// Hands a pair over; returns it if no process takes it.
async fn give_pair(
    pair: Pair,
    guard: &ConnectionGuard,
    record: &Record,
    shared: &Shared,
) -> io::Result<Option<Pair>> {
    let (client, upstream, state) = pair.into_parts();
    let drains_within = shared.upstreams.drains_within(guard.id());
    let Some(passport) = record.passport_of_pair(state.clone(), drains_within) else {
        return Ok(Some(Pair::resume(client, upstream, state, &shared.tails)));
    };
    let kept = give(passport, client, Some(upstream), shared).await?;
    Ok(kept.and_then(|(client, upstream)| Some(Pair::resume(client, upstream?, state, &shared.tails))))
}

/// Hands a connection over; returns its sockets if no process takes it.
async fn give(
    passport: Passport,
    client: TcpStream,
    upstream: Option<TcpStream>,
    shared: &Shared,
) -> io::Result<Option<(TcpStream, Option<TcpStream>)>> {
    let sockets = Sockets::take(client, upstream)?;
    match shared.transfers.give(passport, sockets).await {
        Verdict::Taken => Ok(None),
        Verdict::Kept(sockets) => sockets.restore().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{listener::slots::Slots, upstream::fixture};

    /// A client that has been accepted, its far end, and what its connection shares with others.
    async fn accepted() -> (Accepted, TcpStream, Arc<Shared>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let far_end = TcpStream::connect(address).await.unwrap();
        let (client, peer) = listener.accept().await.unwrap();
        let (upstreams, _) = fixture::proven([address; 2]);
        let slots = Arc::new(Slots::default());
        slots.set_limit(1);
        let accepted = Accepted {
            client,
            heard: Bytes::new(),
            silent: slots.admit(0).unwrap(),
            record: Record::new(peer, address, Arc::clone(upstreams.metrics())),
        };
        (accepted, far_end, Arc::new(Shared::new(upstreams)))
    }

    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let (accepted, _far_end, shared) = accepted().await;
        // A third of what an idle connection costs in all; the rest are tokio's entries for its two sockets and the guard's.
        let size = size_of_val(&serve(accepted, shared));
        assert!(size <= 768, "{size} bytes");
    }

    /// musl's allocator keeps the pages of a size class that is freed and allocated again and again, but not if two
    /// allocations of a connection share the class: then each connection maps and unmaps pages, which costs as much CPU as
    /// a dial. The buffer for the first flight is in the class for up to 2,716 bytes.
    #[tokio::test]
    async fn an_open_is_in_another_size_class_than_the_first_flight() {
        let (accepted, _far_end, shared) = accepted().await;
        let size = size_of_val(&open(accepted, shared));
        // The next smaller class ends at 2,028 bytes. A program that is not optimised has larger futures.
        let limit = if cfg!(debug_assertions) { 2200 } else { 2028 };
        assert!(size <= limit, "{size} bytes");
    }
}
