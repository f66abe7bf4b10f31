//! The known states that scenarios start from. They do not depend on what ran before and how it ended.

mod chart;
mod images;
mod pool;
mod standby;
mod wiring;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client as Kubernetes, ResourceExt as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use trivet_instruments::trusting;
use trivet_testbed::{Cluster, Host, Joining, Spec, Stopwatch};

use crate::attempts::{LOOPBACKS, once};
use crate::node_fault::lift_all;
use crate::observe;
use crate::pods::Proxies;
use crate::proxies::metrics;
use crate::say::say;
use crate::tools::Tools;
use crate::turn::Turn;
use trivet_instruments::Client;
use trivet_instruments::eventually;

pub use self::chart::{CHART, CRDS, EMPTY_POOL, RELEASE};
use self::pool::revision_of;
pub use self::pool::{POOL, condition};
use self::standby::Standbys;
pub use self::standby::{is_standby, standbys};
pub use self::wiring::Server;

/// The namespace of the chart's release, as in the documentation.
pub const NAMESPACE: &str = "trivet-system";

/// The master whose apiserver the scenarios use for their own requests, unless they name another.
const FIRST_MASTER: &str = "cp1";

/// Where every apiserver listens.
pub(crate) const APISERVER: u16 = 6443;

/// The name of the proxy's program.
const PROXY: &str = "trivet-proxy";

/// An apiserver that starts writes its bootstrap roles first, which takes a busy machine some seconds.
const MASTERS_READY: Duration = Duration::from_secs(60);

/// A kubelet that was cut off backs off for some seconds before it tries again.
const NODES_READY: Duration = Duration::from_secs(90);

/// kubelet looks for ended containers once a second; five of them start at once on a busy machine.
const PROXY_STARTED: Duration = Duration::from_secs(30);

/// Probes come once a second and two good ones in a row are needed; a fresh proxy and a rollout come before that.
const PROXIES_SETTLED: Duration = Duration::from_secs(90);

/// A testbed in a known state, and the exclusive right to disturb it.
#[derive(Debug)]
pub struct Installation {
    cluster: Cluster,
    turn: Turn,
    /// The proxies that the set-up has restarted, as the API knew them until then.
    restarted: Proxies,
}

impl Installation {
    /// A healthy cluster with Trivet's images on its hosts, nothing of Trivet installed, the workers' kubelets on cp1.
    pub async fn bare() -> Result<Self> {
        let mut installation = Self::healthy().await?;
        installation
            .point_workers(&Server::Master(FIRST_MASTER.to_owned()))
            .await?;
        installation.load_images().await?;
        installation.turn.step("images");
        installation.purge().await?;
        installation.turn.step("removal");
        installation.nodes_ready().await?;
        installation.turn.step("kubelets");
        Ok(installation)
    }

    /// A healthy cluster with the chart installed, the pool of `spec: {}` and every proxy in step with it; the workers'
    /// kubelets keep their API server. The API may still show an older state of the proxies: see [`Self::told`].
    pub async fn serving() -> Result<Self> {
        Self::served(Standbys::None).await
    }

    /// The same, with the workers' kubelets and kube-proxies on their node's proxy: what users have.
    pub async fn protecting() -> Result<Self> {
        Self::protected(Standbys::None).await
    }

    /// The same, and every node has a standby that could serve at once: what users have whose nodes must come back from a
    /// reboot.
    pub async fn standing_by() -> Result<Self> {
        Self::protected(Standbys::EveryNode).await
    }

    async fn protected(standbys: Standbys) -> Result<Self> {
        let mut installation = Self::served(standbys).await?;
        installation.point_workers(&Server::Loopback).await?;
        installation.nodes_ready().await?;
        installation.turn.step("kubelets");
        Ok(installation)
    }

    async fn served(standbys: Standbys) -> Result<Self> {
        let mut installation = Self::healthy().await?;
        let images = installation.load_images().await?;
        installation.turn.step("images");
        let chart = installation.install_for(standbys).await?;
        installation.turn.step("chart");
        let spec = installation.reset_pool_to(standbys.spec()).await?;
        if standbys == Standbys::None {
            installation.take_standbys().await?;
        }
        if images || chart || spec {
            // Proxies may be replaced: a scenario must not find a rollout under way.
            installation.rolled_out_at_once().await?;
            installation.turn.step("rollout");
        }
        installation.restarted = installation.forget_falls().await?;
        installation.turn.step("restarts");
        installation.proxies_settled().await?;
        installation.turn.step("proxies in step");
        if standbys == Standbys::EveryNode {
            installation.warm_standbys().await?;
            installation.turn.step("standbys");
        }
        Ok(installation)
    }

