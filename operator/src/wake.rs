//! Wakes the DaemonSet controller where it has forgotten to replace a pod.
//!
//! With `maxSurge` and `minReadySeconds` the controller must look at a DaemonSet again when a new pod has been Ready for
//! `minReadySeconds`. Its queue has one time for a DaemonSet, the earliest. If that is too early for a pod, the controller
//! finds it not available yet and sets no further time, because the status counts the old pod of the node, which is
//! available. The old pod then stays until something else happens to the DaemonSet (so in Kubernetes 1.34). A write of an
//! annotation is enough, and restarts no pod.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::MANAGER;
use crate::context::Context;
use crate::logging::chain;
use crate::observe::replacement::Replacement;

/// The annotation of a DaemonSet with the time at which its controller was last woken.
pub const WOKEN: &str = "trivet.dev/woken";

/// A log line names up to this many pods.
const NAMES_LIMIT: usize = 10;

/// Wakes the controller if the replacement of the pods of `pool` has stalled. Returns the time until it may have.
pub async fn wake(
    ctx: &Context,
    pool: &str,
    daemon_set: Option<&DaemonSet>,
    replacement: &Replacement,
) -> Option<Duration> {
    let daemon_set = daemon_set?;
    let min_ready = min_ready(daemon_set);
    let decision = ctx.pool_states.change(pool, |state| {
        state
            .stalls
            .observe(&replacement.ready, min_ready, Instant::now())
    });
    if decision.overdue.is_empty() {
        return decision.next_look;
    }
    let pods = decision.overdue.iter().take(NAMES_LIMIT).cloned();
    let pods = pods.collect::<Vec<_>>().join(" ");
    match annotate(ctx, daemon_set).await {
        Ok(()) => tracing::info!(
            pool,
            pods,
            "woke the DaemonSet controller: new pods are ready, and it has not deleted the old ones"
        ),
        // The next try is after the pause, as after a wake that did not help.
        Err(error) => tracing::warn!(
            pool,
            pods,
            error = chain(&error),
            "failed to wake the DaemonSet controller, which has not deleted old pods beside ready new ones"
        ),
    }
    decision.next_look
}

fn min_ready(daemon_set: &DaemonSet) -> Duration {
    let seconds = daemon_set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    Duration::from_secs(seconds.unwrap_or_default().try_into().unwrap_or_default())
}

/// Writes the annotation alone. It is not part of the applied object: an apply neither removes nor repeats it.
async fn annotate(ctx: &Context, daemon_set: &DaemonSet) -> Result<(), kube::Error> {
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let patch = json!({ "metadata": {
        // A write that is late must not touch what another leader has written since.
        "resourceVersion": daemon_set.resource_version(),
        "annotations": { WOKEN: Timestamp::now().to_string() },
    } });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = daemon_set.name_any();
    api.patch_metadata(&name, &params, &Patch::Merge(patch)).await?;
    Ok(())
}
