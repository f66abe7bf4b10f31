//! Holds back an edit that would take proxies from nodes that have one: kubelets may reach the API only through them, and
//! such a node never hears of the repair.
//!
//! Only an edit is held back. A node that leaves the scope by its own labels or taints is what its owner wants of it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;

use super::Scope;
use crate::plan::facts::Facts;
use crate::plan::permission::named_generation;
use crate::plan::rejection::Rejection;

/// The annotation with which a pool's owner lets an edit take proxies away. Its value is the pool's generation, so that it
/// does not hold for later edits.
pub const ALLOW_SCOPE_SHRINK: &str = "trivet.dev/allow-scope-shrink";

/// Rejects a scope that would take a proxy from a node that has one.
pub fn check(pool: &ApiserverPool, facts: &Facts) -> Result<(), Rejection> {
    let wanted = Scope::wanted(&pool.spec.proxy);
    let in_place = &facts.in_place;
    let is_new = match &in_place.scope {
        Some(scope) => !scope.says_the_same(&wanted),
        // Pods that have lost their DaemonSet serve on. Until they are read, a document tells that there may be some.
        None => in_place
            .nodes
            .as_ref()
            .map_or(facts.current.version.is_some(), |nodes| !nodes.is_empty()),
    };
    if !is_new || named_generation(pool, ALLOW_SCOPE_SHRINK).is_some() {
        return Ok(());
    }
    if facts.nodes.is_empty() {
        return Err(Rejection::NodesUnknown);
    }
    let are_proxies_known = in_place.scope.is_some() || in_place.nodes.is_some();
    let may_have = |node: &Node| in_place.has(node) || !are_proxies_known;
    let loses = |node: &Node| may_have(node) && wanted.placement(node) < in_place.placement(node);
    let losing = facts.nodes.iter().filter(|node| loses(node));
    let nodes: BTreeSet<_> = losing.map(|node| node.name_any()).collect();
    if nodes.is_empty() {
        Ok(())
    } else if are_proxies_known {
        Err(Rejection::ScopeWouldShrink { nodes })
    } else {
        Err(Rejection::NodesUnknown)
    }
}