    /// Waits until the API shows the current state of the proxies: kubelets report a restart late, and probe the readiness of
    /// a container only up to ten seconds after it or they have started. For scenarios that look at pods or at the pool's status.
    pub async fn told(mut self) -> Result<Self> {
        eventually(PROXY_STARTED, "the restarts counted", async || {
            let now = self.proxies(FIRST_MASTER).await?;
            let pods = self.proxy_pods().await?;
            for (name, before) in &self.restarted {
                let now = now.get(name);
                ensure!(now.is_some_and(|now| now != before), "{name}'s proxy: {now:?}");
                // Until then the pool's status may be from before the restart.
                let is_ready = pods.iter().any(|pod| pod.node == *name && pod.is_ready);
                ensure!(is_ready, "{name}'s proxy is not ready");
            }
            Ok(())
        })
        .await?;
        self.restarted_kubelets_report().await;
        self.operator_leads().await?;
        self.pool_ready().await?;
        self.turn.step("pool");
        Ok(self)
    }

    /// Lets a master join, with Trivet's images on its host.
    pub async fn add_master(&mut self, name: &'static str) -> Result<()> {
        self.cluster = self.change_hosts(move |cluster| cluster.add_master(name)).await?;
        self.give_images().await
    }

    /// Lets a master go, as an administrator retires one.
    pub async fn remove_master(&mut self, name: &'static str) -> Result<()> {
        self.cluster = self
            .change_hosts(move |cluster| cluster.remove_master(name))
            .await?;
        Ok(())
    }

    /// Lets a worker join whose kubelet knows its node's proxy and no other apiserver, with Trivet's images and this manifest
    /// on its host. Its node may not be Ready yet.
    pub async fn add_worker(&mut self, name: &'static str, manifest: PathBuf) -> Result<()> {
        let server = self.url(&Server::Loopback)?;
        let add = move |cluster: &mut Cluster| {
            cluster.add_worker(
                name,
                &Joining {
                    server: &server,
                    tls_server_name: Some("kubernetes"),
                    images: images::archives()?,
                    manifests: &[manifest],
                },
            )
        };
        self.cluster = self.change_hosts(add).await?;
        Ok(())
    }

    /// Lets a worker go.
    pub async fn remove_worker(&mut self, name: &'static str) -> Result<()> {
        self.cluster = self
            .change_hosts(move |cluster| cluster.remove_worker(name))
            .await?;
        Ok(())
    }

    /// The testbed.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Every host, masters first.
    pub fn hosts(&self) -> Vec<Host> {
        self.cluster.hosts()
    }

    /// The hosts whose kubelets scenarios point at their proxy.
    pub fn workers(&self) -> Vec<Host> {
        self.cluster.workers()
    }

    /// The masters' names.
    pub fn masters(&self) -> Vec<String> {
        self.cluster
            .masters()
            .iter()
            .map(|master| master.name().to_string())
            .collect()
    }

    /// All masters but the first, which scenarios use for their own requests.
    pub fn other_masters(&self) -> Vec<String> {
        self.masters().into_iter().skip(1).collect()
    }

    /// kubectl and helm through the first master.
    pub fn tools(&self) -> Tools {
        self.tools_through(FIRST_MASTER)
    }

    /// kubectl and helm through a master that is not at fault.
    pub fn tools_through(&self, master: &str) -> Tools {
        Tools::through(&self.cluster, master)
    }

    /// A Kubernetes client through a master that is not at fault.
    pub async fn kubernetes(&self, master: &str) -> Result<Kubernetes> {
        observe::client(&self.cluster.kubeconfig_of(master)?).await
    }

    /// The same with a token instead of the administrator's certificate.
    pub async fn kubernetes_with(&self, master: &str, token: &str) -> Result<Kubernetes> {
        observe::client_with(&self.cluster.kubeconfig_of(master)?, token).await
    }

