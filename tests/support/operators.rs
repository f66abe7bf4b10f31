//! The operators: which of them leads, one that is killed, and where the next one may run.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::sleep;
use trivet_crds::data_plane_name;
use trivet_instruments::eventually;

use crate::installation::{Installation, NAMESPACE, POOL};
use crate::pods::OPERATOR;

/// The name of its program.
pub const PROGRAM: &str = "trivet-operator";

/// The annotation of a pool's objects with the last term that has taken them, and its holder.
const LEADER_TERM: &str = "trivet.dev/leader-term";

/// The Lease by which they elect the one that writes.
pub const LEASE: &str = "trivet-operator";

/// A pod is placed and started on a busy machine, or an operator waits until the Lease of one that was killed expires.
const STARTS: Duration = Duration::from_secs(45);

/// What an operator needs from its start to its first passes.
const WORKS: Duration = Duration::from_millis(1500);

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its pod.
    pub pod: String,
    /// The node of its pod.
    pub node: String,
}

impl Installation {
    /// The operator that leads.
    pub async fn leader(&self) -> Result<Operator> {
        self.operators("cp1")
            .await?
            .into_iter()
            .next()
            .context("no operator leads")
    }

    /// All operators whose pods stay, through a master that is not at fault: the one that leads first; none if none leads.
    pub async fn operators(&self, master: &str) -> Result<Vec<Operator>> {
        let kubernetes = self.kubernetes(master).await?;
        let pods = Api::<Pod>::namespaced(kubernetes.clone(), NAMESPACE);
        let pods = pods.list(&ListParams::default().labels(OPERATOR)).await;
        let pods = pods.context("failed to list the operators' pods")?;
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        let operator = |pod: &Pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            let pod = pod.name_any();
            Some(Operator { pod, node })
        };
        let all: Vec<_> = pods.iter().filter(stays).filter_map(operator).collect();
        let lease = Api::<Lease>::namespaced(kubernetes, NAMESPACE)
            .get_opt(LEASE)
            .await?;
        let holder = lease
            .and_then(|lease| lease.spec?.holder_identity)
            .unwrap_or_default();
        let leads = |operator: &&Operator| is_of(&holder, &operator.pod);
        let Some(leader) = all.iter().find(leads).cloned() else {
            return Ok(Vec::new());
        };
        let others = all.into_iter().filter(|operator| *operator != leader);
        Ok(std::iter::once(leader.clone()).chain(others).collect())
    }

    /// Waits until an operator leads that runs, and has taken or created the objects of the pool. After a removal of the chart
    /// that takes a while: the roles go first, so the last leader may not release its Lease, and the next one waits until it
    /// expires.
    pub async fn operator_leads(&self) -> Result<()> {
        eventually(STARTS, "an operator that leads", async || {
            let Operator { pod, node } = self.leader().await?;
            let pid = self.cluster().host(&node)?.pid(PROGRAM)?;
            pid.with_context(|| format!("{pod} does not run on {node}"))?;
            let is_its_own = self.has_objects(&pod).await?;
            ensure!(is_its_own, "{pod} has not taken the pool's objects");
            Ok(())
        })
        .await
    }

    /// Whether the operator of this pod, which leads, has taken the pool's objects or created them. Those that it has created
    /// are younger than its term, and no leader has taken them.
    async fn has_objects(&self, pod: &str) -> Result<bool> {
        let kubernetes = self.kubernetes("cp1").await?;
        let maps = Api::<ConfigMap>::namespaced(kubernetes.clone(), NAMESPACE);
        let map = maps.get(&data_plane_name(POOL)).await?;
        if let Some(term) = map.annotations().get(LEADER_TERM) {
            return Ok(term.contains(&format!(" {pod}_")));
        }
        let lease = Api::<Lease>::namespaced(kubernetes, NAMESPACE).get(LEASE).await?;
        let since = lease.spec.and_then(|lease| lease.acquire_time);
        let since = since.context("the Lease was never acquired")?.0.as_second();
        Ok(map
            .creation_timestamp()
            .is_some_and(|created| created.0.as_second() >= since))
    }

    /// Waits until an operator leads that has worked for a moment.
    pub async fn operator_works(&self) -> Result<()> {
        self.operator_leads().await?;
        sleep(WORKS).await;
        Ok(())
    }

    /// Kills the operator that leads with SIGKILL. The next one is another pod, because kubelet starts a container that ends
    /// again and again ever later. Its Lease is released for it, so that the next one leads at once: that it is taken from one
    /// that is silent takes 15 s each time, and has a scenario of its own.
    pub async fn kill_operator(&self) -> Result<()> {
        let Operator { pod, node } = self.leader().await?;
        self.disturb(move |cluster| cluster.kill(&node, PROGRAM)).await?;
        let delete = format!("delete pod {pod} --namespace {NAMESPACE} --grace-period=1 --wait=false");
        self.tools().kubectl(&delete).await?;
        self.release_for(&pod).await
    }

    /// Releases the Lease for an operator that was killed, unless another one has it.
    async fn release_for(&self, pod: &str) -> Result<()> {
        let leases = Api::<Lease>::namespaced(self.kubernetes("cp1").await?, NAMESPACE);
        let lease = leases.get(LEASE).await?;
        let version = lease.resource_version();
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        if is_of(&holder, pod) {
            let patch =
                json!({ "metadata": { "resourceVersion": version }, "spec": { "holderIdentity": "" } });
            leases
                .patch(LEASE, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        Ok(())
    }

    /// The status code and the words with which an operator answers, on its port for probes and metrics.
    pub async fn ask_operator(&self, pod: &str, path: &str) -> Result<(String, String)> {
        let pods = Api::<Pod>::namespaced(self.kubernetes("cp1").await?, NAMESPACE);
        let address = pods.get(pod).await?.status.and_then(|status| status.pod_ip);
        let url = format!("http://{}:8080{path}", address.context("the pod has no address")?);
        let words = [
            "curl",
            "--silent",
            "--max-time",
            "2",
            "--write-out",
            "\n%{http_code}",
            &url,
        ];
        let words = words.map(str::to_owned);
        let answer = self
            .disturb(move |cluster| cluster.host("cp1")?.exec(&words))
            .await?;
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let (words, code) = answer.rsplit_once('\n').context("curl said nothing")?;
        Ok((code.to_owned(), words.to_owned()))
    }

    /// Waits until another operator than `before` leads; returns it.
    pub async fn other_leader(&self, before: &Operator, within: Duration) -> Result<Operator> {
        eventually(within, "another operator that leads", async || {
            let leader = self.leader().await?;
            ensure!(leader != *before, "{} still leads", leader.pod);
            Ok(leader)
        })
        .await
    }

    /// Waits until an operator that does not lead runs on this node; one is moved there if none does.
    pub async fn operator_waits_on(&self, node: &str) -> Result<()> {
        let waits_there = async || {
            let operators = self.operators("cp1").await?;
            let mut others = operators.iter().skip(1);
            let runs = self.cluster().host(node)?.pid(PROGRAM)?.is_some();
            ensure!(runs && others.any(|other| other.node == node), "{operators:?}");
            anyhow::Ok(())
        };
        if waits_there().await.is_ok() {
            return Ok(());
        }
        let hosts = self.hosts();
        let others = hosts.iter().map(|host| host.name().to_string());
        let others: Vec<_> = others.filter(|name| name != node).collect();
        self.cordon(&others).await?;
        // The one that leads stays, unless it is there: then the other one leads once it has ended.
        let operators = self.operators("cp1").await?;
        let there = operators.iter().find(|operator| operator.node == node);
        let goes = there.or(operators.last()).context("no operator leads")?;
        let delete = format!("delete pod {} --namespace {NAMESPACE} --wait=false", goes.pod);
        let deleted = self.tools().kubectl(&delete).await;
        let moved = eventually(STARTS, &format!("an operator on {node}"), waits_there).await;
        self.uncordon_all().await?;
        deleted?;
        moved
    }

    /// Keeps pods that are no DaemonSet's from starting on these nodes.
    pub async fn cordon(&self, nodes: &[String]) -> Result<()> {
        try_join_all(nodes.iter().map(|node| self.set_unschedulable(node, true)))
            .await
            .map(drop)
    }

    /// Lets pods start on all nodes again.
    pub async fn uncordon_all(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.kubernetes("cp1").await?);
        let nodes = nodes.list(&ListParams::default()).await?;
        let is_cordoned = |node: &&Node| {
            let spec = node.spec.as_ref();
            spec.is_some_and(|spec| spec.unschedulable == Some(true))
        };
        let cordoned: Vec<_> = nodes
            .iter()
            .filter(is_cordoned)
            .map(kube::ResourceExt::name_any)
            .collect();
        try_join_all(cordoned.iter().map(|node| self.set_unschedulable(node, false)))
            .await
            .map(drop)
    }

    async fn set_unschedulable(&self, node: &str, is_cordoned: bool) -> Result<()> {
        let nodes = Api::<Node>::all(self.kubernetes("cp1").await?);
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": is_cordoned } }));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// Whether a process of this pod has this identity, which is the pod's name and a random number.
fn is_of(identity: &str, pod: &str) -> bool {
    identity.rsplit_once('_').is_some_and(|(name, _)| name == pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_its_pod() {
        assert!(is_of(
            "trivet-operator-6d8-x2x9k_00ff",
            "trivet-operator-6d8-x2x9k"
        ));
        assert!(!is_of("trivet-operator-6d8-x2x9k_00ff", "trivet-operator-6d8"));
        assert!(!is_of("", ""));
    }
}
