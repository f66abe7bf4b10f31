//! Reads the facts for a plan. It decides nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::{Instant, timeout};
use trivet_crds::pool::{ApiserverPool, Discovery, DiscoveryPolicy};
use trivet_crds::wire;
use trivet_crds::{POOL_LABEL, data_plane_name};

use crate::api::client;
use crate::context::Context;
use crate::health::Healths;
use crate::logging::chain;
use crate::plan::endpoints::Endpoint;
use crate::plan::facts::Discovered;
use crate::plan::masters::{Origin, masters};
use crate::plan::scope::Scope;
use crate::plan::scope::in_place::InPlace;
use crate::plan::wave::WaveFacts;
use crate::plan::{self, Facts, Memory};
use crate::pools::StoredPool;
use crate::prober::in_force_key;
use crate::render::daemon_set::Template;
use crate::reports;
use crate::resolve;

pub mod availability;
pub mod bootstrap;
pub mod caches;
mod clock;
mod fleet;
mod hindrances;
pub mod in_force;
pub mod proxies;
pub mod recent;
pub mod replacement;
pub mod rivals;
pub mod rows;
pub mod unstarted;
pub mod wave;
pub(crate) mod words;

use self::bootstrap::Bootstrap;
use self::caches::Caches;
use self::proxies::Proxies;

/// How long a pass waits for the nodes after a start. If they cannot be read, pools still follow their spec.
const NODES_WAIT: Duration = Duration::from_secs(5);

/// Why the facts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The documents in force are unknown; without them nothing may be written.
    #[error("failed to list the pools' ConfigMaps in namespace {namespace}")]
    Documents {
        /// The namespace.
        namespace: String,
        /// Why.
        source: kube::Error,
    },
    /// The pool's DaemonSet is unknown.
    #[error("failed to read DaemonSet {name}")]
    DaemonSet {
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// Where the proxies of other pools listen is unknown.
    #[error("failed to list the DaemonSets in namespace {namespace}")]
    DaemonSets {
        /// The namespace.
        namespace: String,
        /// Why.
        source: kube::Error,
    },
    /// The cluster's authorities are unknown.
    #[error("failed to read the authorities that verify members")]
    Authorities(#[from] client::Error),
}

impl Error {
    /// One fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Documents { .. } => "DocumentsUnreadable",
            Self::DaemonSet { .. } | Self::DaemonSets { .. } => "DaemonSetUnreadable",
            Self::Authorities(_) => "AuthoritiesUnreadable",
        }
    }
}

/// What one pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the plan is made from.
    pub facts: Facts,
    /// The proxies.
    pub proxies: Proxies,
    /// The state of the caches that both follow from.
    pub caches: Caches,
}

