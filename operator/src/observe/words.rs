//! Why pods do not run, in the words of the API server, the scheduler and kubelet.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::proxies::node_of;
use crate::context::Context;
use crate::logging::chain;

/// Kubelet's messages can be long. The node's events have the rest.
const MESSAGE_LIMIT: usize = 500;

/// The least time between two reads of a DaemonSet's events, for which the API server reads all events of the namespace.
pub(super) const EVENTS_INTERVAL: Duration = Duration::from_secs(5);

/// How the proxy begins its last words, and how Rust does.
const PROGRAM: &str = "trivet-proxy: ";
const PANIC: &str = "thread '";

/// States in which every pod is for a moment.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The latest refusal to create a pod of the DaemonSet with this name.
pub(super) async fn refusal(ctx: &Context, daemon_set: &str) -> Option<String> {
    let about = format!("involvedObject.kind=DaemonSet,involvedObject.name={daemon_set},reason=FailedCreate");
    latest(&events(ctx, &about).await)
}

/// The events of Trivet's namespace with these fields; none if they cannot be read.
pub(super) async fn events(ctx: &Context, fields: &str) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    match api.list(&ListParams::default().fields(fields)).await {
        Ok(events) => events.items,
        Err(error) => {
            tracing::debug!(fields, error = chain(&error), "failed to read the events of pods");
            Vec::new()
        }
    }
}

/// The message of the latest of these events.
pub(super) fn latest<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<String> {
    let at = |event: &&Event| event.last_timestamp.as_ref().map(|time| time.0);
    let message = events.into_iter().max_by_key(at)?.message.as_ref()?;
    Some(short(message))
}

/// The message of kubelet or the scheduler about a pod that does not run.
pub(crate) fn failure(pod: &Pod) -> Option<String> {
    let node = node_of(pod).map_or_else(|| pod.name_any(), str::to_owned);
    let status = pod.status.as_ref()?;
    let containers = [&status.init_container_statuses, &status.container_statuses];
    let waiting = containers.into_iter().flatten().flatten().find_map(unstarted);
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        let mut refused = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        refused.find_map(|condition| condition.message.clone())
    };
    let refused = || {
        let is_failed = status.phase.as_deref() == Some("Failed");
        let words: Vec<_> = [status.reason.clone(), status.message.clone()]
            .into_iter()
            .flatten()
            .collect();
        (is_failed && !words.is_empty()).then(|| words.join(": "))
    };
    let message = waiting.or_else(unscheduled).or_else(refused)?;
    Some(format!("{node}: {}", short(&message)))
}

/// Why a container waits or is not ready, and how it ended before. How one ended that is ready again is history.
fn unstarted(container: &ContainerStatus) -> Option<String> {
    if container.ready {
        return None;
    }
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref();
    let waiting = waiting.map(|waiting| (waiting.reason.clone(), waiting.message.clone()));
    let (reason, message) = waiting.unwrap_or_default();
    if reason
        .as_ref()
        .is_some_and(|reason| STARTING.contains(&reason.as_str()))
    {
        return None;
    }
    let ended = container.last_state.as_ref().and_then(end).or_else(|| end(state));
    let words: Vec<_> = [reason, message, ended].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(": "))
}

/// The last words of a container that has failed, or else how it ended.
fn end(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let words = ended.message.as_deref().and_then(last_words);
    // Kubelet says Error of every program that fails by itself.
    let reason = ended.reason.as_deref().filter(|reason| *reason != "Error");
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    words.or_else(|| Some(format!("ended with exit code {}{reason}", ended.exit_code)))
}

