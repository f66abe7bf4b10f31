//! Which Ready nodes should have a proxy, and what the proxies report.

use super::caches::Caches;
use super::node_count;
use crate::reports::fleet::Fleet;

/// The fleet of the pool that `caches` are about.
pub(super) fn fleet(caches: &Caches) -> Fleet {
    let scoped = caches.scoped();
    let ready = scoped.map(|scoped| scoped.ready.clone()).unwrap_or_default();
    if !caches.are_reports_read {
        return Fleet::unread_by(ready);
    }
    let node_count = node_count(caches).unwrap_or_default();
    Fleet::by(caches.reports.clone(), ready, node_count, caches.at)
}
