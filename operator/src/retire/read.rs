//! Reads the fleets of a namespace and what their retirement depends on. It decides nothing.
//!
//! Whether a pool exists is asked of the API server and of no cache: a cache that has not heard of a pool yet would take its
//! proxies for orphans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::ProxyReport;
use trivet_crds::{POOL_LABEL, RETIREMENT_LABEL};

use super::decision::Facts;
use super::facts::{Fleet, NodeFacts, Owner, Remover, fleets, use_of};
use crate::api::watch;
use crate::context::Context;
use crate::observe::proxies::{is_proxy_of, is_ready, node_of};
use crate::observe::words::failure;
use crate::reports::NodeReport;

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Why something that a retirement depends on is not known. Then nothing is retired.
#[derive(Debug, thiserror::Error)]
#[error("failed to list {what}")]
pub struct Error {
    /// The objects.
    pub what: &'static str,
    /// Why.
    pub source: kube::Error,
}

/// The nodes, and what their proxies report.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Whether each node is Ready.
    pub are_ready: BTreeMap<String, bool>,
    /// The reports with the names of their objects.
    pub reports: Vec<(String, Arc<NodeReport>)>,
}

impl Nodes {
    /// From the caches of an operator that runs. `None` while it has not read them: an absent report means nothing then.
    pub fn cached(ctx: &Context) -> Option<Self> {
        if !ctx.readiness.has_read("Node") {
            return None;
        }
        let are_ready = ctx.nodes.state();
        let are_ready = are_ready
            .iter()
            .map(|node| (node.name_any(), watch::is_ready(node)));
        Some(Self {
            are_ready: are_ready.collect(),
            reports: ctx.reports.all(),
        })
    }

    /// From the API server. Where it does not know reports, there are none.
    pub async fn listed(client: &Client) -> Result<Self, Error> {
        let mut are_ready = BTreeMap::new();
        let api: Api<Node> = Api::all(client.clone());
        each(&api, &ListParams::default(), "the nodes", |node| {
            are_ready.insert(node.name_any(), watch::is_ready(&node));
        })
        .await?;
        let mut reports = Vec::new();
        let api: Api<DeserializeGuard<ProxyReport>> = Api::all(client.clone());
        let read = each(&api, &ListParams::default(), "the proxies' reports", |report| {
            // One that cannot be read is none: its node has not said that nobody uses its proxy.
            if let DeserializeGuard(Ok(report)) = report {
                reports.push((report.name_any(), Arc::new(report.into())));
            }
        })
        .await;
        match read {
            Err(error) if !is_absent(&error.source) => Err(error),
            Ok(()) | Err(_) => Ok(Self { are_ready, reports }),
        }
    }
}

/// The fleets of a namespace, and the names of all pools; none if the API server does not know pools.
pub async fn all(
    client: &Client,
    namespace: &str,
) -> Result<(BTreeMap<String, Fleet>, Option<BTreeSet<String>>), Error> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let mut sets = Vec::new();
    let of_pools = ListParams::default().labels(POOL_LABEL);
    each(&api, &of_pools, "the DaemonSets of pools", |set| sets.push(set)).await?;
    // After the DaemonSets: a pool that is made between the two is seen.
    let api: Api<PartialObjectMeta<ApiserverPool>> = Api::all(client.clone());
    let mut pools = BTreeSet::new();
    let read = each(&api, &ListParams::default(), "the pools", |pool| {
        pools.insert(pool.name_any());
    })
    .await;
    let pools = match read {
        Ok(()) => Some(pools),
        Err(error) if is_absent(&error.source) => None,
        Err(error) => return Err(error),
    };
    Ok((fleets(sets), pools))
}

/// Whether a fleet has a pool.
pub fn owner(pool: &str, pools: Option<&BTreeSet<String>>) -> Owner {
    match pools {
        None => Owner::KindAbsent,
        Some(pools) if pools.contains(pool) => Owner::Exists,
        Some(_) => Owner::Absent,
    }
}

