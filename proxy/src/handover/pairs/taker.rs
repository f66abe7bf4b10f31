//! Takes the connections of another process of this node over.

use std::{io, net, os::fd::OwnedFd, sync::Arc};

use tokio::{net::TcpStream, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    PAUSE, batch,
    taking::{Event, Step, Taking},
};
use crate::{
    cause,
    connection::transfer::{Passport, Sockets},
    handover::{
        channel::{self, Channel, Received, Record},
        record::{Message, Pairs},
    },
    listener::Listeners,
};

/// Why connections were not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Batch(#[from] batch::Error),
    #[error(transparent)]
    Channel(#[from] channel::Error),
    #[error("failed to use a socket")]
    Socket(#[from] io::Error),
    #[error("this process holds {held} connections, and may hold {limit}")]
    NoRoom { held: usize, limit: u32 },
}

/// A connection whose sockets are in the event loop of this process.
type Arrived = (Passport, (TcpStream, Option<TcpStream>));

/// Goes on with what another process gives on this channel, of which this is the first record, until `stop`. The other process
/// goes on with what is not taken.
///
/// While it waits for a word about a batch this must not be dropped: the other process may be dead.
pub async fn take_all(channel: Channel, first: Record, listeners: Arc<Listeners>, stop: CancellationToken) {
    let mut received: Result<_, channel::Error> = Ok(Received::Record(first));
    let mut taken = 0;
    loop {
        let outcome = match received {
            Ok(Received::Record(record)) => take(&channel, record, &listeners).await,
            Ok(Received::End) => break,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(count) => taken += count,
            Err(error) => {
                let cause = cause::chain(&error);
                warn!(
                    cause,
                    "failed to take connections of another proxy of this node: it keeps them"
                );
                break;
            }
        }
        received = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            received = channel.receive() => received,
        };
    }
    info!(taken, "took connections of another proxy of this node");
}

/// Takes a batch, and says how many connections it had. Other records mean nothing here.
async fn take(channel: &Channel, record: Record, listeners: &Listeners) -> Result<usize, Error> {
    let Message::Pairs(pairs) = record.message else {
        return Ok(0);
    };
    let arrived = receive(&pairs, record.descriptors)?;
    let (count, held, limit) = (arrived.len(), listeners.connections(), listeners.limit());
    if held + count > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(Error::NoRoom { held, limit });
    }
    if !is_taken(channel, pairs.take).await? {
        return Ok(0);
    }
    for (passport, sockets) in arrived {
        listeners.resume(&passport, sockets);
    }
    Ok(count)
}

/// Brings the sockets of a batch into the event loop. Nothing is read from them or written.
fn receive(pairs: &Pairs, descriptors: Vec<OwnedFd>) -> Result<Vec<Arrived>, Error> {
    let mut descriptors = descriptors.into_iter();
    let present = descriptors.len().saturating_sub(1);
    let file = descriptors.next().ok_or(batch::Error::Sockets {
        announced: 0,
        present: 0,
    })?;
    let passports = batch::read(file, pairs.text, pairs.bytes)?;
    let announced = passports.iter().map(batch::sockets).sum();
    let mut arrived = Vec::with_capacity(passports.len());
    for passport in passports {
        let mut next = || {
            let descriptor = descriptors.next();
            socket(descriptor.ok_or(batch::Error::Sockets { announced, present })?)
        };
        let client = next()?;
        let upstream = match batch::sockets(&passport) {
            1 => None,
            _ => Some(next()?),
        };
        arrived.push((passport, Sockets { client, upstream }.restore()?));
    }
    if descriptors.next().is_some() {
        return Err(batch::Error::Sockets { announced, present }.into());
    }
    Ok(arrived)
}

/// The socket of a descriptor. Those of a proxy do not block; what does would stop this process.
fn socket(descriptor: OwnedFd) -> Result<net::TcpStream, Error> {
    let socket = net::TcpStream::from(descriptor);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Says that this process takes the batch with this number, and whether it does.
async fn is_taken(channel: &Channel, number: u64) -> Result<bool, Error> {
    let taking = Taking::new(number);
    let mut event = match channel.send(&Message::Taken { take: number }, &[]) {
        Ok(()) => Event::Confirmed,
        Err(channel::Error::Closed) => Event::Unconfirmed,
        // Nothing was sent, and the end of the channel will say so.
        Err(error) => return Err(error.into()),
    };
    loop {
        match taking.observe(event) {
            Step::Serve => return Ok(true),
            Step::Drop => return Ok(false),
            Step::Wait => event = next(channel).await,
        }
    }
}

/// What a giver says that reads no more.
async fn next(channel: &Channel) -> Event {
    loop {
        match channel.receive().await {
            Ok(Received::Record(record)) => {
                if let Message::Abort { take, .. } = record.message {
                    return Event::Aborted(take);
                }
            }
            Ok(Received::End) | Err(channel::Error::Closed) => return Event::Closed,
            // A call that fails says nothing of the giver, and a record that cannot be read is no `Abort`.
            Err(error) => {
                debug!(%error, "failed to read from another proxy of this node, trying again");
                sleep(PAUSE).await;
            }
        }
    }
}
