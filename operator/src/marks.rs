//! Marks the proxies' pods whose node has a standby, with the annotation [`trivet_crds::STANDBY`].
//!
//! The chart's policy refuses the deletion of a proxy that serves a node without a standby. The policy sees the pod that is
//! deleted and no other object, so what the node's report says must be on the pod. While nothing changes, nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};
use trivet_crds::report::StandbyState;
use trivet_crds::{POOL_LABEL, STANDBY, STANDBY_READY};

use crate::MANAGER;
use crate::api::fence::is_conflict;
use crate::context::Context;
use crate::logging::chain;
use crate::observe::proxies::{is_proxy_of, node_of};
use crate::reports::NodeReport;

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// The most writes of one look: standbys of a large cluster come and go together, and no deletion by hand is urgent.
const WRITES: usize = 50;

/// Keeps the marks in step with the reports, without end.
pub async fn run(ctx: &Context) {
    let mut is_failing = false;
    loop {
        sleep(LOOK).await;
        ctx.watchdog.beat("marks");
        if !ctx.readiness.has_read("Pod") || !ctx.reports.has_read() {
            continue;
        }
        let Some(_leads) = ctx.leadership.enter(Instant::now()) else {
            continue;
        };
        let reports = ctx.reports.all();
        let node_count = u32::try_from(ctx.nodes.len()).unwrap_or(u32::MAX);
        let changes = changes(&ctx.pods.state(), &reports, node_count, Timestamp::now());
        let outcome = write(ctx, changes).await;
        match &outcome {
            Err(error) if !is_failing => tracing::warn!(
                error = chain(error),
                "failed to mark the proxies' pods whose node has a standby: nobody can delete them by hand"
            ),
            Ok(()) | Err(_) => {}
        }
        is_failing = outcome.is_err();
    }
}

/// A pod, and whether it gets the mark or loses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The pod.
    pub pod: String,
    /// The version of it that this was decided for: a write over another one fails.
    pub version: Option<String>,
    /// Whether its node has a standby.
    pub has_standby: bool,
}

/// The marks that are wrong. Beside another pod of the DaemonSet, as in a rollout, a pod gets no mark: that one is a standby
/// for a moment only.
pub fn changes(
    pods: &[Arc<Pod>],
    reports: &[(String, Arc<NodeReport>)],
    node_count: u32,
    now: Timestamp,
) -> Vec<Change> {
    let has_standby: BTreeMap<_, _> = reports
        .iter()
        .filter(|(_, report)| report.is_fresh(node_count, now))
        .map(|(_, report)| {
            let place = (report.pool.as_str(), report.node.as_str());
            (place, report.standby == StandbyState::Ready)
        })
        .collect();
    let mut by_place = BTreeMap::<_, Vec<&Pod>>::new();
    for pod in pods {
        if let Some(place) = place(pod) {
            by_place.entry(place).or_default().push(pod);
        }
    }
    let mut changes = Vec::new();
    for (place, pods) in by_place {
        let is_marked = |pod: &Pod| {
            pod.annotations()
                .get(STANDBY)
                .is_some_and(|mark| mark == STANDBY_READY)
        };
        let wanted = pods.len() == 1 && has_standby.get(&place).copied().unwrap_or_default();
        let wrong = pods.iter().filter(|pod| is_marked(pod) != wanted);
        changes.extend(wrong.map(|pod| Change {
            pod: pod.name_any(),
            version: pod.resource_version(),
            has_standby: wanted,
        }));
    }
    // What is not true any more comes first.
    changes.sort_by_key(|change| change.has_standby);
    changes
}

/// The pool and the node of a proxy's pod.
fn place(pod: &Pod) -> Option<(&str, &str)> {
    let pool = pod.labels().get(POOL_LABEL)?;
    is_proxy_of(pod, pool).then_some((pool.as_str(), node_of(pod)?))
}

