//! What a pass has read a moment ago, kept so that the next one need not read it again.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use tokio::time::Instant;

/// Kubelet's words about pods that do not start, by the name of the pod.
pub type Unstarted = BTreeMap<String, String>;

/// What the pods of a writer have been seen to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Whether some have not done their task.
    pub are_undone: bool,
    /// Why, each with its node: words of kubelet, the scheduler or the API server.
    pub failures: Vec<String>,
}

/// A look at the pods of a writer. It holds for some seconds, unless the writer changes.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// How far the DaemonSet controller was.
    pub of: Progress,
    /// What was seen.
    pub pods: Pods,
}

/// How far the DaemonSet controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    uid: Option<String>,
    generation: Option<i64>,
    updated: i32,
    ready: i32,
}

impl Progress {
    /// As the status of the writer's DaemonSet tells it.
    pub fn of(daemon_set: &DaemonSet) -> Self {
        let status = daemon_set.status.as_ref();
        Self {
            uid: daemon_set.metadata.uid.clone(),
            generation: daemon_set.metadata.generation,
            updated: status
                .and_then(|status| status.updated_number_scheduled)
                .unwrap_or_default(),
            ready: status.map_or(0, |status| status.number_ready),
        }
    }
}
