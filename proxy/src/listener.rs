//! Listeners: the local addresses on which the proxy accepts. Each address has one task, which binds it, accepts on it,
//! and tries to bind it again for as long as the document names it.

pub mod slots;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use self::slots::Slots;
use crate::{
    connection::{self, Accepted},
    ending::Ending,
    metrics::Metrics,
    net::socket::{self, Fault, Listening},
    relay::TailBudget,
    upstream::Upstreams,
};

/// How soon a taken port is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// How long accepting pauses when this process has no file left. A busy loop would take a CPU; a longer pause would delay
/// the first client once there are files again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listeners of this proxy.
#[derive(Debug)]
pub struct Listeners {
    upstreams: Arc<Upstreams>,
    metrics: Arc<Metrics>,
    wanted: Mutex<HashMap<SocketAddr, CancellationToken>>,
    bound: Arc<Mutex<Vec<SocketAddr>>>,
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
    bound: Arc<Mutex<Vec<SocketAddr>>>,
    connections: TaskTracker,
    slots: Arc<Slots>,
    tails: Arc<TailBudget>,
}

impl Listeners {
    /// No listeners yet.
    pub fn new(upstreams: Arc<Upstreams>) -> Self {
        Self {
            metrics: Arc::clone(upstreams.metrics()),
            upstreams,
            wanted: Mutex::default(),
            bound: Arc::default(),
            accepting: TaskTracker::new(),
            connections: TaskTracker::new(),
            slots: Arc::default(),
            tails: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Listens on exactly these addresses from now on, and holds at most `limit` connections. An address that stays
    /// keeps its socket. Connections of a removed address go on.
    pub fn apply(&self, addresses: &[SocketAddr], limit: u32) {
        self.slots.set_limit(limit);
        let mut wanted = self.wanted();
        wanted.retain(|address, stop| {
            let stays = addresses.contains(address);
            if !stays {
                info!(%address, "listener no longer wanted");
                stop.cancel();
            }
            stays
        });
        for address in addresses {
            wanted.entry(*address).or_insert_with(|| self.start(*address));
        }
    }

    /// The addresses on which the proxy accepts now.
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether every wanted address still has its task. A task that panicked is not restarted.
    pub fn alive(&self) -> bool {
        self.accepting.len() >= self.wanted().len()
    }

    /// Stops accepting. Connections go on.
    pub async fn close(&self) {
        self.wanted().clear();
        self.stop.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        self.connections.close();
    }

    /// Waits, after [`Listeners::close`], until the last connection has ended. Clients that have said nothing `within`
    /// this time are ended.
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
            bound: Arc::clone(&self.bound),
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

/// Records that an address is bound until this is dropped, also when the accept loop panics.
struct Bound<'a>(&'a Acceptor);

impl<'a> Bound<'a> {
    fn new(acceptor: &'a Acceptor) -> Self {
        acceptor.bound().push(acceptor.address);
        acceptor.metrics.listener(&acceptor.address.to_string(), true);
        Self(acceptor)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.0.bound().retain(|address| *address != self.0.address);
    }
}

impl Acceptor {
    async fn run(self, stop: CancellationToken) {
        self.listen(&stop).await;
        self.metrics.listener_gone(&self.address.to_string());
    }

    async fn listen(&self, stop: &CancellationToken) {
        let Some(listener) = stop.run_until_cancelled(self.bind()).await else {
            return;
        };
        let _bound = Bound::new(self);
        info!(address = %self.address, "listening");
        stop.run_until_cancelled(self.accept(&listener)).await;
        if let Err(error) = self.accept_queued(listener) {
            debug!(address = %self.address, %error, "failed to accept the last clients");
        }
    }

    /// Accepts the clients that the kernel has queued: they would be reset when the socket closes. This asks the kernel
    /// directly, because tokio may not know of the latest yet.
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
        let mut said = None;
        loop {
            let error = match socket::listen(self.address) {
                Ok(Listening { socket, shared }) => {
                    if shared {
                        warn!(address = %self.address, "sharing the port with another proxy of this node until it ends");
                    }
                    return socket;
                }
                Err(error) => error,
            };
            self.metrics.listener(&self.address.to_string(), false);
            if said != Some(error.kind()) {
                said = Some(error.kind());
                self.explain(&error);
            }
            sleep(BIND_AGAIN).await;
        }
    }

    fn explain(&self, error: &io::Error) {
        let address = self.address;
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => {
                info!(%address, %error, "skipping a listener whose address this node lacks");
            }
            Some(Errno::EADDRINUSE) => {
                warn!(%address, "another process listens on this pool's port; trying again until it is free");
            }
            Some(_) | None => warn!(%address, %error, "failed to listen; trying again"),
        }
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

    fn bound(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
