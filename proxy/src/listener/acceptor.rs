//! The task of one listener address: it gets a socket, accepts on it, and looks who else listens there.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    ACCEPT_PAUSE,
    extras::Extras,
    holding::{Holding, Holdings},
    routes::Routes,
    slots::Slots,
    sockets::{Part, Sockets},
};
use crate::{
    connection::{
        self, Accepted, Established, Record, Shared,
        transfer::{Passport, Progress},
    },
    ending::Ending,
    handover::lent::{self, LentListener},
    metrics::Metrics,
    net::{
        port_holders::{self, Holder, Socket},
        socket::{self, Fault},
        spare,
    },
    systemd::sockets::PassedSockets,
};

/// The pause between two attempts to bind a taken port.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// The pause between two checks whether another program has bound the same port later (`SO_REUSEPORT`).
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// What the task of an address needs.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    pub(super) address: SocketAddr,
    /// Whether other processes may have the socket, so that it must be ended for all of them.
    pub(super) hands_over: bool,
    /// Cancelled when the whole process ends.
    pub(super) end: CancellationToken,
    pub(super) passed: PassedSockets,
    pub(super) sockets: Arc<Sockets>,
    pub(super) holdings: Arc<Mutex<Holdings>>,
    pub(super) clients: Clients,
}

/// Where accepted clients go.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: TaskTracker,
    pub(super) slots: Arc<Slots>,
    /// What the connections of the apiservers' clients share.
    pub(super) shared: Arc<Shared>,
    pub(super) extras: Arc<Extras>,
    pub(super) routes: Arc<Routes>,
}

/// A panic while the lock is held leaves the entries valid.
pub(super) fn lock(holdings: &Mutex<Holdings>) -> MutexGuard<'_, Holdings> {
    holdings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the entry and the metrics of an address while its task runs. Its drop removes them, also when the accept loop
/// panics.
struct Attendance<'a>(&'a Acceptor);

impl<'a> Attendance<'a> {
    fn new(acceptor: &'a Acceptor) -> Self {
        lock(&acceptor.holdings).set(acceptor.address, Holding::Pending);
        Self(acceptor)
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        let Acceptor {
            address,
            holdings,
            clients,
            ..
        } = self.0;
        clients.routes.forget(*address);
        let metrics = &clients.metrics;
        let (before, is_members_port) = {
            let mut holdings = lock(holdings);
            (holdings.remove(*address), holdings.is_members_port(*address))
        };
        let listener = address.to_string();
        for stranger in before.iter().flat_map(Holding::strangers) {
            metrics.stranger_gone(&listener, stranger.name());
        }
        if !is_members_port {
            metrics.listener_gone(&listener);
        }
    }
}

/// The other processes that listen on an address, as the last look found them.
#[derive(Debug, Default)]
struct Others {
    sockets: BTreeSet<Socket>,
    holders: Vec<Holder>,
}

impl Others {
    /// Looks again. It searches the files of all processes only if the set of listening sockets has changed.
    async fn look(&mut self, address: SocketAddr, own: Option<RawFd>) -> &[Holder] {
        let known = self.sockets.clone();
        let looked = spawn_blocking(move || {
            let sockets = port_holders::sockets(address, own.as_ref());
            (sockets != known).then(|| (port_holders::holders(&sockets), sockets))
        });
        // After a panic the last result stays.
        if let Ok(Some((holders, sockets))) = looked.await {
            *self = Self { sockets, holders };
        }
        &self.holders
    }
}

