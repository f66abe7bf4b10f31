//! Listeners: the local addresses on which the proxy accepts. Each address has one task, which binds it or takes the socket
//! that another process lends, and accepts on it while this process serves.

mod acceptor;
pub mod extras;
pub mod holding;
mod refusals;
mod routes;
pub mod slots;
pub mod sockets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use trivet_crds::wire::Listener;

use self::{
    acceptor::{Acceptor, Clients, end, lock},
    extras::Extras,
    holding::{Holding, Holdings},
    refusals::Refusals,
    routes::Routes,
    sockets::{Part, Sockets},
};
use crate::{
    connection::{
        Shared,
        transfer::{Passport, Transfers},
    },
    ending::Ending,
    handover::{lent::LentListener, record},
    metrics::Metrics,
    net::socket,
    systemd::sockets::PassedSockets,
    upstream::Upstreams,
};

/// How long an accept loop pauses when this process has no file descriptor left. A busy loop would take a CPU; a longer
/// pause would delay the first client once there are file descriptors again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listeners of this proxy.
#[derive(Debug)]
pub struct Listeners {
    metrics: Arc<Metrics>,
    wanted: Mutex<HashMap<SocketAddr, CancellationToken>>,
    holdings: Arc<Mutex<Holdings>>,
    passed: PassedSockets,
    refusals: Refusals,
    sockets: Arc<Sockets>,
    /// Whether the sockets are handed over to other processes.
    hands_over: bool,
    accepting: TaskTracker,
    clients: Clients,
    stop: CancellationToken,
}

impl Listeners {
    /// No listeners yet. An address with a passed socket is not bound: the proxy accepts on the socket. A process that
    /// `hands_over` stands by until it is told otherwise; others serve at once.
    pub fn new(upstreams: Arc<Upstreams>, passed: PassedSockets, hands_over: bool) -> Self {
        let sockets = Arc::new(Sockets::default());
        if hands_over {
            sockets.play(Part::StandBy);
        } else {
            sockets.share(true);
        }
        let shared = Arc::new(Shared::new(Arc::clone(&upstreams)));
        Self {
            refusals: Refusals::new(passed.clone()),
            passed,
            metrics: Arc::clone(upstreams.metrics()),
            wanted: Mutex::default(),
            holdings: Arc::default(),
            sockets,
            hands_over,
            accepting: TaskTracker::new(),
            clients: Clients {
                metrics: Arc::clone(upstreams.metrics()),
                connections: TaskTracker::new(),
                slots: Arc::default(),
                extras: Arc::new(Extras::new(Arc::clone(&shared))),
                routes: Arc::new(Routes::new(Arc::clone(&shared))),
                shared,
            },
            stop: CancellationToken::new(),
        }
    }

