//! The cluster below Trivet: kubelets that were cut off, and the server that the workers' kubelets use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use kube::api::ListParams;
use kube::{Api, Client as Kubernetes, ResourceExt as _};
use serde_json::Value;
use tokio::time::sleep;
use trivet_testbed::{Component, Host};

use super::{APISERVER, FIRST_MASTER, Installation};
use crate::attempts::{LOOPBACKS, once};
use crate::observe::LEASES;
use crate::say::say;

/// kubelet renews a Lease each ten seconds, and up to four hundredths later (measured: 10.4 s).
const FRESH: SignedDuration = SignedDuration::from_secs(12);

/// kubelet's kubeconfig, as its host sees it.
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// How long a node may still be affected after it was not Ready: client-go's back-off is at most half a minute, twice that
/// with jitter, and a second attempt may be needed.
const ASLEEP: SignedDuration = SignedDuration::from_secs(120);

/// A kubelet that starts brings its node back within some seconds, on a busy machine too.
const COMES_BACK: SignedDuration = SignedDuration::from_secs(45);

/// A kubelet that starts probes the readiness of a container within its period of ten seconds, after a start of some seconds.
const REPORTS: Duration = Duration::from_secs(18);

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
        let workers = self.workers();
        let point = workers.iter().map(|worker| self.point(worker, server));
        try_join_all(point).await.map(drop)
    }

    /// Points every host at `server`, the masters too.
    pub async fn point_all(&self, server: &Server) -> Result<()> {
        let hosts = self.hosts();
        let point = hosts.iter().map(|host| self.point(host, server));
        try_join_all(point).await.map(drop)
    }

    /// Points every master at its own apiserver, as kubeadm does.
    pub async fn point_masters_home(&self) -> Result<()> {
        let home = |master: Host| async move {
            let own = Server::Master(master.name().to_string());
            self.point(&master, &own).await
        };
        try_join_all(self.cluster.masters().into_iter().map(home))
            .await
            .map(drop)
    }

    /// Points workers whose proxy is gone back at a master, so that they get Ready and can start a new proxy.
    pub(super) async fn rescue_workers(&self) -> Result<()> {
        let (client, through_proxy) = (&self.client()?, &self.url(&Server::Loopback)?);
        let rescue = |worker: Host| async move {
            if !uses(&worker, through_proxy)? || once(&worker, client, LOOPBACKS[0]).await?.succeeded() {
                return Ok(());
            }
            say(format!(
                "{} has lost its proxy: pointing it at {FIRST_MASTER}",
                worker.name()
            ));
            self.point(&worker, &Server::Master(FIRST_MASTER.to_owned()))
                .await
        };
        try_join_all(self.workers().into_iter().map(rescue))
            .await
            .map(drop)
    }

    /// Restarts the kubelets of nodes that are missing, are not Ready, or were not Ready a short time ago, as an
    /// administrator does after an outage without a load balancer. (A master's kubelet uses only its own apiserver.) Without
    /// the restart they would connect to their apiserver, or watch and report their pods, only after a minute or two.
    pub(super) async fn wake_kubelets(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.kubernetes(FIRST_MASTER).await?);
        let nodes = nodes
            .list(&ListParams::default())
            .await
            .context("failed to list the nodes")?;
        let now = Timestamp::now();
        let cut_off = |host: &Host| {
            let name = host.name().to_string();
            let node = nodes.iter().find(|node| node.name_any() == name);
            node.is_none_or(|node| was_cut_off(node, last_restart(&name), now))
        };
        let wake = |host: Host| async move {
            let name = host.name().to_string();
            say(format!("waking {name}'s kubelet, which was cut off"));
            note_restart(&name);
            self.disturb(move |cluster| cluster.restart(&name, Component::Kubelet, &[]))
                .await
        };
        try_join_all(self.hosts().into_iter().filter(cut_off).map(wake))
            .await
            .map(drop)
    }

    /// Waits until kubelets that were restarted have reported their pods: a kubelet that starts reports them unready until it
    /// has probed them, and the API has the older report until then.
    pub(super) async fn restarted_kubelets_report(&self) {
        let last = restarted().values().max().copied();
        let since = last.map(|restarted| Timestamp::now().duration_since(restarted).unsigned_abs());
        if let Some(left) = since.and_then(|since| REPORTS.checked_sub(since)) {
            sleep(left).await;
        }
    }

    /// Points a worker's kubelet and kube-proxy at `server`; nothing happens to those that use it already.
    pub async fn point(&self, worker: &Host, server: &Server) -> Result<()> {
        let url = self.url(server)?;
        if uses(worker, &url)? {
            return Ok(());
        }
        let name = worker.name().to_string();
        let tls_server_name = (*server == Server::Loopback).then_some("kubernetes");
        note_restart(&name);
        self.disturb(move |cluster| cluster.point(&name, &url, tls_server_name))
            .await
    }

    pub(super) fn url(&self, server: &Server) -> Result<String> {
        match server {
            Server::Loopback => Ok(format!("https://{}", LOOPBACKS[0])),
            Server::Master(master) => {
                let master = self.cluster.host(master)?.ipv4();
                Ok(format!("https://{master}:{APISERVER}"))
            }
        }
    }
}