impl Acceptor {
    /// Attends to the address until `stop`. The socket is closed then, unless the whole process ends.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _attendance = Attendance::new(&self);
        let changes = self.sockets.changes();
        tokio::select! {
            // First, because it would bind the address once more.
            biased;
            () = stop.cancelled() => {}
            never = self.attend(changes) => match never {},
        }
        if !self.end.is_cancelled() {
            self.close();
        }
    }

    fn close(&self) {
        let Some(socket) = self.sockets.remove(self.address) else {
            return;
        };
        let is_own = self.sockets.part() == Part::Serve && self.passed.get(self.address).is_none();
        if is_own {
            self.clients.admit_last(&socket);
            if self.hands_over {
                end(&socket);
            }
        }
    }

    /// Does what its part says with the socket that it has, until that changes.
    async fn attend(&self, mut changes: watch::Receiver<u64>) -> Infallible {
        let mut others = Others::default();
        loop {
            changes.mark_unchanged();
            let (part, socket) = (self.sockets.part(), self.sockets.get(self.address));
            let work = async {
                match (&socket, part) {
                    (Some(socket), Part::Assist | Part::Serve) => return self.serve(socket).await,
                    (None, Part::Serve) => return self.bind(&mut others).await,
                    (Some(_), Part::StandBy) => self.set(Holding::Lent),
                    (None, Part::StandBy | Part::Assist) => self.set(Holding::Pending),
                }
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = self.change(&mut changes, part, socket.as_ref()) => {}
                () = work => {}
            }
        }
    }

    /// Waits until the part or the socket is another.
    async fn change(
        &self,
        changes: &mut watch::Receiver<u64>,
        part: Part,
        socket: Option<&Arc<LentListener>>,
    ) {
        while self.sockets.part() == part && self.is_still(socket) {
            if changes.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    fn is_still(&self, socket: Option<&Arc<LentListener>>) -> bool {
        match (socket, self.sockets.get(self.address)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, &now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    async fn serve(&self, socket: &Arc<LentListener>) {
        match socket.accept() {
            Ok(listener) => {
                self.set(Holding::Held);
                tokio::select! {
                    () = self.accept(&listener) => {}
                    () = self.look_around(socket.as_raw_fd()) => {}
                }
            }
            Err(error) => self.set(fault_of(&error)),
        }
        // Another process has ended the socket, or this one has no file left for it.
        if !socket.is_listening().unwrap_or(true) {
            self.sockets.remove_this(socket);
        }
        sleep(ACCEPT_PAUSE).await;
    }

    /// Checks periodically, without end, whether another program shares the port and so gets a part of the clients.
    async fn look_around(&self, own: RawFd) {
        let mut others = Others::default();
        loop {
            sleep(LOOK_AROUND).await;
            let holders = others.look(self.address, Some(own)).await;
            let strangers: Vec<_> = holders.iter().filter(|holder| holder.is_stranger()).collect();
            self.set(if strangers.is_empty() {
                Holding::Held
            } else {
                Holding::Contested(strangers.into_iter().cloned().collect())
            });
        }
    }

    /// Sets the state of the address. A change is logged and counted.
    fn set(&self, holding: Holding) {
        let Some(before) = lock(&self.holdings).set(self.address, holding.clone()) else {
            return;
        };
        let listener = self.address.to_string();
        let metrics = &self.clients.metrics;
        metrics.listener(&listener, holding.is_bound());
        metrics.listener_fault(&listener, holding.fault().is_some());
        for stranger in before.strangers() {
            metrics.stranger_gone(&listener, stranger.name());
        }
        for stranger in holding.strangers() {
            metrics.stranger(&listener, stranger.name());
        }
        match (&holding, holding.fault()) {
            (Holding::Held, _) => info!(address = listener, "listening"),
            (Holding::Lent, _) => info!(
                address = listener,
                "holding a listener on which another process accepts"
            ),
            (_, Some(fault)) => warn!(address = listener, fault, "listener has a fault"),
            (_, None) => info!(
                address = listener,
                "skipping a listener whose address this node lacks"
            ),
        }
    }

    /// Accepts until another process ends the socket.
    async fn accept(&self, listener: &TcpListener) {
        let mut exhausted = false;
        loop {
            let accepted = if spare::fill() {
                listener.accept().await
            } else {
                // A client that is accepted with the last file could not be served.
                Err(Errno::EMFILE.into())
            };
            match accepted {
                Ok((client, peer)) => {
                    exhausted = false;
                    self.admit(client, peer);
                }
                // The client left before it was accepted: accepting works.
                Err(error) if Fault::of(&error) == Fault::Reset => {}
                Err(error) if lent::is_ended(&error) => return,
                Err(error) => {
                    self.clients.metrics.accept_failed();
                    if spare::is_exhausted(&error) {
                        self.sockets.note_exhausted();
                    }
                    if !std::mem::replace(&mut exhausted, true) {
                        warn!(address = %self.address, %error, "failed to accept, pausing until it works again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Binds the address, and holds the socket then.
    async fn bind(&self, others: &mut Others) {
        loop {
            match self.try_bind(others).await {
                Ok(socket) => return self.sockets.add(socket),
                Err(holding) => self.set(holding),
            }
            sleep(BIND_AGAIN).await;
        }
    }

    /// Binds the address. If other sockets listen on it, it is shared only if none of them is known to be of another
    /// program: a release without hand-over shares it.
    async fn try_bind(&self, others: &mut Others) -> Result<LentListener, Holding> {
        let address = self.address;
        let bound = if let Some(passed) = self.passed.get(address) {
            passed.open()
        } else if socket::is_free(address).map_err(|error| fault_of(&error))? {
            if self.sockets.is_shared() {
                socket::listen(address)
            } else {
                socket::listen_alone(address)
            }
        } else {
            let holders = others.look(address, None).await.to_vec();
            if holders.iter().any(Holder::is_stranger) {
                return Err(Holding::Taken(holders));
            }
            let listener = socket::listen(address).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Holding::Taken(holders.clone()),
                _ => fault_of(&error),
            })?;
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            warn!(%address, ?holders, "sharing the port with another proxy of this node until it ends");
            Ok(listener)
        };
        bound
            .and_then(LentListener::keep)
            .map_err(|error| fault_of(&error))
    }

    fn admit(&self, client: TcpStream, peer: SocketAddr) {
        self.clients.admit(client, peer, self.address);
    }
}

impl Clients {
    /// Accepts the clients that the kernel has queued: they would be reset when the socket closes.
    pub(super) fn admit_last(&self, socket: &LentListener) {
        if let Err(error) = self.admit_queued(socket) {
            debug!(address = %socket.address(), %error, "failed to accept the last clients");
        }
    }

    /// This calls `accept` directly, because tokio may not have seen the event of the latest client yet.
    fn admit_queued(&self, socket: &LentListener) -> io::Result<()> {
        let listener = socket.accept()?.into_std()?;
        loop {
            match listener.accept() {
                Ok((client, peer)) => {
                    client.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(client)?, peer, socket.address());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Serves a client, unless it is not on this node or no slot is free.
    pub(super) fn admit(&self, client: TcpStream, peer: SocketAddr, listener: SocketAddr) {
        if listener.ip().is_loopback() && !peer.ip().to_canonical().is_loopback() {
            debug!(%peer, "dropped a client that is not on this node");
            return self.turn_away(&client, Ending::NotLoopback);
        }
        let Some(shared) = self.routes.of(listener) else {
            debug!(%peer, %listener, "reset a client of a listener that the document does not name");
            return self.turn_away(&client, Ending::NoUpstream);
        };
        let Some(silent) = self.slots.admit(self.connections.len()) else {
            debug!(%peer, limit = self.slots.limit(), "shed a client: too many connections");
            return self.turn_away(&client, Ending::Shed);
        };
        let accepted = Accepted {
            client,
            heard: Bytes::new(),
            silent,
            record: Record::new(peer, listener, Arc::clone(shared.upstreams.metrics())),
        };
        self.connections.spawn(connection::serve(accepted, shared));
    }

    /// Goes on with a connection that another process of this node had.
    pub(super) fn resume(&self, passport: &Passport, (client, upstream): (TcpStream, Option<TcpStream>)) {
        let shared = match &passport.extra_listener {
            None => Arc::clone(&self.shared),
            Some(name) => self.extras.adopt(name),
        };
        match (&passport.progress, upstream) {
            (Progress::Opening { heard }, _) => {
                let record = Record::resumed(passport, Arc::clone(shared.upstreams.metrics()));
                let Some(silent) = self.slots.admit(self.connections.len()) else {
                    return connection::refuse(&client, record, Ending::Shed);
                };
                let heard = heard.clone();
                let accepted = Accepted {
                    client,
                    heard,
                    silent,
                    record,
                };
                self.connections.spawn(connection::serve(accepted, shared));
            }
            (Progress::Established { .. }, Some(upstream)) => {
                if let Some(established) = Established::new(passport, (client, upstream), &shared) {
                    self.connections.spawn(connection::resume(established, shared));
                }
            }
            (Progress::Established { .. }, None) => {}
        }
    }

    fn turn_away(&self, client: &TcpStream, ending: Ending) {
        socket::reset_on_close(client);
        self.metrics.ended(ending);
    }
}

/// Ends a socket for every process that has it.
pub(super) fn end(socket: &LentListener) {
    if let Err(error) = socket.end() {
        debug!(address = %socket.address(), %error, "failed to end a listener");
    }
}

fn fault_of(error: &io::Error) -> Holding {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => Holding::Lacking,
        Some(Errno::EADDRINUSE) => Holding::Taken(Vec::new()),
        Some(_) | None => Holding::Failed(format!("failed to listen: {error}")),
    }
}