/// Reads the facts for `pool`, whose DaemonSet, and the writer of whose manifests, have been read before.
pub async fn observe(
    pool: &ApiserverPool,
    ctx: &Context,
    (daemon_set, writer): (Option<DaemonSet>, &Bootstrap),
    memory: Memory,
) -> Result<Observed, Error> {
    let name = pool.name_any();
    let scope = daemon_set.as_ref().and_then(Scope::in_force);
    let is_edited = scope
        .as_ref()
        .is_some_and(|scope| !scope.says_the_same(&Scope::wanted(&pool.spec.proxy)));
    let documents = documents(&name, ctx).await?;
    let own = documents
        .iter()
        .find(|map| map.name_any() == data_plane_name(&name));
    let mut current = in_force::current(pool, own);
    let last_good = plan::last_good::discovery(&current);
    let has_discovery = [&pool.spec.discovery, &last_good]
        .iter()
        .any(|discovery| discovery.policy != DiscoveryPolicy::None);
    let listed = pool.spec.members.iter().flat_map(|member| &member.addresses);
    let (names, authorities, slices, (), ()) = tokio::join!(
        resolve::names(listed.chain(plan::last_good::listed(&current))),
        ctx.access.authorities(),
        endpoint_slices(&name, has_discovery, ctx),
        wait_for_nodes(is_edited || has_discovery, ctx),
        proxies::wait_for_caches(ctx, daemon_set.as_ref()),
    );
    let authorities = authorities?;
    let pools = ctx.pools.state();
    let sets = daemon_sets(&name, &documents, ctx).await?;
    let caches = Caches::now(ctx, &name, scope.as_ref());
    let proxies = proxies::observe(ctx, &name, &caches, daemon_set).await;
    current.told.extend(reports::told(&caches.reports));
    let resolved = ctx
        .pool_states
        .change(&name, |state| state.names.observe(names, Instant::now()));
    let mut hindrances = hindrances::of_watches(&ctx.readiness);
    if pool.spec.discovery.policy == DiscoveryPolicy::EndpointSlices {
        hindrances.extend(hindrances::of_endpoints(&slices));
    }
    let slices = slices.ok().flatten();
    let endpoints = slices.and_then(|slices| endpoints(&slices, &caches));
    let listeners = plan::document::listeners(&pool.spec).unwrap_or_default();
    let in_force = current.document.as_ref();
    let in_force = in_force.map(|document| document.listeners.as_slice());
    let discovered_by_last_good = discovered(&last_good, &caches, endpoints.as_deref());
    let discovered = if pool.spec.discovery == last_good {
        discovered_by_last_good.clone()
    } else {
        discovered(&pool.spec.discovery, &caches, endpoints.as_deref())
    };
    let mut facts = Facts {
        now: Instant::now(),
        unix_seconds: clock::unix_seconds(Timestamp::now(), &pool.metadata, own.map(|map| &map.metadata)),
        discovered,
        discovered_by_last_good,
        endpoints,
        nodes: caches.nodes(),
        node_count: node_count(&caches),
        fleet: fleet::fleet(&caches),
        resolved,
        healths: Healths::default(),
        healths_by_last_good: None,
        in_place: InPlace {
            scope,
            nodes: caches.nodes_with_proxy(),
        },
        precedence: rivals::precedence(pool),
        serving: rivals::serving(in_force, proxies.daemon_set.as_ref(), &listeners),
        rivals: rivals::rivals(pool, &pools, &documents, &sets),
        current,
        authorities,
        hindrances,
        template: Template::wanted(pool, &ctx.settings).hash,
        bootstrap: bootstrap::facts(&ctx.settings, &caches, &proxies, writer),
        waves: WaveFacts::default(),
        memory,
    };
    let document = facts.current.document.as_ref();
    let (by_spec_and_last_good, waves) = tokio::join!(
        healths(pool, ctx, &facts),
        wave::observe(ctx, &name, (&caches, &proxies, &facts.fleet), document)
    );
    (facts.healths, facts.healths_by_last_good) = by_spec_and_last_good;
    facts.waves = waves;
    facts.now = Instant::now();
    // Proxies verify by the server name of the document in force, whatever the spec asks for.
    let seen = ctx.reports.sightings(&name, &facts.fleet, facts.now);
    facts
        .healths_by_last_good
        .as_mut()
        .unwrap_or(&mut facts.healths)
        .see(seen);
    let facts = plan::trust::settle(facts);
    let server_name = &pool.spec.health_check.tls_server_name;
    Ok(Observed {
        facts: plan::trust::judged_by_what_is_in_force(facts, server_name),
        proxies,
        caches,
    })
}

/// The health of the members by the spec and the cluster's authorities, and by the document in force if that has another server
/// name or other authorities: what is asked for must not decide which apiservers are verified before it is obeyed.
async fn healths(pool: &ApiserverPool, ctx: &Context, facts: &Facts) -> (Healths, Option<Healths>) {
    let name = pool.name_any();
    let addresses = addresses(pool, facts);
    let tls = plan::document::tls(&pool.spec, facts);
    let key = in_force_key(&name);
    let Some(in_force) = plan::last_good::other_tls(&tls, &facts.current).cloned() else {
        ctx.prober.forget(&key);
        return (ctx.prober.healths(&name, tls, addresses).await, None);
    };
    let (by_spec, by_last_good) = tokio::join!(
        ctx.prober.healths(&name, tls, addresses.clone()),
        ctx.prober.healths(&key, in_force, addresses),
    );
    (by_spec, Some(by_last_good))
}