/// Whether a node is Ready; after a restart of its kubelet by this process, by a later report. A kubelet that starts reports
/// its node not Ready for a moment, and the API has the older report until then.
pub(super) fn is_ready(node: &Node) -> bool {
    reports_ready(node, last_restart(&node.name_any()))
}

/// Fails while a kubelet that this process restarted a short time ago has not yet listed its pods. If its node's proxy is
/// killed before that, and is its only way to the API, it never hears of the proxy and never starts it again.
pub(super) async fn restarted_kubelets_know_their_pods(kubernetes: &Kubernetes) -> Result<()> {
    let now = Timestamp::now();
    let lately = |restarted: Timestamp| now.duration_since(restarted) < COMES_BACK;
    let nodes: Vec<_> = restarted()
        .iter()
        .filter(|(_, restarted)| lately(**restarted))
        .map(|(node, _)| node.clone())
        .collect();
    let knows = nodes.iter().map(|node| knows_its_pods(kubernetes, node));
    try_join_all(knows).await.map(drop)
}

async fn knows_its_pods(kubernetes: &Kubernetes, node: &str) -> Result<()> {
    let assigned = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let assigned = Api::<Pod>::all(kubernetes.clone()).list(&assigned).await?;
    // What kubelet itself says that it runs.
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/pods")).body(Vec::new())?;
    let known = kubernetes.request::<Value>(request).await;
    let known = known.with_context(|| format!("{node}'s kubelet does not tell its pods"))?;
    let known = known.pointer("/items").and_then(Value::as_array);
    let known: BTreeSet<_> = known
        .into_iter()
        .flatten()
        .filter_map(|pod| pod.pointer("/metadata/uid")?.as_str())
        .collect();
    let mirrored = "kubernetes.io/config.mirror";
    // kubelet knows a static pod by another uid than the API does.
    for pod in assigned
        .iter()
        .filter(|pod| !pod.annotations().contains_key(mirrored))
    {
        let uid = pod.uid().unwrap_or_default();
        ensure!(
            known.contains(uid.as_str()),
            "{node}'s kubelet does not know pod {} yet",
            pod.name_any()
        );
    }
    Ok(())
}

/// Fails while the Lease of one of these nodes is older than a kubelet lets it become: one that could not renew it for some
/// seconds waits ever longer before it tries again, while its node is still Ready.
pub(super) async fn leases_are_fresh(kubernetes: &Kubernetes, nodes: &[String]) -> Result<()> {
    let leases = Api::<Lease>::namespaced(kubernetes.clone(), LEASES);
    let leases = leases.list(&ListParams::default()).await;
    let now = Timestamp::now();
    let leases = leases.context("failed to list the nodes' Leases")?;
    for lease in leases.iter().filter(|lease| nodes.contains(&lease.name_any())) {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        let age = renewed.map(|renewed| now.duration_since(renewed.0));
        ensure!(
            age.is_some_and(|age| age < FRESH),
            "{}'s Lease is {age:?} old",
            lease.name_any()
        );
    }
    Ok(())
}

