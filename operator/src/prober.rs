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
use trivet_crds::wire::Tls;
use trivet_trust::Trust;

use crate::api::client;
use crate::health::{Answer, Healths};
use crate::logging::chain;
use crate::probe;

/// Time between two probes of one apiserver: twice missed and shown is well under the ten seconds a user waits.
const PERIOD: Duration = Duration::from_secs(2);

/// How long a pass waits for the first answers of apiservers it has never seen. What is later starts another pass.
/// Longer than a probe takes: an answer that comes after the wait is lost.
const FIRST_ANSWERS: Duration = probe::TIMEOUT.saturating_add(Duration::from_millis(100));

/// Probes under way at once.
const WIDTH: usize = 64;

/// Keeps the health of every pool's members.
#[derive(Debug)]
pub struct Prober {
    state: Mutex<State>,
    changed: mpsc::Sender<()>,
}

/// What is probed for each pool: by its spec under its name, and by its document in force under [`in_force_key`].
type State = BTreeMap<String, Probed>;

/// The apiservers of one pool.
#[derive(Debug, Default)]
struct Probed {
    wanted: BTreeSet<SocketAddr>,
    healths: Healths,
    /// What the certificates are verified by; `None` if it cannot be used.
    trust: Option<Trust>,
    tls: Option<Tls>,
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

/// The key of what is probed for `pool` by the server name of its document in force. No pool has a name with a space.
pub fn in_force_key(pool: &str) -> String {
    format!("{pool} (in force)")
}

impl Prober {
    /// A prober, and the stream of its news: an item each time that some apiserver's state has changed.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        // One pending item says all there is to say.
        let (changed, news) = mpsc::channel(1);
        (
            Self {
                state: Mutex::default(),
                changed,
            },
            news,
        )
    }

    /// What is known of `addresses`, which from now on are the ones to probe for `pool`, verified by `tls`.
    pub async fn healths(&self, pool: &str, tls: Tls, addresses: BTreeSet<SocketAddr>) -> Healths {
        let unknown: Vec<_> = self.with(|state| {
            let probed = state.entry(pool.to_owned()).or_default();
            probed.verify_by(pool, tls);
            probed.wanted = addresses;
            let unknown = probed.wanted.iter();
            unknown
                .filter(|address| probed.healths.get(address).is_none())
                .map(|address| (pool.to_owned(), *address))
                .collect()
        });
        // A late one is probed by the next round and then starts a pass of its own.
        timeout(FIRST_ANSWERS, self.probe_all(unknown)).await.ok();
        self.with(|state| {
            state
                .get(pool)
                .map(|probed| probed.healths.clone())
                .unwrap_or_default()
        })
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool: &str) {
        self.with(|state| state.remove(pool));
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
            let wanted = self.with(prune);
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

    /// Probes all of these apiservers of pools at once; true if the state of any has changed.
    async fn probe_all(&self, apiservers: Vec<(String, SocketAddr)>) -> bool {
        let probes = apiservers
            .into_iter()
            .map(|(pool, address)| self.probe(pool, address));
        let mut answers = stream::iter(probes).buffer_unordered(WIDTH);
        let mut changed = false;
        while let Some(this_changed) = answers.next().await {
            changed |= this_changed;
        }
        changed
    }

    async fn probe(&self, pool: String, address: SocketAddr) -> bool {
        let server = self.with(|state| state.get_mut(&pool).and_then(|probed| probed.client(address)));
        let answer = match &server {
            Some(server) => probe::ask(&server.0).await,
            None => Answer::Untrusted("the cluster's authorities cannot be used".to_owned()),
        };
        let (changed, wants_version) = self.with(|state| {
            // The pool may be gone by now, or its apiservers may be verified by something else.
            let probed = state.get_mut(&pool);
            let probed = probed.filter(|probed| probed.asks_by(address, server.as_ref()));
            let healths = probed.map(|probed| &mut probed.healths);
            let now = Instant::now();
            healths.map_or((false, false), |healths| {
                let changed = healths.observe(address, answer, now);
                (changed, healths.wants_version(&address, now))
            })
        });
        if let Some(server) = server.filter(|_| wants_version) {
            let version = probe::version(&server.0).await;
            self.with(|state| {
                if let Some(probed) = state.get_mut(&pool) {
                    probed.healths.set_version(&address, version, Instant::now());
                }
            });
        }
        changed
    }

    fn with<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> T {
        // The state is whole between any two statements: a panic elsewhere does not make it wrong.
        use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Probed {
    /// From now on, certificates are verified by `tls`. What was known says nothing of what it verifies.
    fn verify_by(&mut self, pool: &str, tls: Tls) {
        if self.tls.as_ref() == Some(&tls) {
            return;
        }
        let trust = Trust::new(&tls);
        if let Err(error) = &trust {
            tracing::warn!(pool, error = chain(error), "apiservers cannot be verified");
        }
        self.trust = trust.ok();
        self.tls = Some(tls);
        self.clients.clear();
        self.healths = Healths::default();
    }

    /// Whether this is how an address is asked now.
    fn asks_by(&self, address: SocketAddr, server: Option<&Arc<OneServer>>) -> bool {
        match (self.clients.get(&address), server) {
            (Some(now), Some(asked)) => Arc::ptr_eq(now, asked),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    fn client(&mut self, address: SocketAddr) -> Option<Arc<OneServer>> {
        if let Some(known) = self.clients.get(&address) {
            return Some(Arc::clone(known));
        }
        let url = Uri::builder()
            .scheme("https")
            .authority(address.to_string())
            .path_and_query("/")
            .build()
            .ok()?;
        let server = Arc::new(OneServer(client::anonymous(url, self.trust.as_ref()?)));
        self.clients.insert(address, Arc::clone(&server));
        Some(server)
    }
}

/// Forgets what no pool wants any more, and returns the rest.
fn prune(state: &mut State) -> Vec<(String, SocketAddr)> {
    let mut all = Vec::new();
    for (pool, probed) in state {
        let Probed {
            wanted,
            healths,
            clients,
            ..
        } = probed;
        healths.retain(|address| wanted.contains(address));
        clients.retain(|address, _| wanted.contains(address));
        all.extend(wanted.iter().map(|address| (pool.clone(), *address)));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::health::Health;

    #[tokio::test(start_paused = true)]
    async fn rounds_go_on_when_none_brings_news() {
        let (prober, _news) = Prober::new();
        let rounds = AtomicU32::new(0);
        let run = prober.run(CancellationToken::new(), || {
            rounds.fetch_add(1, Ordering::Relaxed);
        });
        assert!(timeout(PERIOD * 5, run).await.is_err(), "it ended by itself");
        assert!(rounds.load(Ordering::Relaxed) >= 5, "only {rounds:?} rounds");
    }

    #[tokio::test]
    async fn what_one_server_name_verified_says_nothing_of_another() {
        let (prober, _news) = Prober::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let by = |name: &str| Tls {
            ca_bundle: String::new(),
            server_name: name.to_owned(),
        };
        let healths = async |name: &str| prober.healths("default", by(name), [address].into()).await;
        let is_verified = |healths: &Healths| healths.get(&address).is_some_and(Health::is_verified);
        healths("kubernetes").await;
        prober.with(|state| {
            let known = &mut state.get_mut("default").unwrap().healths;
            known.observe(address, Answer::Ready, Instant::now());
        });
        assert!(is_verified(&healths("kubernetes").await));
        assert!(!is_verified(&healths("kubernetse").await));
    }
}