async fn wait_for_nodes(are_needed: bool, ctx: &Context) {
    if are_needed {
        // After the time-out the plan sees that the nodes are unknown.
        timeout(NODES_WAIT, ctx.readiness.read("Node")).await.ok();
    }
}

/// Every pool's ConfigMap, straight from the API server: a cache may be older than the operator's own last write. That of
/// `pool` is found without its label too, which somebody may have removed: the next write puts it back.
async fn documents(pool: &str, ctx: &Context) -> Result<Vec<ConfigMap>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let unread = |source| Error::Documents {
        namespace: ctx.settings.namespace.clone(),
        source,
    };
    let list = api.list(&ListParams::default().labels(POOL_LABEL)).await;
    let mut documents = list.map_err(unread)?.items;
    let own = data_plane_name(pool);
    if documents.iter().all(|map| map.name_any() != own) {
        documents.extend(api.get_opt(&own).await.map_err(unread)?);
    }
    Ok(documents)
}

/// The EndpointSlices in which apiservers list themselves. `None` if they are not needed.
async fn endpoint_slices(
    pool: &str,
    are_needed: bool,
    ctx: &Context,
) -> Result<Option<Vec<EndpointSlice>>, kube::Error> {
    if !are_needed {
        return Ok(None);
    }
    let api: Api<EndpointSlice> = Api::namespaced(ctx.client.clone(), "default");
    let of_apiservers = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    match api.list(&of_apiservers).await {
        Ok(list) => Ok(Some(list.items)),
        Err(error) => {
            tracing::warn!(
                pool,
                error = chain(&error),
                "EndpointSlices of default/kubernetes cannot be read"
            );
            Err(error)
        }
    }
}

/// The endpoints, each with its node. Without nodes their names would change once nodes have been read.
fn endpoints(slices: &[EndpointSlice], caches: &Caches) -> Option<Vec<Endpoint>> {
    let nodes: Vec<_> = caches.all_nodes().map(|row| row.node.as_ref()).collect();
    (!nodes.is_empty()).then(|| plan::endpoints::endpoints(slices, &nodes))
}

fn discovered(discovery: &Discovery, caches: &Caches, endpoints: Option<&[Endpoint]>) -> Discovered {
    let nodes = || caches.all_nodes().map(|row| row.node.as_ref());
    match discovery.policy {
        DiscoveryPolicy::None => Discovered::Off,
        DiscoveryPolicy::EndpointSlices => endpoints.map_or(Discovered::Unknown, |endpoints| {
            let nodes: Vec<_> = nodes().collect();
            Discovered::Masters(plan::endpoints::masters(endpoints, &nodes))
        }),
        // No cluster is without nodes: this operator runs on one.
        DiscoveryPolicy::Nodes if caches.node_count() == 0 => Discovered::Unknown,
        DiscoveryPolicy::Nodes => Discovered::Masters(masters(nodes(), &discovery.node_selector)),
    }
}

/// The DaemonSets of all pools, if there is another pool.
async fn daemon_sets(pool: &str, documents: &[ConfigMap], ctx: &Context) -> Result<Vec<DaemonSet>, Error> {
    if is_alone(pool, documents, &ctx.pools.state()) {
        return Ok(Vec::new());
    }
    let namespace = &ctx.settings.namespace;
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(POOL_LABEL)).await;
    Ok(list
        .map_err(|source| Error::DaemonSets {
            namespace: namespace.clone(),
            source,
        })?
        .items)
}

/// Whether there is no other pool. A pool whose object was deleted is found by its document, and one whose document is
/// lost by its object.
fn is_alone(pool: &str, documents: &[ConfigMap], pools: &[Arc<StoredPool>]) -> bool {
    let is_own = |map: &ConfigMap| map.name_any() == data_plane_name(pool);
    documents.iter().all(is_own) && pools.iter().all(|other| other.name_any() == pool)
}

fn node_count(caches: &Caches) -> Option<u32> {
    u32::try_from(caches.node_count()).ok().filter(|count| *count > 0)
}