async fn write(ctx: &Context, changes: Vec<Change>) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    for change in changes.into_iter().take(WRITES) {
        let mark = change.has_standby.then_some(STANDBY_READY);
        let patch = json!({ "metadata": {
            // A write that is late must not mark what another leader has judged since, or a pod that is another by now.
            "resourceVersion": change.version,
            "annotations": { STANDBY: mark },
        } });
        match api
            .patch_metadata(&change.pod, &params, &Patch::Merge(patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            // The next look decides by what the pod is then.
            Err(error) if is_conflict(&error) => ctx.metrics.fenced("Conflict"),
            // The others would only wait for the same error.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::Value;
    use trivet_crds::report::ProxyReport;

    use super::*;
    use crate::context::tests::context;

    fn pod(name: &str, node: &str, annotations: &Value) -> Arc<Pod> {
        let mut pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { POOL_LABEL: "default" }, "annotations": annotations },
            "spec": { "nodeName": node, "containers": [] },
        }))
        .unwrap();
        // As the cache has it.
        crate::api::watch::trim_pod(&mut pod);
        Arc::new(pod)
    }

    fn report(node: &str, standby: &str) -> (String, Arc<NodeReport>) {
        let name = format!("default.{node}");
        let report: ProxyReport = serde_json::from_value(json!({
            "metadata": { "name": name },
            "poolName": "default", "nodeName": node, "standby": standby,
            "observedTime": "2026-11-29T00:00:00Z",
        }))
        .unwrap();
        (name, Arc::new(report.into()))
    }

    fn changed(pods: &[Arc<Pod>], reports: &[(String, Arc<NodeReport>)], now: &str) -> Vec<(String, bool)> {
        let changes = changes(pods, reports, 2, now.parse().unwrap());
        let changes = changes.into_iter().map(|change| (change.pod, change.has_standby));
        changes.collect()
    }

    const NOW: &str = "2026-11-29T00:01:00Z";

    #[test]
    fn a_pod_is_marked_while_its_node_reports_a_standby() {
        let marked = json!({ STANDBY: "Ready" });
        let (plain, marked) = (pod("p", "w1", &json!({})), pod("p", "w1", &marked));
        let (with, without) = (report("w1", "Ready"), report("w1", "Stale"));
        let one = |pod: &Arc<Pod>, report: &(String, Arc<NodeReport>), now| {
            changed(std::slice::from_ref(pod), std::slice::from_ref(report), now)
        };
        assert_eq!(one(&plain, &with, NOW), [("p".to_owned(), true)]);
        assert_eq!(one(&marked, &with, NOW), []);
        assert_eq!(one(&marked, &without, NOW), [("p".to_owned(), false)]);
        assert_eq!(one(&plain, &without, NOW), []);
        let late = "2026-11-29T01:00:00Z";
        assert_eq!(
            one(&marked, &with, late),
            [("p".to_owned(), false)],
            "nobody reports"
        );
    }

    #[test]
    fn a_pod_beside_another_one_of_a_rollout_gets_no_mark() {
        let pods = [
            pod("old", "w1", &json!({ STANDBY: "Ready" })),
            pod("new", "w1", &json!({})),
        ];
        let changed = changed(&pods, &[report("w1", "Ready")], NOW);
        assert_eq!(changed, [("old".to_owned(), false)]);
    }

    #[tokio::test]
    async fn a_mark_is_written_only_over_the_version_that_it_was_decided_for() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&sent);
        let ctx = context(move |_, path, body| {
            let body: Value = serde_json::from_str(body).unwrap();
            let version = body["metadata"]["resourceVersion"].clone();
            kept.lock()
                .unwrap()
                .push((path.rsplit('/').next().unwrap().to_owned(), version));
            if path.ends_with("/a") {
                let conflict = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409,
                                       "message": "it has changed", "reason": "Conflict" });
                return (409, conflict.to_string());
            }
            (200, json!({ "metadata": { "name": "b" } }).to_string())
        });
        let of_version = |name: &str, node: &str, version: &str| {
            let mut pod = pod(name, node, &json!({})).as_ref().clone();
            pod.metadata.resource_version = Some(version.to_owned());
            Arc::new(pod)
        };
        let pods = [of_version("a", "w1", "7"), of_version("b", "w2", "8")];
        let reports = [report("w1", "Ready"), report("w2", "Ready")];
        let changes = changes(&pods, &reports, 2, NOW.parse().unwrap());
        write(&ctx, changes).await.unwrap();
        let expected = [("a".to_owned(), json!("7")), ("b".to_owned(), json!("8"))];
        assert_eq!(
            *sent.lock().unwrap(),
            expected,
            "a conflict holds up no other mark"
        );
    }

    #[test]
    fn marks_that_are_not_true_any_more_go_first() {
        let pods = [
            pod("a", "w1", &json!({})),
            pod("b", "w2", &json!({ STANDBY: "Ready" })),
        ];
        let reports = [report("w1", "Ready"), report("w2", "Absent")];
        let changed = changed(&pods, &reports, NOW);
        assert_eq!(changed, [("b".to_owned(), false), ("a".to_owned(), true)]);
    }
}
