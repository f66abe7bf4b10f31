//! Faults of nodes and members that are there at once, no two of which hide each other's alerts.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;
use trivet_testbed::{Component, Fault, Host};

use crate::attempts::LOOPBACKS;
use crate::installation::{Installation, standbys};
use crate::node_fault::{NodeFault, Stranger, lift_all};
use crate::serving::daemon_set_serves;

/// The least connections that a pool may allow.
pub const CONNECTIONS: usize = 64;

/// A member at the address of a kubelet, whose certificate is its own.
pub const STRANGER: &str = "stranger";

/// The port at which every kubelet answers.
const KUBELET: u16 = 10250;

/// The master whose apiserver is dead meanwhile, and comes back with a certificate of a few days.
pub const RENEWED: &str = "cp3";

/// When the faults were there: each from the end of what makes it.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    /// Processes that hang, and paths that cannot be written.
    pub in_nodes: Instant,
    /// Masters that are severed or dead, and a port that another program has.
    pub in_network: Instant,
    /// What the pool asks for.
    pub in_spec: Instant,
}

/// Which host gets which fault.
#[derive(Debug)]
pub struct Faults {
    /// A worker that reaches no master. The operator that leads does not run there.
    pub severed: Host,
    /// A worker that does not reach cp2, and whose standby hangs.
    pub reached: Host,
    /// Whose proxy hangs.
    pub hung: Host,
    /// On which another program has the port.
    pub taken: Host,
    /// Whose proxy can write neither its documents nor the path at which others meet it.
    pub unwritable: Host,
    stranger: Option<Stranger>,
}

impl Faults {
    /// Chooses the hosts.
    pub async fn of(installation: &Installation) -> Result<Self> {
        let leader = installation.leader().await?.node;
        let mut workers = installation.workers();
        workers.sort_by_key(|worker| worker.name().to_string() == leader);
        let mut workers = workers.into_iter();
        let cluster = installation.cluster();
        Ok(Self {
            severed: workers.next().context("there is no worker")?,
            reached: workers.next().context("there is one worker only")?,
            hung: cluster.host("cp2")?,
            taken: cluster.host("cp1")?,
            unwritable: cluster.host("cp3")?,
            stranger: None,
        })
    }

    /// Makes all of them happen.
    pub async fn inject(&mut self, installation: &Installation) -> Result<Injected> {
        for pid in standbys(&self.reached)? {
            self.reached.signal(pid, Signal::SIGSTOP)?;
        }
        self.hung
            .signal(daemon_set_serves(&self.hung).await?, Signal::SIGSTOP)?;
        NodeFault::CacheUnwritable.inject(&self.unwritable)?;
        NodeFault::HandOverPathTaken.inject(&self.unwritable)?;
        let in_nodes = Instant::now();
        let stranger = self.stranger.insert(Stranger::lurk(&self.taken, LOOPBACKS[0]));
        let [severed, reached, taken] =
            [&self.severed, &self.reached, &self.taken].map(|host| host.name().to_string());
        installation
            .disturb(move |cluster| {
                for master in cluster.masters() {
                    cluster.inject(&severed, Fault::Sever(master.name()))?;
                }
                cluster.inject(&reached, Fault::Sever(cluster.host("cp2")?.name()))?;
                cluster.kill(RENEWED, Component::KubeApiserver.program())?;
                // The standby too, so that no process holds the port.
                cluster.kill_container(&taken, "trivet-proxy")
            })
            .await?;
        let in_network = Instant::now();
        stranger.listens().await?;
        let kubelet = self.reached.ipv4().to_string();
        let stranger = json!({ "name": STRANGER, "addresses": [kubelet], "port": KUBELET });
        installation
            .edit_pool(json!({ "members": [stranger], "connection": { "maxConnections": CONNECTIONS } }))
            .await?;
        Ok(Injected {
            in_nodes,
            in_network,
            in_spec: Instant::now(),
        })
    }

    /// Ends all of them, whichever there are.
    pub async fn heal(&mut self, installation: &Installation) -> Result<()> {
        let names = [&self.severed, &self.reached, &self.hung].map(|host| host.name().to_string());
        installation
            .disturb(move |cluster| {
                for name in &names {
                    cluster.heal(name)?;
                    cluster.cont(name, "trivet-proxy")?;
                }
                cluster.start_component(RENEWED, Component::KubeApiserver)
            })
            .await?;
        lift_all(&self.unwritable)?;
        if let Some(stranger) = self.stranger.take() {
            stranger.leave().await?;
        }
        let edit = json!({ "members": null, "connection": null });
        installation.edit_pool(edit).await
    }
}
