//! Why pods do not start, by kubelet's events. Of a sandbox, a directory or a volume that kubelet cannot make, such as on a
//! full disk, the status of the pod says nothing.

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::recent::Unstarted;
use super::words::{EVENTS_INTERVAL, events, failure, latest};
use crate::context::Context;

/// How long a pod may take to start until its events are read.
const STARTS_SECONDS: i64 = 5;

/// What kubelet warns of pods, the results of their probes aside.
const WARNINGS: &str = "involvedObject.kind=Pod,type=Warning,reason!=Unhealthy";

/// The words about those of `pods` that should have started, and whose status does not say why they have not.
pub(super) async fn observe<'a>(ctx: &Context, pool: &str, pods: impl Iterator<Item = &'a Pod>) -> Unstarted {
    let now = Timestamp::now().as_second();
    let late: Vec<_> = pods.filter(|pod| is_late(pod, now)).collect();
    if late.is_empty() {
        return Unstarted::new();
    }
    if let Some((at, words)) = ctx.pool_states.of(pool).unstarted
        && at.elapsed() < EVENTS_INTERVAL
    {
        return words;
    }
    let words = words(&late, &events(ctx, WARNINGS).await);
    ctx.pool_states.change(pool, |state| {
        state.unstarted = Some((Instant::now(), words.clone()));
    });
    words
}

fn is_late(pod: &Pod, now: i64) -> bool {
    let created = pod.creation_timestamp().map(|time| time.0.as_second());
    let is_old = created.is_some_and(|at| now.saturating_sub(at) >= STARTS_SECONDS);
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let has_run = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.running.is_some() || state.terminated.is_some()
    };
    let mut states = containers.flat_map(|container| [&container.state, &container.last_state]);
    let has_started = states.any(|state| state.as_ref().is_some_and(has_run));
    is_old && !has_started && pod.metadata.deletion_timestamp.is_none() && failure(pod).is_none()
}

fn words(pods: &[&Pod], events: &[Event]) -> Unstarted {
    let of = |pod: &&Pod| {
        let own = events
            .iter()
            .filter(|event| event.involved_object.uid == pod.metadata.uid);
        Some((pod.name_any(), latest(own)?))
    };
    pods.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, state: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": uid, "uid": uid, "creationTimestamp": "1970-01-01T00:16:40Z" },
            "spec": { "nodeName": "w1", "containers": [] },
            "status": { "containerStatuses": [{ "name": "proxy", "image": "", "imageID": "", "ready": false,
                                                "restartCount": 0, "state": state }] },
        }))
        .unwrap()
    }

    fn warning(uid: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": { "uid": uid }, "message": message,
        }))
        .unwrap()
    }

    #[test]
    fn only_a_pod_that_should_have_started_and_does_not_say_why_it_has_not_is_late() {
        let creating = pod("a", &json!({ "waiting": { "reason": "ContainerCreating" } }));
        assert!(is_late(&creating, 1005));
        assert!(!is_late(&creating, 1004));
        assert!(!is_late(&pod("a", &json!({ "running": {} })), 2000));
        let told = pod(
            "a",
            &json!({ "waiting": { "reason": "ErrImagePull", "message": "no" } }),
        );
        assert!(!is_late(&told, 2000));
        let ended = pod("a", &json!({ "terminated": { "exitCode": 0 } }));
        assert!(!is_late(&ended, 2000));
        let mut leaving = creating;
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        assert!(!is_late(&leaving, 2000));
    }

    #[test]
    fn each_pod_has_the_words_about_itself() {
        let (a, b) = (pod("a", &json!({})), pod("b", &json!({})));
        let events = [warning("a", "no space left on device"), warning("c", "other")];
        let expected = [("a".to_owned(), "no space left on device".to_owned())];
        assert_eq!(words(&[&a, &b], &events), expected.into());
    }
}