/// What of a container's message is no log. Where a program has left no message of its own, kubelet takes the end of its log
/// (terminationMessagePolicy FallbackToLogsOnError), which starts in the middle of a line.
fn last_words(message: &str) -> Option<String> {
    let mut lines: Vec<_> = message.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.iter().any(|line| is_logged(line)) {
        let first = lines.first()?;
        if !(first.starts_with(PROGRAM) || first.starts_with(PANIC)) {
            lines.remove(0);
        }
        lines.retain(|line| !is_logged(line));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Whether a line is one of a program's log, as text or JSON.
fn is_logged(line: &str) -> bool {
    let time = line.split_whitespace().next().unwrap_or_default();
    line.starts_with('{') || time.parse::<Timestamp>().is_ok()
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

    /// A container in this state, after that one.
    fn container(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
        json!([{ "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                 "state": state, "lastState": last }])
    }

    #[test]
    fn the_last_message_of_a_crashing_proxy_is_passed_on() {
        let status = json!({ "containerStatuses": container(
            &json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } }),
            &json!({ "terminated": { "exitCode": 1, "message": "failed to bind\n127.0.0.1:7443" } }),
        ) });
        let message = failure(&pod(&status)).unwrap();
        assert_eq!(
            message,
            "w1: CrashLoopBackOff: back-off 40s: failed to bind 127.0.0.1:7443"
        );
    }

    #[test]
    fn of_the_end_of_a_log_only_an_error_is_passed_on() {
        let partial = "ts=1 a line without its beginning\n";
        let log = "2026-11-29T05:53:47.515427Z  INFO trivet_proxy::listener: listening\n\
                   {\"timestamp\":\"2026-11-29T05:53:47Z\",\"level\":\"INFO\"}\n";
        for (log, reason, words) in [
            (format!("{partial}{log}"), "Error", "ended with exit code 137"),
            (
                log.to_owned(),
                "OOMKilled",
                "ended with exit code 137 (OOMKilled)",
            ),
            (
                format!("{partial}{log}trivet-proxy: failed to read x\n"),
                "Error",
                "trivet-proxy: failed to read x",
            ),
            (
                format!("thread 'main' panicked at src/main.rs:1:1:\nno\n{log}"),
                "Error",
                "thread 'main' panicked at src/main.rs:1:1: no",
            ),
        ] {
            let last = json!({ "terminated": { "exitCode": 137, "reason": reason, "message": log } });
            let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
            let status = json!({ "containerStatuses": container(&waits, &last) });
            let message = failure(&pod(&status)).unwrap();
            assert_eq!(message, format!("w1: CrashLoopBackOff: {words}"));
        }
    }

    #[test]
    fn a_container_that_is_ready_again_is_no_failure() {
        let last = json!({ "terminated": { "exitCode": 137, "reason": "Error" } });
        let mut containers = container(&json!({ "running": {} }), &last);
        let status = json!({ "containerStatuses": containers });
        assert_eq!(
            failure(&pod(&status)).as_deref(),
            Some("w1: ended with exit code 137")
        );
        containers[0]["ready"] = json!(true);
        let status = json!({ "containerStatuses": containers });
        assert_eq!(failure(&pod(&status)), None);
    }

    #[test]
    fn a_pod_that_starts_or_runs_is_no_failure() {
        for state in [
            json!({ "waiting": { "reason": "ContainerCreating" } }),
            json!({ "waiting": { "reason": "PodInitializing" } }),
            json!({ "running": {} }),
            json!({ "terminated": { "exitCode": 0, "message": "written" } }),
        ] {
            let container = container(&state, &json!({}));
            let status = json!({ "initContainerStatuses": container, "containerStatuses": container });
            assert_eq!(failure(&pod(&status)), None, "{state}");
        }
    }

    #[test]
    fn a_writer_that_has_failed_says_why_before_and_during_its_back_off() {
        let ended = json!({ "terminated": { "exitCode": 1, "message": "read-only file system" } });
        let waits = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } });
        for (state, last, words) in [
            (&ended, &json!({}), "w1: read-only file system"),
            (
                &waits,
                &ended,
                "w1: CrashLoopBackOff: back-off 40s: read-only file system",
            ),
        ] {
            let held = container(&json!({ "waiting": { "reason": "PodInitializing" } }), &json!({}));
            let status =
                json!({ "initContainerStatuses": container(state, last), "containerStatuses": held });
            assert_eq!(failure(&pod(&status)).as_deref(), Some(words));
        }
    }

    #[test]
    fn a_pod_that_kubelet_has_refused_says_why() {
        let status = json!({ "phase": "Failed", "reason": "OutOfpods", "message": "too many pods" });
        assert_eq!(
            failure(&pod(&status)).as_deref(),
            Some("w1: OutOfpods: too many pods")
        );
        let ends = json!({ "phase": "Running", "reason": "NodeLost", "message": "the node is lost" });
        assert_eq!(failure(&pod(&ends)), None);
    }

    #[test]
    fn of_several_events_the_latest_counts() {
        let event = |second: u8, message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "message": message,
                "lastTimestamp": format!("2026-01-01T00:00:0{second}Z"),
            }))
            .unwrap()
        };
        assert_eq!(
            latest(&[event(2, "new"), event(1, "old")]).as_deref(),
            Some("new")
        );
        assert_eq!(latest(&[]), None);
    }
}
