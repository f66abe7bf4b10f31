//! Reads a pool's DaemonSet, and why its pods fail: what the API server says when it refuses a pod, and what kubelet
//! says when it cannot start one.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use trivet_crds::{POOL_LABEL, data_plane_name};

use super::Error;
use crate::context::Context;
use crate::logging::chain;

/// A status names up to ten nodes, however large the cluster.
const LIMIT: usize = 10;

/// Kubelet's messages can be long. The node's events have the rest.
const MESSAGE_LIMIT: usize = 500;

/// The DaemonSet of `pool`, if there is one.
pub async fn daemon_set(ctx: &Context, pool: &str) -> Result<Option<DaemonSet>, Error> {
    let name = data_plane_name(pool);
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    api.get_opt(&name)
        .await
        .map_err(|source| Error::DaemonSet { name, source })
}

/// Why pods of `pool` fail. Empty if all of them are available, or if the reasons cannot be read.
pub async fn failures(ctx: &Context, pool: &str, daemon_set: Option<&DaemonSet>) -> Vec<String> {
    let status = daemon_set.and_then(|daemon_set| daemon_set.status.as_ref());
    let Some(status) = status.filter(|status| status.number_unavailable.unwrap_or_default() > 0) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if status.current_number_scheduled < status.desired_number_scheduled {
        found.extend(refused_pod(ctx, pool).await);
    }
    found.extend(failing_pods(ctx, pool).await);
    found.truncate(LIMIT);
    found
}

/// The latest refusal to create a pod.
async fn refused_pod(ctx: &Context, pool: &str) -> Option<String> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let name = data_plane_name(pool);
    let fields = format!("involvedObject.kind=DaemonSet,involvedObject.name={name},reason=FailedCreate");
    let events = match api.list(&ListParams::default().fields(&fields)).await {
        Ok(events) => events.items,
        Err(error) => {
            tracing::debug!(
                pool,
                error = chain(&error),
                "failed to read the events of the proxies"
            );
            return None;
        }
    };
    let latest = events
        .into_iter()
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(short(&latest.message?))
}

async fn failing_pods(ctx: &Context, pool: &str) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    match api
        .list(&ListParams::default().labels(&format!("{POOL_LABEL}={pool}")))
        .await
    {
        Ok(pods) => pods.items.iter().filter_map(failure).take(LIMIT).collect(),
        Err(error) => {
            tracing::debug!(
                pool,
                error = chain(&error),
                "failed to read the pods of the proxies"
            );
            Vec::new()
        }
    }
}

/// What kubelet or the scheduler says about a pod that does not run.
fn failure(pod: &Pod) -> Option<String> {
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .unwrap_or_else(|| pod.name_any());
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?.waiting.as_ref()?;
        let ended = container
            .last_state
            .as_ref()
            .and_then(|last| last.terminated.as_ref()?.message.clone());
        let reason = state.reason.clone()?;
        // Every pod is in this state for a moment.
        if reason == "ContainerCreating" {
            return None;
        }
        let message = [Some(reason), state.message.clone(), ended];
        Some(message.into_iter().flatten().collect::<Vec<_>>().join(": "))
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        let mut refused = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        refused.find_map(|condition| condition.message.clone())
    };
    let message = waiting.or_else(unscheduled)?;
    Some(format!("{node}: {}", short(&message)))
}

fn short(message: &str) -> String {
    message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MESSAGE_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "trivet-default-x" }, "spec": { "nodeName": "w1", "containers": [] },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_last_message_of_a_crashing_proxy_is_passed_on() {
        let status = json!({ "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
            "lastState": { "terminated": { "exitCode": 1, "message": "failed to bind\n127.0.0.1:7443" } },
        }] });
        let message = failure(&pod(&status)).unwrap();
        assert_eq!(
            message,
            "w1: CrashLoopBackOff: back-off 40s: failed to bind 127.0.0.1:7443"
        );
    }

    #[test]
    fn a_pod_that_starts_is_no_failure() {
        let status = json!({ "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ContainerCreating" } },
        }] });
        assert!(failure(&pod(&status)).is_none());
    }
}
