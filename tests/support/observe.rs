//! The nodes during a fault, as the API shows them: when each renewed its Lease, and when it left Ready.
//!
//! Read through the apiserver of a master without a fault. A watch that breaks is started again; the gaps come from the
//! Leases' own `renewTime`, so a late event makes no gap and a lost one hides none.

mod history;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::history::History;

/// Where kubelets renew their Leases.
pub(crate) const LEASES: &str = "kube-node-lease";

/// Both lists are a few objects long.
const FIRST_LISTS: Duration = Duration::from_secs(20);

/// A client that talks to the cluster of a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let failed = || format!("failed to use {}", kubeconfig.display());
    Client::try_from(config(kubeconfig).await?).with_context(failed)
}

/// The same with a token, and with nothing else that says who asks.
pub async fn client_with(kubeconfig: &Path, token: &str) -> Result<Client> {
    let mut config = config(kubeconfig).await?;
    config.auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    };
    let failed = || format!("failed to use {} with a token", kubeconfig.display());
    Client::try_from(config).with_context(failed)
}

async fn config(kubeconfig: &Path) -> Result<Config> {
    let failed = || format!("failed to use {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(failed)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(failed)?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(config)
}

/// An observation under way.
#[derive(Debug)]
pub struct Observer {
    history: Arc<Mutex<History>>,
    watches: JoinSet<()>,
}

impl Observer {
    /// Starts to watch; returns once everything that exists has been seen.
    pub async fn start(client: Client) -> Result<Self> {
        let history = Arc::new(Mutex::new(History::new(Timestamp::now())));
        let (leases_listed, mut leases) = watch::channel(false);
        let (nodes_listed, mut nodes) = watch::channel(false);
        let mut watches = JoinSet::new();
        let (of_leases, of_nodes) = (Arc::clone(&history), Arc::clone(&history));
        let lease_events = watcher(
            Api::<Lease>::namespaced(client.clone(), LEASES),
            watcher::Config::default(),
        );
        watches.spawn(follow(
            lease_events.default_backoff(),
            leases_listed,
            move |lease| see_lease(&of_leases, &lease),
        ));
        let node_events = watcher(Api::<Node>::all(client), watcher::Config::default());
        watches.spawn(follow(node_events.default_backoff(), nodes_listed, move |node| {
            see_node(&of_nodes, &node);
        }));
        let listed = async {
            (
                leases.wait_for(|listed| *listed).await.is_ok(),
                nodes.wait_for(|listed| *listed).await.is_ok(),
            )
        };
        let (true, true) = timeout(FIRST_LISTS, listed)
            .await
            .context("failed to list Leases and Nodes in time")?
        else {
            anyhow::bail!("the watches of Leases and Nodes ended");
        };
        Ok(Self { history, watches })
    }

    /// What has been seen so far.
    pub fn so_far(&self) -> History {
        let mut history = locked(&self.history, |history| history.clone());
        history.close(Timestamp::now());
        history
    }

    /// Ends the observation.
    pub fn finish(mut self) -> History {
        self.watches.abort_all();
        self.so_far()
    }
}

async fn follow<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    listed: watch::Sender<bool>,
    mut see: impl FnMut(K),
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => see(object),
            Ok(Event::InitDone) => {
                listed.send_replace(true);
            }
            // Deleted objects keep what they did; a lost watch lists again by itself.
            Ok(Event::Delete(_) | Event::Init) | Err(_) => {}
        }
    }
}

fn see_lease(history: &Mutex<History>, lease: &Lease) {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    if let Some(renewed) = renewed {
        locked(history, |history| history.renewed(&lease.name_any(), renewed.0));
    }
}

fn see_node(history: &Mutex<History>, node: &Node) {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    locked(history, |history| {
        history.ready(&node.name_any(), ready, Timestamp::now());
    });
}

/// A panic elsewhere must not hide what was seen.
fn locked<T>(history: &Mutex<History>, read: impl FnOnce(&mut History) -> T) -> T {
    read(&mut history.lock().unwrap_or_else(PoisonError::into_inner))
}
