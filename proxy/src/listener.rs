//! Listeners: the local addresses on which the proxy accepts. Each address has one task, which binds it, accepts on it,
//! and tries to bind it again for as long as the document names it.

pub mod holding;
mod refusals;
pub mod slots;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use self::{
    holding::{Holding, Holdings},
    refusals::Refusals,
    slots::Slots,
};
use crate::{
    connection::{self, Accepted},
    ending::Ending,
    metrics::Metrics,
    net::{
        port_holders::{self, Holder, Socket},
        socket::{self, Fault},
    },
    relay::TailBudget,
    systemd::sockets::PassedSockets,
    upstream::Upstreams,
};

/// The pause between two attempts to bind a taken port.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// The pause between two checks whether another program has bound the same port later (`SO_REUSEPORT`).
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// How long the accept loop pauses when this process has no file descriptor left. A busy loop would take a CPU; a longer
/// pause would delay the first client once there are file descriptors again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listeners of this proxy.
#[derive(Debug)]
pub struct Listeners {
    upstreams: Arc<Upstreams>,
    metrics: Arc<Metrics>,
    wanted: Mutex<HashMap<SocketAddr, CancellationToken>>,
    holdings: Arc<Mutex<Holdings>>,
    passed: PassedSockets,
    refusals: Refusals,
    accepting: TaskTracker,
    connections: TaskTracker,
    slots: Arc<Slots>,
    tails: Arc<TailBudget>,
    stop: CancellationToken,
}

/// What the task of one address needs.
#[derive(Clone, Debug)]
struct Acceptor {
    address: SocketAddr,
    upstreams: Arc<Upstreams>,
    metrics: Arc<Metrics>,
    holdings: Arc<Mutex<Holdings>>,
    passed: PassedSockets,
    connections: TaskTracker,
    slots: Arc<Slots>,
    tails: Arc<TailBudget>,
}

