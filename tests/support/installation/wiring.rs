//! The cluster below Trivet: faults removed, and the server that the workers' kubelets use.

use anyhow::{Context, Result, ensure};
use trivet_testbed::{Cluster, Component, Host};

use super::{FIRST_MASTER, Installation};
use crate::attempts::{LOOPBACKS, once};
use crate::say::say;

/// kubelet's kubeconfig, as its host sees it.
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// What a worker's kubelet and kube-proxy are given as their apiserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// The proxy of their own node.
    Loopback,
    /// One master, as without a balancer.
    Master(String),
}

impl Installation {
    /// Points every worker at `server`; one that uses it already is left alone.
    pub async fn point_workers(&self, server: &Server) -> Result<()> {
        for worker in self.workers() {
            self.point(&worker, server).await?;
        }
        Ok(())
    }

    /// Points workers whose proxy is gone back at a master, so that they can get Ready and be given one.
    pub(super) async fn rescue_workers(&self) -> Result<()> {
        let client = self.client()?;
        for worker in self.workers() {
            if uses(&worker, &self.url(&Server::Loopback)?)?
                && !once(&worker, &client, LOOPBACKS[0]).await?.succeeded()
            {
                say(format!(
                    "{} has lost its proxy: pointing it at {FIRST_MASTER}",
                    worker.name()
                ));
                self.point(&worker, &Server::Master(FIRST_MASTER.to_owned()))
                    .await?;
            }
        }
        Ok(())
    }

    /// Restarts the kubelets of workers that are not Ready, as an administrator does after an outage that nobody
    /// balanced: left alone, they find their master again only after another minute.
    pub(super) async fn wake_workers(&self) -> Result<()> {
        let asleep = self.not_ready().await?;
        for worker in self.workers() {
            let name = worker.name().to_string();
            if asleep.contains(&name) {
                self.disturb(move |cluster| cluster.restart(&name, Component::Kubelet, &[]))
                    .await?;
            }
        }
        Ok(())
    }

    async fn point(&self, worker: &Host, server: &Server) -> Result<()> {
        let url = self.url(server)?;
        if uses(worker, &url)? {
            return Ok(());
        }
        let name = worker.name().to_string();
        let tls_server_name = (*server == Server::Loopback).then_some("kubernetes");
        self.disturb(move |cluster| cluster.point(&name, &url, tls_server_name))
            .await
    }

    fn url(&self, server: &Server) -> Result<String> {
        match server {
            Server::Loopback => Ok(format!("https://{}", LOOPBACKS[0])),
            Server::Master(master) => Ok(format!("https://{}:6443", self.cluster.host(master)?.ipv4())),
        }
    }
}

/// Takes back every fault that a scenario may have left.
pub(super) fn heal(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        cluster.heal(&host.name().to_string())?;
    }
    for master in cluster.masters() {
        // Starts what was killed, continues what was stopped, and takes other flags back.
        for component in [Component::Etcd, Component::KubeApiserver] {
            cluster.start_component(&master.name().to_string(), component)?;
        }
    }
    Ok(())
}

fn uses(worker: &Host, url: &str) -> Result<bool> {
    let path = worker.file(KUBECONFIG);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server:"))
        .collect();
    ensure!(
        servers.len() == 1,
        "{} names {} servers, not one",
        path.display(),
        servers.len()
    );
    Ok(servers.iter().all(|server| server.trim() == url))
}
