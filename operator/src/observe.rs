//! Reads what a plan needs to know. It decides nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::{Instant, timeout};
use trivet_crds::pool::{ApiserverPool, DiscoveryPolicy};
use trivet_crds::wire::{self, Document};
use trivet_crds::{POOL_LABEL, data_plane_name};

use crate::api::client;
use crate::context::Context;
use crate::health::Healths;
use crate::plan::conflict::{Precedence, Rival, claims};
use crate::plan::facts::Discovered;
use crate::plan::masters::masters;
use crate::plan::{self, Facts, Memory};
use crate::resolve;

mod clock;
pub mod in_force;
pub mod proxies;

/// How long a pass waits for the nodes after a start. Where they cannot be read, pools still follow their spec.
const NODES_WAIT: Duration = Duration::from_secs(5);

/// Why the world cannot be read.
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
    /// The cluster's authorities are unknown.
    #[error("failed to read whom members are verified by")]
    Authorities(#[from] client::Error),
}

impl Error {
    /// One fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Documents { .. } => "DocumentsUnreadable",
            Self::DaemonSet { .. } => "DaemonSetUnreadable",
            Self::Authorities(_) => "AuthoritiesUnreadable",
        }
    }
}

/// Reads everything that matters for `pool`.
pub async fn observe(pool: &ApiserverPool, ctx: &Context, memory: Memory) -> Result<Facts, Error> {
    let name = pool.name_any();
    let (documents, resolved, authorities, ()) = tokio::join!(
        documents(ctx),
        resolve::names(&pool.spec),
        ctx.access.authorities(),
        wait_for_nodes(pool, ctx),
    );
    let (documents, authorities) = (documents?, authorities?);
    let own = documents
        .iter()
        .find(|map| map.name_any() == data_plane_name(&name));
    let mut facts = Facts {
        now: Instant::now(),
        unix_seconds: clock::unix_seconds(Timestamp::now(), &pool.metadata, own.map(|map| &map.metadata)),
        discovered: discovered(pool, ctx),
        node_count: node_count(ctx),
        resolved,
        current: in_force::current(pool, own),
        healths: Healths::default(),
        precedence: precedence(pool, &documents),
        rivals: rivals(pool, ctx, &documents),
        authorities,
        memory,
    };
    let tls = plan::document::tls(&pool.spec, &facts);
    facts.healths = ctx.prober.healths(&name, tls, addresses(pool, &facts)).await;
    facts.now = Instant::now();
    Ok(facts)
}

async fn wait_for_nodes(pool: &ApiserverPool, ctx: &Context) {
    if pool.spec.discovery.policy == DiscoveryPolicy::Nodes {
        // Where they stay unread, discovery says so to the plan.
        timeout(NODES_WAIT, ctx.readiness.read("Node")).await.ok();
    }
}

/// Every pool's ConfigMap, straight from the API server: a cache may be older than the operator's own last write.
async fn documents(ctx: &Context) -> Result<Vec<ConfigMap>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let list = api.list(&ListParams::default().labels(POOL_LABEL)).await;
    let namespace = || ctx.settings.namespace.clone();
    Ok(list
        .map_err(|source| Error::Documents {
            namespace: namespace(),
            source,
        })?
        .items)
}

fn discovered(pool: &ApiserverPool, ctx: &Context) -> Discovered {
    match pool.spec.discovery.policy {
        DiscoveryPolicy::None => Discovered::Off,
        DiscoveryPolicy::Nodes => {
            let nodes = ctx.nodes.state();
            // No cluster is without nodes: this operator runs on one.
            if nodes.is_empty() {
                return Discovered::Unknown;
            }
            let selector = &pool.spec.discovery.node_selector;
            Discovered::Masters(masters(nodes.iter().map(AsRef::as_ref), selector))
        }
    }
}

fn node_count(ctx: &Context) -> Option<u32> {
    u32::try_from(ctx.nodes.len()).ok().filter(|count| *count > 0)
}

fn has_document(name: &str, documents: &[ConfigMap]) -> bool {
    documents
        .iter()
        .any(|map| map.name_any() == data_plane_name(name))
}

fn precedence(pool: &ApiserverPool, documents: &[ConfigMap]) -> Precedence {
    let name = pool.name_any();
    Precedence {
        is_idle: !has_document(&name, documents),
        created: pool
            .creation_timestamp()
            .map_or(i64::MAX, |time| time.0.as_second()),
        name,
    }
}

/// The other pools, and the documents whose pool is gone while their proxies still run.
fn rivals(pool: &ApiserverPool, ctx: &Context, documents: &[ConfigMap]) -> Vec<Rival> {
    let pools = ctx.pools.state();
    let others = pools.iter().filter(|other| other.name_any() != pool.name_any());
    let living = others.filter_map(|other| {
        let listeners = plan::document::listeners(&other.spec).ok()?;
        Some(Rival {
            precedence: precedence(other, documents),
            has_pool: true,
            claims: claims(&listeners, &other.spec.proxy.metrics),
        })
    });
    let left_over = documents.iter().filter_map(|map| {
        let document = Document::parse(map.data.as_ref()?.get(wire::KEY)?).ok()?;
        let has_pool = pools.iter().any(|other| other.name_any() == document.pool);
        let is_own = document.pool == pool.name_any();
        (!has_pool && !is_own).then(|| Rival {
            precedence: Precedence {
                is_idle: false,
                created: i64::MIN,
                name: document.pool.clone(),
            },
            has_pool: false,
            claims: document
                .listeners
                .iter()
                .flat_map(|l| l.addresses.iter().map(|address| (*address, l.port)))
                .collect(),
        })
    });
    living.chain(left_over).collect()
}

/// Every address that the plan may ask about: of what is wanted, of what is in force, and where a node has moved to.
fn addresses(pool: &ApiserverPool, facts: &Facts) -> BTreeSet<SocketAddr> {
    let wanted = plan::members::wanted(&pool.spec, facts).members;
    let wanted = wanted
        .iter()
        .flat_map(|m| m.addresses.iter().map(|ip| SocketAddr::new(*ip, m.port)));
    let current = facts.current.members.iter();
    let current = current.flat_map(|m| m.addresses.iter().map(|ip| SocketAddr::new(*ip, m.port)));
    let Discovered::Masters(masters) = &facts.discovered else {
        return wanted.chain(current).collect();
    };
    let port = pool.spec.discovery.port;
    let nodes = masters
        .iter()
        .flat_map(|m| m.addresses.iter().map(|ip| SocketAddr::new(*ip, port)));
    // A selector that matches every node of a large cluster is refused by the plan, and must not be probed before.
    wanted
        .chain(current)
        .chain(nodes)
        .take(4 * wire::MAX_MEMBERS)
        .collect()
}