fn reports_ready(node: &Node, restarted: Option<Timestamp>) -> bool {
    let Some(ready) = ready(node) else {
        return false;
    };
    let reported = ready.last_heartbeat_time.as_ref().map(|time| time.0.as_second());
    // The API's times have whole seconds.
    restarted.is_none_or(|restarted| reported >= Some(restarted.as_second()))
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a node is not Ready, or was not Ready within [`ASLEEP`], except for the time when it was new. A node whose
/// kubelet was restarted since then, or shortly before, does not count.
fn was_cut_off(node: &Node, restarted: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(ready) = ready(node) else {
        return true;
    };
    let (Some(since), Some(created)) = (&ready.last_transition_time, node.creation_timestamp()) else {
        return false;
    };
    // A kubelet that was restarted while its node was Ready is awake too.
    let is_awake = restarted.is_some_and(|restarted| since.0.duration_since(restarted) < COMES_BACK);
    now.duration_since(since.0) < ASLEEP && since.0.duration_since(created.0) > ASLEEP && !is_awake
}

fn note_restart(host: &str) {
    restarted().insert(host.to_owned(), Timestamp::now());
}

fn last_restart(host: &str) -> Option<Timestamp> {
    restarted().get(host).copied()
}

/// When the kubelet of each host was last restarted by this process.
fn restarted() -> MutexGuard<'static, BTreeMap<String, Timestamp>> {
    static RESTARTED: Mutex<BTreeMap<String, Timestamp>> = Mutex::new(BTreeMap::new());
    RESTARTED.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::ObjectMeta;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A node that was made at 1,000 s.
    fn node(ready: &str, since: i64) -> Node {
        let condition = NodeCondition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            last_transition_time: Some(Time(second(since))),
            ..NodeCondition::default()
        };
        Node {
            metadata: ObjectMeta {
                creation_timestamp: Some(Time(second(1000))),
                ..ObjectMeta::default()
            },
            status: Some(NodeStatus {
                conditions: Some(vec![condition]),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn a_restarted_kubelet_is_believed_once_it_has_reported() {
        let mut node = node("True", 2000);
        assert!(reports_ready(&node, None));
        assert!(!reports_ready(&node, Some(second(2050))), "no report");
        let report = |node: &mut Node, at| {
            let conditions = node.status.as_mut().unwrap().conditions.as_mut();
            conditions.unwrap()[0].last_heartbeat_time = Some(Time(second(at)));
        };
        report(&mut node, 2049);
        assert!(!reports_ready(&node, Some(second(2050))), "an older report");
        report(&mut node, 2050);
        assert!(reports_ready(&node, Some(second(2050))));
    }

    #[test]
    fn a_node_that_came_back_a_moment_ago_was_cut_off_and_a_new_one_was_not() {
        assert!(was_cut_off(&node("True", 2000), None, second(2010)));
        assert!(!was_cut_off(&node("True", 2000), None, second(2200)));
        assert!(!was_cut_off(&node("True", 1003), None, second(1010)));
    }

    #[test]
    fn a_node_that_came_back_because_its_kubelet_was_restarted_is_awake() {
        assert!(!was_cut_off(
            &node("True", 2000),
            Some(second(1990)),
            second(2010)
        ));
        assert!(was_cut_off(&node("True", 2000), Some(second(1500)), second(2010)));
        assert!(!was_cut_off(
            &node("True", 2000),
            Some(second(2050)),
            second(2060)
        ));
    }

    #[test]
    fn a_node_that_is_not_ready_is_cut_off() {
        assert!(was_cut_off(
            &node("Unknown", 2000),
            Some(second(1990)),
            second(3000)
        ));
        assert!(was_cut_off(&node("False", 1000), None, second(1010)));
        assert!(was_cut_off(&Node::default(), None, second(1010)));
    }
}