    /// A client for attempts, which can tell the masters apart.
    pub fn client(&self) -> Result<Client> {
        let path = self
            .cluster
            .host(FIRST_MASTER)?
            .file("/etc/kubernetes/pki/ca.crt");
        let authority = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let authority: Vec<_> = CertificateDer::pem_slice_iter(&authority)
            .collect::<Result<_, _>>()
            .context("failed to read the cluster's CA")?;
        // cp4 may join later.
        let names: Vec<_> = (1..=9).map(|number| format!("cp{number}")).collect();
        Client::new(trusting(authority)?, LOOPBACKS[0], "/readyz").knowing(&names)
    }

    /// Runs a blocking operation of the testbed on a thread, without blocking the scenario.
    pub async fn disturb<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cluster) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || work(&cluster))
            .await
            .context("the testbed panicked")?
    }

    /// Waits until every apiserver says that it is ready: one that was started again is not for some seconds.
    pub async fn masters_ready(&self) -> Result<()> {
        let client = &self.client()?;
        let ready = |master: Host| async move {
            let what = format!("{}'s apiserver ready", master.name());
            eventually(MASTERS_READY, &what, async || {
                let attempt = client
                    .clone()
                    .at((master.ipv4(), APISERVER).into())
                    .attempt()
                    .await;
                ensure!(attempt.succeeded(), "{attempt}");
                Ok(())
            })
            .await
        };
        try_join_all(self.cluster.masters().into_iter().map(ready))
            .await
            .map(drop)
    }

    /// Waits until every node is Ready and its Lease fresh, and the kubelets that were restarted know their pods.
    pub async fn nodes_ready(&self) -> Result<()> {
        let kubernetes = self.kubernetes(FIRST_MASTER).await?;
        let nodes = Api::<Node>::all(kubernetes.clone());
        eventually(NODES_READY, "all nodes Ready", async || {
            let nodes = nodes.list(&ListParams::default()).await?;
            let is_ready = |name: &String| {
                let node = nodes.iter().find(|node| node.name_any() == *name);
                node.is_some_and(wiring::is_ready)
            };
            let hosts: Vec<_> = self.hosts().iter().map(|host| host.name().to_string()).collect();
            let lacking: Vec<_> = hosts.iter().filter(|name| !is_ready(name)).collect();
            ensure!(lacking.is_empty(), "{lacking:?} are not");
            wiring::leases_are_fresh(&kubernetes, &hosts).await?;
            wiring::restarted_kubelets_know_their_pods(&kubernetes).await
        })
        .await
    }

    /// Waits until every node's proxy obeys the newest revision, finds all its members Up, and answers.
    pub async fn proxies_settled(&self) -> Result<()> {
        let (client, pools) = (&self.client()?, &self.pools(FIRST_MASTER).await?);
        let settled = |host: Host| async move {
            let what = format!("{}'s proxy in step", host.name());
            let check = async || {
                let wanted = revision_of(&pools.get(POOL).await?)?;
                is_settled(&host, client, wanted).await
            };
            eventually(PROXIES_SETTLED, &what, check).await
        };
        try_join_all(self.hosts().into_iter().map(settled))
            .await
            .map(drop)
    }

    /// Kills the proxies that have seen a member fall; kubelet starts them again. A proxy holds a member that fell lately
    /// down for longer each time, up to two minutes: one scenario's faults would make the next one wait. Returns those
    /// that it killed, as the API knew them before.
    async fn forget_falls(&self) -> Result<Proxies> {
        let mut known = self.proxies(FIRST_MASTER).await?;
        let forget = |host: Host| async move {
            // A proxy that does not answer is reported later, by the wait for proxies in step.
            let fell = metrics(&host).await.is_ok_and(|metrics| metrics.has_seen_falls());
            let (true, Some(pid)) = (fell, host.pid(PROXY)?) else {
                return anyhow::Ok(None);
            };
            let name = host.name().to_string();
            let killed = name.clone();
            self.disturb(move |cluster| cluster.kill_container(&killed, PROXY))
                .await?;
            let what = format!("{name}'s proxy started again");
            eventually(PROXY_STARTED, &what, async || {
                let started = host.pid(PROXY)?.is_some_and(|started| started != pid);
                ensure!(started, "it does not run");
                Ok(())
            })
            .await?;
            Ok(Some(name))
        };
        let killed = try_join_all(self.hosts().into_iter().map(forget)).await?;
        known.retain(|node, _| killed.iter().flatten().any(|name| name == node));
        Ok(known)
    }

    async fn change_hosts(
        &self,
        change: impl FnOnce(&mut Cluster) -> Result<()> + Send + 'static,
    ) -> Result<Cluster> {
        let change = |cluster: &Cluster| {
            let mut changed = cluster.clone();
            change(&mut changed)?;
            Ok(changed)
        };
        self.disturb(change).await
    }

    /// A cluster of the usual size, without a fault, all nodes Ready.
    async fn healthy() -> Result<Self> {
        let turn = tokio::task::spawn_blocking(Turn::wait)
            .await
            .context("failed to wait")??;
        let cluster = tokio::task::spawn_blocking(find_or_start)
            .await
            .context("the testbed panicked")??;
        let mut installation = Self {
            cluster,
            turn,
            restarted: Proxies::new(),
        };
        installation.turn.step("hosts");
        installation.rescue_workers().await?;
        installation.point_masters_home().await?;
        if let Err(error) = installation.recovered().await {
            say(format!("repairing the testbed: {error:#}"));
            installation.disturb(Cluster::repair).await?;
        }
        installation.turn.step("nodes");
        Ok(installation)
    }

    /// Waits until nothing is left of an earlier scenario's outage.
    async fn recovered(&self) -> Result<()> {
        self.disturb(|cluster| cluster.hosts().iter().try_for_each(lift_all))
            .await?;
        self.masters_ready().await?;
        self.uncordon_all().await?;
        self.wake_kubelets().await?;
        self.nodes_ready().await
    }
}