impl Listeners {
    /// No listeners yet. An address with a passed socket is not bound: the proxy accepts on the socket.
    pub fn new(upstreams: Arc<Upstreams>, passed: PassedSockets) -> Self {
        Self {
            refusals: Refusals::new(passed.clone()),
            passed,
            metrics: Arc::clone(upstreams.metrics()),
            upstreams,
            wanted: Mutex::default(),
            holdings: Arc::default(),
            accepting: TaskTracker::new(),
            connections: TaskTracker::new(),
            slots: Arc::default(),
            tails: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Listens on exactly these addresses from now on, and holds at most `limit` connections. An address that stays
    /// keeps its socket. Connections of a removed address stay open. `members_ports` are the ports on which members listen
    /// on this node: an address with such a port is not bound, because an apiserver that restarts could not bind it then.
    /// An address that is already bound, by systemd too, stays bound, because a document with a wrong port must not remove
    /// the node's listener. Clients of a passed socket with another address are reset.
    pub fn apply(&self, addresses: &[SocketAddr], members_ports: &BTreeSet<u16>, limit: u32) {
        self.slots.set_limit(limit);
        let bound = self.bound();
        let (refused, addresses): (BTreeSet<SocketAddr>, BTreeSet<_>) =
            addresses.iter().copied().partition(|address| {
                let is_bound = bound.contains(address) || self.passed.get(*address).is_some();
                members_ports.contains(&address.port()) && !is_bound
            });
        for address in &refused {
            warn!(%address, "not listening on a port on which a member listens on this node");
            self.metrics.listener(&address.to_string(), false);
        }
        lock(&self.holdings).set_members_ports(refused);
        let mut wanted = self.wanted();
        wanted.retain(|address, stop| {
            let stays = addresses.contains(address);
            if !stays {
                info!(%address, "closing a listener that the document no longer names");
                stop.cancel();
            }
            stays
        });
        self.refusals.all_but(&addresses);
        for address in addresses {
            wanted.entry(address).or_insert_with(|| self.start(address));
        }
    }

    /// Resets the clients of all passed sockets while there is no document.
    pub fn refuse_passed(&self) {
        self.refusals.all_but(&BTreeSet::new());
    }

    /// The addresses on which the proxy accepts now.
    pub fn bound(&self) -> Vec<SocketAddr> {
        let holdings = self.holdings().into_iter();
        let bound = holdings.filter(|(_, holding)| holding.is_bound());
        bound.map(|(address, _)| address).collect()
    }

    /// The state of each listener address.
    pub fn holdings(&self) -> BTreeMap<SocketAddr, Holding> {
        lock(&self.holdings).all()
    }

    /// Whether every wanted address still has its task. A task that panicked is not restarted.
    pub fn alive(&self) -> bool {
        self.accepting.len() >= self.wanted().len()
    }

    /// Stops accepting. Open connections stay.
    pub async fn close(&self) {
        self.refusals.stop();
        self.wanted().clear();
        self.stop.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        self.connections.close();
    }

    /// Waits, after [`Listeners::close`], until the last connection has ended. Clients that have sent nothing `within`
    /// this time are reset.
    pub async fn finished(&self, within: Duration) {
        tokio::select! {
            () = self.connections.wait() => return,
            () = sleep(within) => self.slots.end_silent(Ending::ProxyDrained),
        }
        self.connections.wait().await;
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The most connections that are held at once; 0 before the first document.
    pub fn limit(&self) -> u32 {
        self.slots.limit()
    }

    fn start(&self, address: SocketAddr) -> CancellationToken {
        let stop = self.stop.child_token();
        let acceptor = Acceptor {
            address,
            upstreams: Arc::clone(&self.upstreams),
            metrics: Arc::clone(&self.metrics),
            holdings: Arc::clone(&self.holdings),
            passed: self.passed.clone(),
            connections: self.connections.clone(),
            slots: Arc::clone(&self.slots),
            tails: Arc::clone(&self.tails),
        };
        self.accepting.spawn(acceptor.run(stop.clone()));
        stop
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<SocketAddr, CancellationToken>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic while the lock is held leaves the entries valid.
fn lock(holdings: &Mutex<Holdings>) -> MutexGuard<'_, Holdings> {
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
            metrics,
            holdings,
            ..
        } = self.0;
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
    async fn run(self, stop: CancellationToken) {
        let _attendance = Attendance::new(&self);
        self.listen(&stop).await;
    }

    async fn listen(&self, stop: &CancellationToken) {
        let Some(listener) = stop.run_until_cancelled(self.bind()).await else {
            return;
        };
        self.set(Holding::Held);
        let accepting = async {
            tokio::join!(self.accept(&listener), self.look_around(listener.as_raw_fd()));
        };
        stop.run_until_cancelled(accepting).await;
        if self.passed.get(self.address).is_some() {
            // The socket outlives this process, and the clients in its queue wait for the next one.
            return;
        }
        if let Err(error) = self.accept_queued(listener) {
            debug!(address = %self.address, %error, "failed to accept the last clients");
        }
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
        self.metrics.listener(&listener, holding.is_bound());
        for stranger in before.strangers() {
            self.metrics.stranger_gone(&listener, stranger.name());
        }
        for stranger in holding.strangers() {
            self.metrics.stranger(&listener, stranger.name());
        }
        match (&holding, holding.fault()) {
            (Holding::Held, _) => info!(address = listener, "listening"),
            (_, Some(fault)) => warn!(address = listener, fault, "listener has a fault"),
            (_, None) => info!(
                address = listener,
                "skipping a listener whose address this node lacks"
            ),
        }
    }

    /// Accepts the clients that the kernel has queued: they would be reset when the socket closes. This calls `accept`
    /// directly, because tokio may not have seen the event of the latest client yet.
    fn accept_queued(&self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((client, peer)) => {
                    client.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(client)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        let mut exhausted = false;
        loop {
            match listener.accept().await {
                Ok((client, peer)) => {
                    exhausted = false;
                    self.admit(client, peer);
                }
                // The client left before it was accepted: accepting works.
                Err(error) if Fault::of(&error) == Fault::Reset => {}
                Err(error) => {
                    self.metrics.accept_failed();
                    if !std::mem::replace(&mut exhausted, true) {
                        warn!(address = %self.address, %error, "failed to accept, pausing until it works again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn bind(&self) -> TcpListener {
        let mut others = Others::default();
        loop {
            match self.try_bind(&mut others).await {
                Ok(listener) => return listener,
                Err(holding) => self.set(holding),
            }
            sleep(BIND_AGAIN).await;
        }
    }

    /// Binds the address. If other sockets listen on it, it is shared only if none of them is known to be of another program.
    async fn try_bind(&self, others: &mut Others) -> Result<TcpListener, Holding> {
        let address = self.address;
        if let Some(passed) = self.passed.get(address) {
            return passed.open().map_err(|error| fault_of(&error));
        }
        if !socket::is_free(address).map_err(|error| fault_of(&error))? {
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
            return Ok(listener);
        }
        socket::listen(address).map_err(|error| fault_of(&error))
    }

    fn admit(&self, client: TcpStream, peer: SocketAddr) {
        if self.address.ip().is_loopback() && !peer.ip().to_canonical().is_loopback() {
            debug!(%peer, "dropped a client that is not on this node");
            return self.turn_away(&client, Ending::NotLoopback);
        }
        let Some(silent) = self.slots.admit(self.connections.len()) else {
            debug!(%peer, limit = self.slots.limit(), "shed a client: too many connections");
            return self.turn_away(&client, Ending::Shed);
        };
        let accepted = Accepted {
            client,
            peer,
            listener: self.address,
            silent,
            tails: Arc::clone(&self.tails),
        };
        self.connections
            .spawn(connection::serve(accepted, Arc::clone(&self.upstreams)));
    }

    fn turn_away(&self, client: &TcpStream, ending: Ending) {
        socket::reset_on_close(client);
        self.metrics.ended(ending);
    }
}

fn fault_of(error: &io::Error) -> Holding {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => Holding::Lacking,
        Some(Errno::EADDRINUSE) => Holding::Taken(Vec::new()),
        Some(_) | None => Holding::Failed(format!("failed to listen: {error}")),
    }
}
