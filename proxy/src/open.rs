//! Opening: from an accepted client to the upstream that serves it, within the client's one connection.

pub mod contenders;
pub mod deadline;
pub mod first_flight;
pub mod hello;
pub mod queue;
pub mod race;
pub mod walk;

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use tokio::net::TcpStream;

pub use self::first_flight::Heard;
use self::{
    contenders::Winner,
    first_flight::Flight,
    walk::{Connected, Walk},
};
use crate::{ending::Ending, listener::slots::SilentClient, settings::Settings, upstream::Upstreams};

/// A client's upstream, and the client's bytes that it was not sent yet.
#[derive(Debug)]
pub struct Opened {
    /// The upstream.
    pub upstream: Connected,
    /// Bytes read from the client and not yet written.
    pub unsent: Bytes,
    /// Bytes of the client that this upstream was sent already. What was sent to other upstreams too does not count.
    pub sent: u64,
    /// Whether the upstream has answered already.
    pub answered: bool,
    /// Whether the client's first flight was sent to more than one upstream because one left it unanswered.
    pub hedged: bool,
}

/// Finds the upstream for this client: the first that connects and, where the client begins with a ClientHello, the
/// first that answers it. Nothing is dialled before the client has spoken, unless no upstream is expected to answer: then
/// the client is told so at once.
///
/// What the client has said stays in `heard`, so that another open can begin where this one was dropped. The client is no
/// longer silent once its first flight is complete.
pub async fn open(
    client: &TcpStream,
    silent: &mut Option<SilentClient>,
    heard: &mut Heard,
    upstreams: &Arc<Upstreams>,
    settings: &Arc<Settings>,
) -> Result<Opened, Ending> {
    let (early, flight) = tokio::select! {
        biased;
        heard = hear(client, heard, upstreams, settings) => heard?,
        ending = told_to_end(silent.as_ref()) => return Err(ending),
    };
    if silent.take().is_some() {
        upstreams.earn_hedge();
    }
    let (first, mut walk) = if let Some(early) = early {
        let (early, mut walk) = *early;
        walk.start_over(early.guard.id());
        (early, walk)
    } else {
        let mut walk = Walk::new(upstreams, settings);
        (dial(client, &flight, &mut walk).await?, walk)
    };
    match flight {
        Flight::Hello(hello) => {
            let Winner { upstream, hedged } =
                contenders::first_to_answer(client, &hello, first, &mut walk).await?;
            Ok(Opened {
                upstream,
                unsent: Bytes::new(),
                sent: hello.len() as u64,
                answered: true,
                hedged,
            })
        }
        Flight::Other(unsent) => Ok(Opened {
            upstream: first,
            unsent,
            sent: 0,
            answered: false,
            hedged: false,
        }),
    }
}

async fn told_to_end(silent: Option<&SilentClient>) -> Ending {
    match silent {
        Some(silent) => silent.close_signal.ended().await,
        None => pending().await,
    }
}

/// Reads the client's first flight. Where no upstream is expected to answer, one must connect before that: it is boxed,
/// because all opens are as large as the largest.
async fn hear(
    client: &TcpStream,
    heard: &mut Heard,
    upstreams: &Arc<Upstreams>,
    settings: &Settings,
) -> Result<(Option<Box<(Connected, Walk)>>, Flight), Ending> {
    let early = if upstreams.expects_answers() {
        None
    } else {
        let mut walk = Walk::new(upstreams, settings);
        let first = walk.next(&[]).await.ok_or(Ending::NoUpstream)?;
        Some(Box::new((first, walk)))
    };
    Ok((early, first_flight::read(client, heard, upstreams.clock()).await?))
}

/// Dials the first upstream, for as long as the client of a handshake stays. Any other client may have half-closed.
async fn dial(client: &TcpStream, flight: &Flight, walk: &mut Walk) -> Result<Connected, Ending> {
    let next = match flight {
        Flight::Hello(_) => tokio::select! {
            biased;
            next = walk.next(&[]) => next,
            () = first_flight::gone(client) => return Err(Ending::ClientLeft),
        },
        Flight::Other(_) => walk.next(&[]).await,
    };
    next.ok_or(Ending::NoUpstream)
}
