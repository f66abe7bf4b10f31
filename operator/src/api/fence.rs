//! The one place that every write of the operator passes: none leaves a process that does not lead.
//!
//! It is a part of the client, so that it holds for each write that there is, and for those that are added. Only the
//! election has a client without it, for its Lease. What has passed is fenced by its resourceVersion, see
//! [`crate::leader::take`].

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use crate::leader::{Leadership, NotLeader};
use crate::serve::metrics::Metrics;

/// Refuses the writes of a process that does not lead.
#[derive(Clone, Debug)]
pub struct Fence {
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
}

impl Fence {
    /// A fence that counts what it refuses.
    pub fn new(leadership: Arc<Leadership>, metrics: Arc<Metrics>) -> Self {
        Self { leadership, metrics }
    }

    /// Whether a request with this method may be sent now.
    pub fn check(&self, method: &Method) -> Result<(), NotLeader> {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
        if reads.contains(method) {
            return Ok(());
        }
        self.leadership
            .check(Instant::now())
            .inspect_err(|refused| self.metrics.fenced(refused.reason()))
    }
}

/// Whether a fence has refused the request.
pub fn is_fenced(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(source) if source.is::<NotLeader>())
}

/// Whether the API server has refused a write because the object has changed since it was read.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
