//! What a pass would do with a pool: the facts are read once, as a pass reads them, the plan is made, and nothing is written.
//! `kubectl trivet plan` shows it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use trivet_crds::POOL_LABEL;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus, MemberHealth};
use trivet_crds::report::ProxyReport;
use trivet_crds::wire;

use crate::api::client::Access;
use crate::context::{Context, PoolStates};
use crate::health::{Answer, Healths};
use crate::leader::Leadership;
use crate::observe::{self, bootstrap, observe, proxies};
use crate::plan::{Facts, Memory, Plan, plan};
use crate::pools::StoredPool;
use crate::prober::Prober;
use crate::render::Settings;
use crate::reports::Reports;
use crate::serve::readiness::Readiness;

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Where the facts come from.
#[derive(Clone)]
pub struct Source {
    /// The client that reads them. It needs the operator's rights to read.
    pub client: Client,
    /// Whose authorities verify members.
    pub access: Access,
    /// What the operator was started with.
    pub settings: Settings,
}

/// A plan, and what it was made from.
#[derive(Clone, Debug)]
pub struct Preview {
    /// What was read.
    pub facts: Facts,
    /// What a pass would do.
    pub plan: Plan,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What a pass would have in its caches cannot be read.
    #[error("failed to list {kind}")]
    List {
        /// The kind of the objects.
        kind: String,
        /// Why.
        source: kube::Error,
    },
    /// What a pass reads itself cannot be read.
    #[error("failed to observe")]
    Observe(#[from] observe::Error),
    /// The document could not be serialised.
    #[error("failed to serialise the document")]
    Document(#[from] wire::Error),
}

/// The plan for `pool`, whose spec need not be the one in the cluster. `seen` is the status of the one in the cluster: the
/// operator's probes decide, not those of this machine.
pub async fn preview(
    pool: &ApiserverPool,
    seen: Option<&ApiserverPoolStatus>,
    source: Source,
) -> Result<Preview, Error> {
    let ctx = Box::pin(context(source)).await?;
    let name = pool.name_any();
    let (daemon_set, writer) = tokio::try_join!(
        Box::pin(proxies::read(&ctx, &name)),
        Box::pin(bootstrap::observe(&ctx, &name))
    )?;
    let observed = Box::pin(observe(pool, &ctx, (daemon_set, &writer), Memory::default())).await?;
    let mut facts = observed.facts;
    // The operator has told what it sees by the document in force.
    let now = facts.now;
    let in_force = facts.healths_by_last_good.as_mut().unwrap_or(&mut facts.healths);
    *in_force = as_the_operator_sees(in_force, seen, now);
    let plan = plan(pool, &facts)?;
    Ok(Preview { facts, plan })
}

/// The health of the members as the operator has told it, and that of other addresses as it is seen from here.
fn as_the_operator_sees(healths: &Healths, seen: Option<&ApiserverPoolStatus>, now: Instant) -> Healths {
    let members = seen.map(|status| status.members.as_slice()).unwrap_or_default();
    let mut told = BTreeMap::new();
    for member in members {
        let answer = match member.health {
            MemberHealth::Up => Answer::Ready,
            MemberHealth::Unready => Answer::NotReady(member.message.clone()),
            MemberHealth::Down => Answer::Silent,
            MemberHealth::Unknown => continue,
        };
        for address in member.addresses.iter().filter_map(|address| address.parse().ok()) {
            told.insert(SocketAddr::new(address, member.port), answer.clone());
        }
    }
    let mut healths = healths.clone();
    healths.retain(|address| !told.contains_key(address));
    for (address, answer) in told {
        healths.observe(address, answer, now);
    }
    healths
}

/// A context whose caches have been filled once. No part of the operator runs on it.
async fn context(source: Source) -> Result<Context, Error> {
    let Source {
        client,
        access,
        settings,
    } = source;
    let readiness = Arc::new(Readiness::default());
    let everywhere = ListParams::default();
    let of_pools = ListParams::default().labels(POOL_LABEL);
    let (nodes, pods, pools, reports) = tokio::try_join!(
        all::<Node>(Api::all(client.clone()), &everywhere),
        all::<Pod>(Api::namespaced(client.clone(), &settings.namespace), &of_pools),
        all::<StoredPool>(Api::all(client.clone()), &everywhere),
        reports(client.clone()),
    )?;
    Ok(Context {
        recorder: Recorder::new(client.clone(), crate::MANAGER.into()),
        client,
        access,
        nodes: read("Node", nodes, &readiness),
        pods: read("Pod", pods, &readiness),
        pools: read("ApiserverPool", pools, &readiness),
        reports,
        prober: Prober::new().0,
        settings,
        metrics: Arc::default(),
        readiness,
        leadership: Arc::new(Leadership::new().0),
        watchdog: Arc::default(),
        pool_states: PoolStates::default(),
    })
}

/// Every object of a kind, in pages.
async fn all<K>(api: Api<K>, which: &ListParams) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    let mut params = which.clone().limit(PAGE);
    loop {
        let page = api.list(&params).await.map_err(|source| Error::List {
            kind: K::plural(&()).into_owned(),
            source,
        })?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// The proxies' reports. Where their CRD is absent there are none, as for the operator.
async fn reports(client: Client) -> Result<Reports, Error> {
    let reports = Reports::default();
    let found = match all::<DeserializeGuard<ProxyReport>>(Api::all(client), &ListParams::default()).await {
        Ok(found) => found,
        Err(Error::List {
            source: kube::Error::Api(status),
            ..
        }) if status.code == 404 => return Ok(reports),
        Err(error) => return Err(error),
    };
    reports.observe(Event::Init);
    // As for the operator, one that cannot be read is none.
    for report in found
        .into_iter()
        .filter_map(|DeserializeGuard(report)| report.ok())
    {
        reports.observe(Event::InitApply(report));
    }
    reports.observe(Event::InitDone);
    Ok(reports)
}

/// A cache with these objects, which have been read.
fn read<K>(kind: &'static str, objects: Vec<K>, readiness: &Readiness) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    readiness.observe::<K>(kind, &Ok(Event::InitDone));
    store
}

#[cfg(test)]
mod tests;
