//! Why proxies are missing, in the words of those who know: the API server that refuses a pod, the kubelet that cannot
//! start it.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use trivet_crds::{POOL_LABEL, data_plane_name};

use crate::context::Context;
use crate::logging::chain;

/// A status names up to ten nodes, however large the cluster.
const LIMIT: usize = 10;

/// Kubelet's words can be long; the node's events have the rest.
const WORDS_LIMIT: usize = 500;

/// What is wrong with the proxies of `pool`. Empty if nothing is, or nothing can be found out.
pub async fn complaints(ctx: &Context, pool: &str, daemon_set: Option<&DaemonSet>) -> Vec<String> {
    let status = daemon_set.and_then(|daemon_set| daemon_set.status.as_ref());
    let Some(status) = status.filter(|status| status.number_unavailable.unwrap_or_default() > 0) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if status.current_number_scheduled < status.desired_number_scheduled {
        found.extend(refused_pods(ctx, pool).await);
    }
    found.extend(ailing_pods(ctx, pool).await);
    found.truncate(LIMIT);
    found
}

/// The latest refusal to create a pod.
async fn refused_pods(ctx: &Context, pool: &str) -> Option<String> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let name = data_plane_name(pool);
    let fields = format!("involvedObject.kind=DaemonSet,involvedObject.name={name},reason=FailedCreate");
    let events = match api.list(&ListParams::default().fields(&fields)).await {
        Ok(events) => events.items,
        Err(error) => {
            tracing::debug!(
                pool,
                error = chain(&error),
                "events of the proxies cannot be read"
            );
            return None;
        }
    };
    let latest = events
        .into_iter()
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(short(&latest.message?))
}

async fn ailing_pods(ctx: &Context, pool: &str) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    match api
        .list(&ListParams::default().labels(&format!("{POOL_LABEL}={pool}")))
        .await
    {
        Ok(pods) => pods.items.iter().filter_map(ailment).take(LIMIT).collect(),
        Err(error) => {
            tracing::debug!(pool, error = chain(&error), "pods of the proxies cannot be read");
            Vec::new()
        }
    }
}

/// What kubelet or the scheduler says is wrong with a pod.
fn ailment(pod: &Pod) -> Option<String> {
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
        // Every pod is this for a moment.
        if reason == "ContainerCreating" {
            return None;
        }
        let words = [Some(reason), state.message.clone(), ended];
        Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        let mut refused = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        refused.find_map(|condition| condition.message.clone())
    };
    let words = waiting.or_else(unscheduled)?;
    Some(format!("{node}: {}", short(&words)))
}

fn short(words: &str) -> String {
    words
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(WORDS_LIMIT)
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
    fn a_crashing_proxy_s_last_words_are_passed_on() {
        let status = json!({ "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
            "lastState": { "terminated": { "exitCode": 1, "message": "failed to bind\n127.0.0.1:7443" } },
        }] });
        let words = ailment(&pod(&status)).unwrap();
        assert_eq!(
            words,
            "w1: CrashLoopBackOff: back-off 40s: failed to bind 127.0.0.1:7443"
        );
    }

    #[test]
    fn a_pod_that_just_starts_is_no_complaint() {
        let status = json!({ "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ContainerCreating" } },
        }] });
        assert!(ailment(&pod(&status)).is_none());
    }
}