/// What the retirement of a fleet depends on. Its pods are read from the API server.
pub async fn facts(
    client: &Client,
    namespace: &str,
    (fleet, owner): (Fleet, Owner),
    nodes: &Nodes,
    retire_after: u32,
) -> Result<Facts, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (mut proxies, mut removers) = (BTreeSet::new(), BTreeMap::new());
    let pool = &fleet.pool;
    let labelled = |label: &str| ListParams::default().labels(&format!("{label}={pool}"));
    each(&api, &labelled(POOL_LABEL), "the proxies' pods", |pod| {
        if is_proxy_of(&pod, pool) {
            proxies.extend(node_of(&pod).map(str::to_owned));
        }
    })
    .await?;
    if fleet.remover.is_some() {
        each(
            &api,
            &labelled(RETIREMENT_LABEL),
            "the remover's pods",
            |mut pod| {
                watch::trim_pod(&mut pod);
                let is_remover = pod.labels().contains_key(RETIREMENT_LABEL);
                if let Some(node) = node_of(&pod).filter(|_| is_remover) {
                    removers.insert(node.to_owned(), remover(&pod));
                }
            },
        )
        .await?;
    }
    let now = Timestamp::now();
    let of_nodes = nodes.are_ready.iter();
    let nodes = of_nodes.filter_map(|(name, is_ready)| {
        let (has_proxy, remover) = (proxies.contains(name), removers.get(name).cloned());
        (has_proxy || remover.is_some()).then(|| NodeFacts {
            name: name.clone(),
            is_ready: *is_ready,
            has_proxy,
            report: report_of(nodes, pool, name, now),
            remover: remover.unwrap_or_default(),
        })
    });
    Ok(Facts {
        owner,
        nodes: nodes.collect(),
        retire_after,
        now: now.as_second(),
        fleet,
    })
}

fn report_of(nodes: &Nodes, pool: &str, node: &str, now: Timestamp) -> Option<super::facts::Use> {
    let node_count = u32::try_from(nodes.are_ready.len()).unwrap_or(u32::MAX);
    let mut reports = nodes.reports.iter().map(|(_name, report)| report.as_ref());
    let report = reports.find(|report| report.pool == pool && report.node == node)?;
    use_of(report, node_count, now)
}

/// How far a pod of the remover is. One that ends does nothing any more.
fn remover(pod: &Pod) -> Remover {
    if pod.metadata.deletion_timestamp.is_some() {
        return Remover::Absent;
    }
    if is_ready(pod) {
        return Remover::Done;
    }
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let runs = |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
    let is_running = containers
        .into_iter()
        .any(|container| container.state.as_ref().is_some_and(runs));
    if is_running {
        return Remover::Waits;
    }
    let node = node_of(pod).unwrap_or_default();
    let words = failure(pod);
    Remover::Starts(words.map(|words| {
        let of_node = format!("{node}: ");
        words.strip_prefix(&of_node).unwrap_or(&words).to_owned()
    }))
}

/// Whether the API server does not know the kind.
fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Reads all objects in pages, so that those of a large cluster are not in memory at once.
async fn each<K>(
    api: &Api<K>,
    which: &ListParams,
    what: &'static str,
    mut take: impl FnMut(K),
) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut which = which.clone().limit(PAGE);
    loop {
        let page = api.list(&which).await;
        let page = page.map_err(|source| Error { what, source })?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => which = which.continue_token(&token),
            Some(_) | None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        let mut pod = serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "spec": { "nodeName": "w1", "containers": [] },
            "status": status,
        }))
        .unwrap();
        watch::trim_pod(&mut pod);
        pod
    }

    fn container(state: &Value) -> Value {
        json!({ "name": "state", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state })
    }

    #[test]
    fn a_remover_waits_while_it_runs_and_is_done_when_it_is_ready() {
        let running = container(&json!({ "running": {} }));
        let mut status = json!({ "phase": "Running", "containerStatuses": [running] });
        assert_eq!(remover(&pod(&status)), Remover::Waits);
        status["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
        assert_eq!(remover(&pod(&status)), Remover::Done);
        let mut ends = pod(&status);
        ends.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-29T00:00:00Z")).unwrap());
        assert_eq!(remover(&ends), Remover::Absent);
    }

    #[test]
    fn a_remover_that_does_not_run_is_told_in_the_words_of_kubelet() {
        assert_eq!(remover(&pod(&json!({}))), Remover::Starts(None));
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
        let status = json!({ "phase": "Running", "containerStatuses": [container(&waiting)] });
        let Remover::Starts(Some(words)) = remover(&pod(&status)) else {
            panic!("it does not run");
        };
        assert!(words.starts_with("CrashLoopBackOff"), "{words}");
    }

    #[test]
    fn an_unknown_kind_is_no_absent_pool() {
        let pools = BTreeSet::from(["a".to_owned()]);
        assert_eq!(owner("a", Some(&pools)), Owner::Exists);
        assert_eq!(owner("b", Some(&pools)), Owner::Absent);
        assert_eq!(owner("a", None), Owner::KindAbsent);
    }
}
