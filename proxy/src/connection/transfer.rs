//! Connections on their way to another process of this node, which goes on with them.
//!
//! The task of a connection stops where it is, takes its sockets from the event loop, and waits for the verdict. Until then
//! nobody reads or writes on them. A task whose connection was not taken goes on with it.

use std::{
    io, net,
    net::SocketAddr,
    sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::TcpStream,
    sync::{Mutex, MutexGuard, Notify, mpsc, oneshot},
};

use crate::{balance::PathKey, relay::PairState};

/// What is given of a connection besides its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passport {
    /// Where the client comes from.
    pub client: SocketAddr,
    /// The listener that accepted it.
    pub listener: SocketAddr,
    /// How long ago it was accepted.
    pub age: Duration,
    /// How far it is.
    pub progress: Progress,
}

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No upstream has answered. The next process opens it anew.
    Opening {
        /// What the client has said so far.
        heard: Bytes,
    },
    /// It is relayed.
    Established {
        /// The upstream.
        upstream: Given,
        /// Where the relay stopped.
        pair: PairState,
    },
}

/// The upstream that a client was given to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The member and its address.
    pub path: PathKey,
    /// How long the client waited for its first byte; none if that is not known.
    pub first_byte: Option<Duration>,
    /// Whether its first flight was sent to more than one upstream.
    pub hedged: bool,
    /// The time left to the connections of its member, if that drains.
    pub drains_within: Option<Duration>,
}

/// The sockets of a connection, out of the event loop. They close with the last holder.
#[derive(Debug)]
pub struct Sockets {
    /// The client's.
    pub client: net::TcpStream,
    /// The upstream's; none while the connection is opened.
    pub upstream: Option<net::TcpStream>,
}

impl Sockets {
    /// Takes the sockets from the event loop. The kernel keeps a registration for as long as any process has the socket
    /// open, so that one of a socket that was given would be reported here for ever.
    pub fn take(client: TcpStream, upstream: Option<TcpStream>) -> io::Result<Self> {
        Ok(Self {
            client: client.into_std()?,
            upstream: upstream.map(TcpStream::into_std).transpose()?,
        })
    }

    /// Brings them back into the event loop.
    pub fn restore(self) -> io::Result<(TcpStream, Option<TcpStream>)> {
        Ok((
            TcpStream::from_std(self.client)?,
            self.upstream.map(TcpStream::from_std).transpose()?,
        ))
    }
}

/// A connection on its way. If it is dropped without a word it was not taken, and its task goes on with it.
#[derive(Debug)]
pub struct Transfer {
    /// What it is.
    pub passport: Passport,
    // Before the verdict, so that the task that learns of it is the only holder.
    sockets: Arc<Sockets>,
    verdict: oneshot::Sender<()>,
}

impl Transfer {
    /// Its sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Another process goes on with it.
    pub fn taken(self) {
        let Self { sockets, verdict, .. } = self;
        drop(sockets);
        // A task that was aborted has closed its sockets.
        let _aborted = verdict.send(());
    }
}

/// What has become of a connection that was to be given.
#[derive(Debug)]
pub enum Verdict {
    /// Another process has it.
    Taken,
    /// It was not taken: this process goes on with it.
    Kept(Sockets),
}

/// Where connections go when this process gives them, if it does.
#[derive(Debug, Default)]
pub struct Transfers {
    way: StdMutex<Option<mpsc::Sender<Transfer>>>,
    /// Each client that is being opened waits for it, so it must cost next to nothing.
    begun: Notify,
    turn: Mutex<()>,
}

/// The end of the way: connections arrive here until it is dropped.
#[derive(Debug)]
pub struct Departures<'a> {
    arrivals: mpsc::Receiver<Transfer>,
    transfers: &'a Transfers,
    _turn: MutexGuard<'a, ()>,
}

impl Transfers {
    /// From now on connections can be given, at most `waiting` of them at once. One giver waits for another.
    pub async fn begin(&self, waiting: usize) -> Departures<'_> {
        let turn = self.turn.lock().await;
        let (way, arrivals) = mpsc::channel(waiting);
        *self.way() = Some(way);
        self.begun.notify_waiters();
        Departures {
            arrivals,
            transfers: self,
            _turn: turn,
        }
    }

    /// Waits until connections are given. Those that are being opened go by themselves; established ones are asked.
    pub async fn begun(&self) {
        loop {
            // From here on it is told.
            let begun = self.begun.notified();
            if self.way().is_some() {
                return;
            }
            begun.await;
        }
    }

    /// Sends a connection on its way, and waits for what becomes of it.
    pub async fn give(&self, passport: Passport, sockets: Sockets) -> Verdict {
        let sockets = Arc::new(sockets);
        let (verdict, told) = oneshot::channel();
        let transfer = Transfer {
            passport,
            sockets: Arc::clone(&sockets),
            verdict,
        };
        let way = self.way().clone();
        if let Some(way) = way {
            // One that cannot be sent is dropped.
            let _closed = way.send(transfer).await;
        } else {
            drop(transfer);
        }
        match (told.await, Arc::into_inner(sockets)) {
            (Err(_kept), Some(sockets)) => Verdict::Kept(sockets),
            (Ok(()), _) | (Err(_), None) => Verdict::Taken,
        }
    }

    fn way(&self) -> StdMutexGuard<'_, Option<mpsc::Sender<Transfer>>> {
        // A panic while the lock is held leaves a valid value.
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departures<'_> {
    /// The next connection on its way, if there is one now.
    pub fn next_now(&mut self) -> Option<Transfer> {
        self.arrivals.try_recv().ok()
    }
}

impl Drop for Departures<'_> {
    fn drop(&mut self) {
        *self.transfers.way() = None;
    }
}