/// Every address whose health the plan may need: those of the members in force; of the members, nodes and endpoints that the
/// last good spec may add; and of those that this spec asks for.
fn addresses(pool: &ApiserverPool, facts: &Facts) -> BTreeSet<SocketAddr> {
    let last_good = plan::last_good::members(facts);
    let last_good_port = plan::last_good::discovery(&facts.current).port;
    let wanted = plan::members::wanted(&pool.spec, facts).members;
    let current = facts.current.members.iter().flat_map(wire::Member::sockets);
    let by_last_good = last_good
        .iter()
        .flat_map(plan::Member::sockets)
        .chain(sockets(&facts.discovered_by_last_good, last_good_port))
        .chain(facts.endpoints.iter().flatten().map(|endpoint| endpoint.socket));
    let by_this = wanted
        .iter()
        .flat_map(plan::Member::sockets)
        .chain(sockets(&facts.discovered, pool.spec.discovery.port));
    let mut addresses = BTreeSet::new();
    for socket in current.chain(by_last_good).chain(by_this) {
        // Limited, because a selector may match every node of a large cluster. The plan rejects it, but only after the
        // probes; what the last good spec looks for comes first, because discovery goes on by it.
        if addresses.len() >= 4 * wire::MAX_MEMBERS {
            break;
        }
        addresses.insert(socket);
    }
    addresses
}

/// Where discovered apiservers listen; `port` is that of nodes.
fn sockets(discovered: &Discovered, port: u16) -> Vec<SocketAddr> {
    let Discovered::Masters(masters) = discovered else {
        return Vec::new();
    };
    let sockets = masters.iter().flat_map(|master| {
        let port = match master.origin {
            Origin::Node => port,
            Origin::EndpointSlice { port, .. } => port,
        };
        master.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
    });
    sockets.collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use kube::api::ObjectMeta;
    use trivet_crds::pool::ApiserverPoolSpec;

    use super::*;
    use crate::plan::masters::Master;
    use crate::plan::tests;

    #[test]
    fn masters_and_endpoints_of_the_last_good_spec_are_probed_though_the_spec_looks_for_others() {
        let ip = |number: u16| IpAddr::from(Ipv4Addr::from_bits((10 << 24) | u32::from(number)));
        let master = |number| Master {
            name: format!("cp{number}"),
            addresses: vec![ip(number)],
            ..Master::default()
        };
        let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        pool.spec.discovery.port = 7000;
        let document = tests::document();
        let mut facts = Facts {
            // A selector that matches every node of a large cluster.
            discovered: Discovered::Masters((10..=999).map(master).collect()),
            // A master that joins, and one that is believed to be at its old address until it answers at the new one.
            discovered_by_last_good: Discovered::Masters(vec![
                Master {
                    name: "cp1".to_owned(),
                    ..master(5)
                },
                master(4),
            ]),
            endpoints: Some(vec![Endpoint {
                socket: SocketAddr::new(ip(6), 6443),
                node_name: String::new(),
            }]),
            ..tests::facts()
        };
        facts.current.members.clone_from(&document.members);
        facts.current.document = Some(document);
        let probed = addresses(&pool, &facts);
        for (number, port) in [(1, 6443), (4, 6443), (5, 6443), (6, 6443), (10, 7000)] {
            let socket = SocketAddr::new(ip(number), port);
            assert!(probed.contains(&socket), "{socket}");
        }
        assert!(probed.len() <= 4 * wire::MAX_MEMBERS);
    }

    #[test]
    fn a_pool_without_its_object_or_its_document_is_another_pool_all_the_same() {
        let document = |pool: &str| ConfigMap {
            metadata: ObjectMeta {
                name: Some(data_plane_name(pool)),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let object =
            |pool: &str| Arc::new(ApiserverPool::new(pool, serde_json::from_str("{}").unwrap()).into());
        assert!(is_alone("a", &[document("a")], &[object("a")]));
        assert!(is_alone("a", &[], &[object("a")]));
        assert!(!is_alone("a", &[document("a"), document("b")], &[object("a")]));
        assert!(!is_alone("a", &[document("a")], &[object("a"), object("b")]));
    }
}
