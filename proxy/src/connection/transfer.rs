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
    /// The name of that listener if it is an extra one. The address alone would not do: the process that takes the connection
    /// may follow a document without the listener, and must not take its clients for those of the apiservers.
    pub extra_listener: Option<String>,
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
    way: StdMutex<Option<Way>>,
    /// Each client that is being opened waits for it, so it must cost next to nothing.
    begun: Notify,
    turn: Mutex<()>,
}

/// A way to another process.
#[derive(Clone, Debug)]
struct Way {
    transfers: mpsc::Sender<Transfer>,
    /// Whether it tells the connections of extra listeners from those of the apiservers. One that does not gets none of them.
    knows_extras: bool,
}

impl Way {
    fn takes(&self, is_of_extra: bool) -> bool {
        self.knows_extras || !is_of_extra
    }
}

/// The end of the way: connections arrive here until it is dropped.
#[derive(Debug)]
pub struct Departures<'a> {
    arrivals: mpsc::Receiver<Transfer>,
    transfers: &'a Transfers,
    _turn: MutexGuard<'a, ()>,
}

impl Transfers {
    /// From now on connections can be given, at most `waiting` of them at once, to a process that `knows_extras` also those of
    /// extra listeners. One giver waits for another.
    pub async fn begin(&self, waiting: usize, knows_extras: bool) -> Departures<'_> {
        let turn = self.turn.lock().await;
        let (transfers, arrivals) = mpsc::channel(waiting);
        *self.way() = Some(Way {
            transfers,
            knows_extras,
        });
        self.begun.notify_waiters();
        Departures {
            arrivals,
            transfers: self,
            _turn: turn,
        }
    }

    /// Waits until connections are given, to a process that takes such. Those that are being opened go by themselves;
    /// established ones are asked.
    pub async fn begun(&self, is_of_extra: bool) {
        loop {
            // From here on it is told.
            let begun = self.begun.notified();
            if self.way().as_ref().is_some_and(|way| way.takes(is_of_extra)) {
                return;
            }
            begun.await;
        }
    }

    /// Sends a connection on its way, and waits for what becomes of it.
    pub async fn give(&self, passport: Passport, sockets: Sockets) -> Verdict {
        let sockets = Arc::new(sockets);
        let (verdict, told) = oneshot::channel();
        let is_of_extra = passport.extra_listener.is_some();
        let transfer = Transfer {
            passport,
            sockets: Arc::clone(&sockets),
            verdict,
        };
        let way = self.way().clone();
        if let Some(way) = way.filter(|way| way.takes(is_of_extra)) {
            // One that cannot be sent is dropped.
            let _closed = way.transfers.send(transfer).await;
        } else {
            drop(transfer);
        }
        match (told.await, Arc::into_inner(sockets)) {
            (Err(_kept), Some(sockets)) => Verdict::Kept(sockets),
            (Ok(()), _) | (Err(_), None) => Verdict::Taken,
        }
    }

    fn way(&self) -> StdMutexGuard<'_, Option<Way>> {
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::task::yield_now;

    use super::*;

    fn sockets() -> Sockets {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets {
            client: net::TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            upstream: None,
        }
    }

    fn of_extra() -> Passport {
        Passport {
            client: "127.0.0.1:40001".parse().unwrap(),
            listener: "127.0.0.1:18132".parse().unwrap(),
            extra_listener: Some("konnectivity".to_owned()),
            age: Duration::ZERO,
            progress: Progress::Opening { heard: Bytes::new() },
        }
    }

    #[tokio::test]
    async fn a_process_that_knows_no_extra_listeners_is_given_none_of_their_connections() {
        let transfers = Transfers::default();
        let mut departures = transfers.begin(1, false).await;
        assert!(transfers.begun(true).now_or_never().is_none());
        assert!(transfers.begun(false).now_or_never().is_some());
        let verdict = transfers.give(of_extra(), sockets()).await;
        assert!(matches!(verdict, Verdict::Kept(_)), "{verdict:?}");
        assert!(departures.next_now().is_none());
        drop(departures);
        let mut departures = transfers.begin(1, true).await;
        assert!(transfers.begun(true).now_or_never().is_some());
        let take = async {
            loop {
                match departures.next_now() {
                    Some(transfer) => break transfer.taken(),
                    None => yield_now().await,
                }
            }
        };
        let (verdict, ()) = tokio::join!(transfers.give(of_extra(), sockets()), take);
        assert!(matches!(verdict, Verdict::Taken), "{verdict:?}");
    }
}
