//! Reads which Ready nodes should have a proxy, and what the proxies report.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{node_count, nodes};
use crate::api::watch;
use crate::context::Context;
use crate::plan::scope::{Placement, Scope};
use crate::reports::fleet::Fleet;

/// The fleet of `pool`, whose proxies have this DaemonSet.
pub(super) fn fleet(ctx: &Context, pool: &str, daemon_set: Option<&DaemonSet>) -> Fleet {
    let scope = daemon_set.and_then(Scope::in_force);
    let should_have = |scope: &Scope| {
        let nodes = nodes(ctx).into_iter();
        nodes
            .filter(|node| watch::is_ready(node) && scope.placement(node) == Placement::Placed)
            .map(|node| node.name_any())
            .collect::<Vec<_>>()
    };
    let ready = scope.as_ref().map(should_have).unwrap_or_default();
    if !ctx.reports.has_read() {
        return Fleet::unread(ready);
    }
    let node_count = node_count(ctx).unwrap_or_default();
    Fleet::of(ctx.reports.of(pool), ready, node_count, Timestamp::now())
}
