//! Probes the members of all pools, all the time, so that a pass over a pool finds its answers ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use http::Uri;
use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::client::Access;
use crate::health::{Answer, Healths};
use crate::logging::chain;
use crate::probe;

/// Time between two probes of one apiserver: twice missed and shown is well under the ten seconds a user waits.
const PERIOD: Duration = Duration::from_secs(2);

/// How long a pass waits for the first answers of apiservers it has never seen. What is later starts another pass.
const FIRST_ANSWERS: Duration = Duration::from_millis(500);

/// Probes under way at once.
const WIDTH: usize = 64;

/// Keeps the health of every pool's members.
#[derive(Debug)]
pub struct Prober {
    access: Access,
    state: Mutex<State>,
    changed: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<String, BTreeSet<SocketAddr>>,
    healths: Healths,
    clients: Clients,
}

/// Connections to apiservers are kept from probe to probe: a handshake a second from each operator would be noise in
/// their logs.
type Clients = BTreeMap<SocketAddr, Arc<OneServer>>;

struct OneServer(Client);

impl std::fmt::Debug for OneServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneServer")
    }
}

impl Prober {
    /// A prober, and the stream of its news: an item each time that some apiserver's state has changed.
    pub fn new(access: Access) -> (Self, mpsc::Receiver<()>) {
        // One pending item says all there is to say.
        let (changed, news) = mpsc::channel(1);
        (
            Self {
                access,
                state: Mutex::default(),
                changed,
            },
            news,
        )
    }

    /// What is known of `addresses`, which from now on are the ones to probe for `pool`.
    pub async fn healths(&self, pool: &str, addresses: BTreeSet<SocketAddr>) -> Healths {
        let unknown: Vec<_> = self.with(|state| {
            state.wanted.insert(pool.to_owned(), addresses.clone());
            addresses
                .iter()
                .filter(|address| state.healths.get(address).is_none())
                .copied()
                .collect()
        });
        // A late one is probed by the next round and then starts a pass of its own.
        timeout(FIRST_ANSWERS, self.probe_all(unknown)).await.ok();
        self.with(|state| state.healths.clone())
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool: &str) {
        self.with(|state| state.wanted.remove(pool));
    }

    /// Probes until `shutdown`, and calls `tick` before each round.
    pub async fn run(&self, shutdown: CancellationToken, tick: impl Fn()) {
        let mut rounds = interval(PERIOD);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = rounds.tick() => {}
            }
            tick();
            let wanted = self.with(State::prune);
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.probe_all(wanted) => {
                    if changed {
                        // Full: the news is waiting to be read already. Closed: nobody needs it any more.
                        self.changed.try_send(()).ok();
                    }
                }
            }
        }
    }

    /// Probes all of `addresses` at once; true if the state of any has changed.
    async fn probe_all(&self, addresses: Vec<SocketAddr>) -> bool {
        let probes = addresses.into_iter().map(|address| self.probe(address));
        let mut answers = stream::iter(probes).buffer_unordered(WIDTH);
        let mut changed = false;
        while let Some(this_changed) = answers.next().await {
            changed |= this_changed;
        }
        changed
    }

    async fn probe(&self, address: SocketAddr) -> bool {
        let answer = match self.client(address) {
            Some(server) => probe::ask(&server.0).await,
            None => Answer::Refused("it cannot be probed".to_owned()),
        };
        self.with(|state| state.healths.observe(address, answer, Instant::now()))
    }

    fn client(&self, address: SocketAddr) -> Option<Arc<OneServer>> {
        if let Some(known) = self.with(|state| state.clients.get(&address).map(Arc::clone)) {
            return Some(known);
        }
        let url = Uri::builder()
            .scheme("https")
            .authority(address.to_string())
            .path_and_query("/")
            .build()
            .ok()?;
        match self.access.anonymous(url) {
            Ok(client) => {
                let server = Arc::new(OneServer(client));
                self.with(|state| state.clients.insert(address, Arc::clone(&server)));
                Some(server)
            }
            Err(error) => {
                tracing::warn!(%address, error = chain(&error), "apiserver cannot be probed");
                None
            }
        }
    }

    fn with<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> T {
        // The state is whole between any two statements: a panic elsewhere does not make it wrong.
        use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Forgets what no pool wants any more, and returns the rest.
    fn prune(&mut self) -> Vec<SocketAddr> {
        let wanted: BTreeSet<_> = self.wanted.values().flatten().copied().collect();
        self.healths.retain(|address| wanted.contains(address));
        self.clients.retain(|address, _| wanted.contains(address));
        wanted.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::Config;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_go_on_when_none_brings_news() {
        let mut config = Config::new(Uri::from_static("https://unused"));
        config.root_cert = Some(Vec::new());
        let (prober, _news) = Prober::new(Access::try_new(config).unwrap());
        let rounds = AtomicU32::new(0);
        let run = prober.run(CancellationToken::new(), || {
            rounds.fetch_add(1, Ordering::Relaxed);
        });
        assert!(timeout(PERIOD * 5, run).await.is_err(), "it ended by itself");
        assert!(rounds.load(Ordering::Relaxed) >= 5, "only {rounds:?} rounds");
    }
}