    /// The sockets of the listeners.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// The addresses that the document names.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.wanted().keys().copied().collect()
    }

    /// The extra listeners.
    pub fn extras(&self) -> &Arc<Extras> {
        &self.clients.extras
    }

    /// What is said of the socket of this address to other processes of the node.
    pub fn record_of(&self, address: SocketAddr) -> record::Listener {
        self.clients.routes.record(address)
    }

    /// Holds exactly these sockets, which another process has lent for these listeners.
    pub fn hold(&self, listeners: &[record::Listener], sockets: Vec<LentListener>) {
        self.clients.routes.lend(listeners);
        self.sockets.replace(sockets);
    }

    /// The first address of the document at which clients reach the apiservers.
    pub fn of_apiservers(&self) -> Option<SocketAddr> {
        let mut addresses = self.addresses().into_iter();
        addresses.find(|address| self.is_of_apiservers(*address))
    }

    /// Whether clients of this address reach the apiservers.
    pub fn is_of_apiservers(&self, address: SocketAddr) -> bool {
        self.record_of(address).is_of_apiservers()
    }

    /// Whether systemd passed the socket of this address.
    pub fn is_passed(&self, address: SocketAddr) -> bool {
        self.passed.get(address).is_some()
    }

    /// Binds what is wanted and not held, as far as nobody listens there, and serves from now on. What cannot be bound is
    /// tried again every second.
    pub fn bind(&self) {
        for address in self.addresses() {
            let is_missing = self.sockets.get(address).is_none() && self.passed.get(address).is_none();
            if is_missing
                && !self.sockets.is_shared()
                && let Ok(socket) = socket::listen_alone(address).and_then(LentListener::keep)
            {
                self.sockets.add(socket);
            }
        }
        self.serve();
    }

    /// Accepts on the sockets that are held and wanted, and binds the others that are wanted.
    pub fn serve(&self) {
        self.sockets.play(Part::Serve);
        self.end_unwanted();
    }

    /// Ends the sockets that another process lent and that the document does not name: nobody would accept on them. Without
    /// a document nothing is known of that.
    fn end_unwanted(&self) {
        let wanted = self.addresses();
        if wanted.is_empty() || self.sockets.part() != Part::Serve {
            return;
        }
        // The task of an address that was wanted closes its socket itself.
        let attended = self.holdings();
        for (address, socket) in self.sockets.all() {
            if !wanted.contains(&address) && !attended.contains_key(&address) {
                info!(%address, "closing a listener that the document does not name");
                self.sockets.remove(address);
                self.clients.admit_last(&socket);
                end(&socket);
            }
        }
    }

    /// Listens on exactly the addresses of these listeners from now on, and holds at most `limit` connections. An address
    /// that stays keeps its socket. Connections of a removed address stay open. `members_ports` are the ports on which
    /// members listen on this node: an address with such a port is not bound, because an apiserver that restarts could not
    /// bind it then. An address that is already bound, by systemd too, stays bound, because a document with a wrong port
    /// must not remove the node's listener. Clients of a passed socket with another address are reset.
    ///
    /// The document must be applied to the [`Extras`] before.
    pub fn apply(&self, listeners: &[Listener], members_ports: &BTreeSet<u16>, limit: u32) {
        self.clients.slots.set_limit(limit);
        self.metrics.connection_limit(limit);
        let bound = self.bound();
        let attended = self.holdings().into_keys().collect();
        self.clients
            .routes
            .apply(listeners, &self.clients.extras, &attended);
        let (refused, addresses): (BTreeSet<SocketAddr>, BTreeSet<_>) =
            listeners.iter().flat_map(Listener::sockets).partition(|address| {
                let is_bound = bound.contains(address) || self.passed.get(*address).is_some();
                members_ports.contains(&address.port()) && !is_bound
            });
        for address in &refused {
            warn!(%address, "not listening on a port on which a member listens on this node");
            self.metrics.listener(&address.to_string(), false);
            self.metrics.listener_fault(&address.to_string(), true);
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
        drop(wanted);
        if self.hands_over {
            self.end_unwanted();
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

    /// Stops accepting. Open connections stay. Clients that wait to be accepted are accepted if this process `is_last`, and
    /// otherwise left to the one that goes on with the sockets.
    pub async fn close(&self, is_last: bool) {
        self.refusals.stop();
        self.wanted().clear();
        self.stop.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        if is_last {
            self.admit_waiting();
        }
        self.sockets.replace(Vec::new());
        self.clients.connections.close();
    }

    /// Accepts the clients that wait on sockets of which this process may have the last descriptor. A socket that systemd
    /// passed outlives this process: the clients in its queue wait for the next one.
    pub fn admit_waiting(&self) {
        for (address, socket) in self.sockets.all() {
            if self.passed.get(address).is_none() {
                self.clients.admit_last(&socket);
            }
        }
    }

    /// Where connections go when another process takes them.
    pub fn transfers(&self) -> &Transfers {
        &self.clients.shared.transfers
    }

    /// The upstreams of the apiservers' clients.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.clients.shared.upstreams
    }

    /// The upstreams of all clients, those of the apiservers' first.
    pub fn all_upstreams(&self) -> Vec<Arc<Upstreams>> {
        let apiservers = Arc::clone(self.upstreams());
        let extras = self.extras().upstreams().into_values();
        [apiservers].into_iter().chain(extras).collect()
    }

    /// Asks up to so many established connections to be handed over, of those of extra listeners only if `with_extras`.
    /// Returns how many are asked.
    pub fn ask_to_hand_over(&self, most: usize, with_extras: bool) -> usize {
        let all = self.all_upstreams().into_iter();
        let givable = all.filter(|upstreams| with_extras || upstreams.listener_name().is_none());
        givable.fold(0, |asked, upstreams| {
            asked + upstreams.ask_to_hand_over(most.saturating_sub(asked))
        })
    }

    /// Goes on with a connection that another process of this node had.
    pub fn resume(&self, passport: &Passport, sockets: (TcpStream, Option<TcpStream>)) {
        self.clients.resume(passport, sockets);
    }

    /// Serves clients of this process itself, on a port that nobody else knows, for as long as `until` takes with it. They
    /// count as clients of the listener with this address.
    pub async fn relay_own<T>(
        &self,
        listener: SocketAddr,
        until: impl AsyncFnOnce(SocketAddr) -> T,
    ) -> io::Result<T> {
        let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let serve = async {
            loop {
                let (client, peer) = own.accept().await?;
                self.clients.admit(client, peer, listener);
            }
        };
        tokio::select! {
            outcome = until(own.local_addr()?) => Ok(outcome),
            error = serve => error,
        }
    }

    /// Waits, after [`Listeners::close`], until the last connection has ended. Clients that have sent nothing `within`
    /// this time are reset.
    pub async fn finished(&self, within: Duration) {
        tokio::select! {
            () = self.clients.connections.wait() => return,
            () = sleep(within) => self.clients.slots.end_silent(Ending::ProxyDrained),
        }
        self.clients.connections.wait().await;
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> usize {
        self.clients.connections.len()
    }

    /// How many clients have connected since the start. One that another process had before does not count.
    pub fn admitted(&self) -> u64 {
        self.clients.slots.admitted()
    }

    /// The most connections that are held at once; 0 before the first document.
    pub fn limit(&self) -> u32 {
        self.clients.slots.limit()
    }

    fn start(&self, address: SocketAddr) -> CancellationToken {
        let stop = self.stop.child_token();
        let acceptor = Acceptor {
            address,
            hands_over: self.hands_over,
            end: self.stop.clone(),
            passed: self.passed.clone(),
            sockets: Arc::clone(&self.sockets),
            holdings: Arc::clone(&self.holdings),
            clients: self.clients.clone(),
        };
        self.accepting.spawn(acceptor.run(stop.clone()));
        stop
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<SocketAddr, CancellationToken>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as StdListener;

    use super::*;
    use crate::upstream::fixture;

    #[tokio::test]
    async fn a_lent_socket_is_kept_where_the_first_document_names_it_and_ended_where_it_does_not() {
        let (upstreams, []) = fixture::proven([]);
        let listeners = Listeners::new(upstreams, PassedSockets::default(), true);
        let lend = || {
            let holder = StdListener::bind("127.0.0.1:0").unwrap();
            holder.set_nonblocking(true).unwrap();
            let lent = TcpListener::from_std(holder)
                .and_then(LentListener::keep)
                .unwrap();
            let address = lent.address();
            listeners.sockets().add(lent);
            address
        };
        let (named, unnamed) = (lend(), lend());
        // This process serves before it has a document.
        listeners.serve();
        assert_eq!(listeners.sockets().all().len(), 2);
        let listener = Listener::apiserver(vec![named.ip()], named.port());
        listeners.apply(&[listener], &BTreeSet::new(), 10);
        assert!(listeners.sockets().get(named).unwrap().is_listening().unwrap());
        assert!(listeners.sockets().get(unnamed).is_none());
        listeners.close(true).await;
    }
}