/// Fails unless a node's proxy obeys this revision, finds all its members Up, and answers.
async fn is_settled(host: &Host, client: &Client, wanted: u64) -> Result<()> {
    let metrics = metrics(host).await?;
    let revision = metrics.revision();
    ensure!(revision == Some(wanted), "at {revision:?}, not {wanted}");
    let states = metrics.states();
    ensure!(
        !states.is_empty() && states.values().all(|state| state == "Up"),
        "members are {states:?}"
    );
    for loopback in LOOPBACKS {
        let attempt = once(host, client, loopback).await?;
        ensure!(attempt.succeeded(), "{loopback}: {attempt}");
    }
    Ok(())
}

/// Gives the testbed its usual hosts: adds the masters that a scenario has removed, and removes the hosts that it has added.
fn with_usual_hosts(cluster: &mut Cluster) -> Result<()> {
    let usual = Spec::default();
    let masters: Vec<_> = (1..=usual.masters).map(|number| format!("cp{number}")).collect();
    let present = |cluster: &Cluster| -> Vec<_> {
        let masters = cluster.masters().into_iter();
        masters.map(|master| master.name().to_string()).collect()
    };
    let before = present(cluster);
    for missing in masters.iter().filter(|name| !before.contains(name)) {
        cluster.add_master(missing)?;
    }
    for extra in before.iter().filter(|name| !masters.contains(name)) {
        cluster.remove_master(extra)?;
    }
    for extra in cluster.workers().iter().skip(usual.workers.into()) {
        cluster.remove_worker(&extra.name().to_string())?;
    }
    Ok(())
}

/// The testbed that is there, of the usual size and without faults; a new one where there is none.
fn find_or_start() -> Result<Cluster> {
    let Ok(mut cluster) = Cluster::load() else {
        return Cluster::up(&Spec::default());
    };
    // After a power cut the API lets nobody do anything for some seconds.
    let begun = Stopwatch::start();
    while let Err(error) = with_usual_hosts(&mut cluster) {
        if begun.elapsed() > MASTERS_READY {
            return Err(error);
        }
        cluster.undo_faults()?;
        thread::sleep(Duration::from_secs(1));
    }
    if cluster
        .hosts()
        .iter()
        .any(|host| !matches!(host.init(), Ok(Some(_))))
    {
        return Cluster::up(&Spec::default());
    }
    cluster.undo_faults()?;
    cluster
        .masters()
        .iter()
        .try_for_each(|master| cluster.run_as_processes(&master.name().to_string()))?;
    Ok(cluster)
}
