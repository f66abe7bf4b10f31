//! The addresses and ports of other pools: those that their specs claim, and those on which their proxies listen. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use trivet_crds::data_plane_name;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::wire::{self, Document, Listener};

use crate::plan::conflict::{claims, listening};
use crate::plan::document;
use crate::plan::rival::{Claim, Precedence, Rival};
use crate::pools::StoredPool;
use crate::render::daemon_set::metrics_addresses;

mod unread;

use self::unread::Asked;

/// The precedence of a pool: if two claim the same port, the older one gets it.
pub fn precedence<K: Resource>(pool: &K) -> Precedence {
    Precedence {
        created: pool
            .creation_timestamp()
            .map_or(i64::MAX, |time| time.0.as_second()),
        name: pool.name_any(),
    }
}

/// Where a pool's proxies listen: at the document's listeners, and for /metrics at the addresses in their DaemonSet. If the
/// document is lost, the proxies still listen at the listeners of the spec, which are immutable.
pub fn serving(document: Option<&[Listener]>, set: Option<&DaemonSet>, spec: &[Listener]) -> Vec<Claim> {
    let listeners = match (document, set) {
        (Some(listeners), _) => listeners,
        (None, Some(_)) => spec,
        (None, None) => &[],
    };
    let metrics = set.map(metrics_addresses).unwrap_or_default();
    listening(listeners)
        .chain(metrics.iter().map(|socket| (socket.ip(), socket.port())))
        .collect()
}

/// The other pools, and the documents whose pool is gone while their proxies still run. What this release cannot read of them
/// counts as far as it can be read.
pub fn rivals(
    pool: &ApiserverPool,
    pools: &[Arc<StoredPool>],
    documents: &[ConfigMap],
    sets: &[DaemonSet],
) -> Vec<Rival> {
    let others = pools.iter().filter(|other| other.name_any() != pool.name_any());
    let living = others.filter_map(|other| {
        let name = data_plane_name(&other.name_any());
        let asked = asked(other)?;
        let in_force = documents
            .iter()
            .find(|map| map.name_any() == name)
            .and_then(text)
            .map(|text| unread::listeners(&text));
        Some(Rival {
            precedence: precedence(other.as_ref()),
            has_pool: true,
            wanted: claims(&asked.listeners, &asked.metrics),
            serving: serving(in_force.as_deref(), find(sets, &name), &asked.listeners),
        })
    });
    let left_over = documents.iter().filter_map(|map| {
        let document = text(map)?;
        let name = document.get("pool")?.as_str()?;
        let has_pool = pools.iter().any(|other| other.name_any() == name);
        let is_own = name == pool.name_any();
        let listeners = unread::listeners(&document);
        (!has_pool && !is_own).then(|| Rival {
            precedence: Precedence {
                created: i64::MIN,
                name: name.to_owned(),
            },
            has_pool: false,
            wanted: Vec::new(),
            serving: serving(Some(&listeners), find(sets, &data_plane_name(name)), &[]),
        })
    });
    living.chain(left_over).collect()
}

/// Where the spec of a pool asks to listen.
fn asked(pool: &StoredPool) -> Option<Asked> {
    match pool {
        StoredPool::Readable(pool) => Some(Asked {
            listeners: document::listeners(&pool.spec).ok()?,
            metrics: pool.spec.proxy.metrics.clone(),
        }),
        StoredPool::Unreadable(pool) => Some(unread::asked(pool.object.get("spec"))),
    }
}

fn find<'a>(sets: &'a [DaemonSet], name: &str) -> Option<&'a DaemonSet> {
    sets.iter().find(|set| set.name_any() == name)
}

/// The document of a ConfigMap, be it of a later release. One that is torn says nothing of who listens where.
fn text(map: &ConfigMap) -> Option<Value> {
    let text = map.data.as_ref()?.get(wire::KEY)?;
    let is_whole = Document::is_intact(text) || Document::parse(text).is_ok();
    serde_json::from_str(text).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trivet_crds::pool::ApiserverPoolSpec;

    use super::*;
    use crate::plan::conflict::EVERY_ADDRESS;

    fn set(pool: &str, metrics: &str) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": data_plane_name(pool) },
            "spec": { "selector": {}, "template": { "spec": { "containers": [
                { "name": "proxy", "args": ["run", "--metrics-address", metrics, "--log-level", "info"] },
            ] } } },
        }))
        .unwrap()
    }

    fn pool(name: &str) -> ApiserverPool {
        ApiserverPool::new(name, ApiserverPoolSpec::default())
    }

    #[test]
    fn proxies_serve_metrics_where_their_daemon_set_says_not_where_the_spec_asks_to() {
        let mut other = pool("other");
        other.spec.proxy.metrics.port = 7555;
        let rivals = rivals(
            &pool("mine"),
            &[Arc::new(pool("mine").into()), Arc::new(other.into())],
            &[],
            &[set("mine", "127.0.0.1:7777"), set("other", "127.0.0.1:7666")],
        );
        let ports = |claims: &[Claim]| claims.iter().map(|claim| claim.1).collect::<Vec<_>>();
        let [rival] = rivals.as_slice() else {
            panic!("{rivals:?}");
        };
        assert_eq!(ports(&rival.wanted), [7443, 7443, 7555]);
        // Its document is lost, and its proxies go on with their listeners.
        assert_eq!(ports(&rival.serving), [7443, 7443, 7666]);
    }

    #[test]
    fn proxies_that_serve_metrics_at_the_nodes_addresses_hold_the_port_at_each() {
        let mut set = set("other", "127.0.0.1:7444");
        let pod = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        let addresses = json!([{ "name": "TRIVET_METRICS_NODE_ADDRESSES" }]);
        pod.containers[0].env = Some(serde_json::from_value(addresses).unwrap());
        let serving = serving(None, Some(&set), &[]);
        assert_eq!(
            serving,
            [("127.0.0.1".parse().unwrap(), 7444), (EVERY_ADDRESS, 7444)]
        );
    }

    #[test]
    fn a_pool_without_proxies_serves_nowhere() {
        let spec = document::listeners(&ApiserverPoolSpec::default()).unwrap();
        assert!(serving(None, None, &spec).is_empty());
    }
}
