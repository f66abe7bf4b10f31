//! What is read from pods, nodes and revisions.

use serde_json::json;

use super::*;
use crate::observe::rows::Row as _;

fn pod(name: &str, template: &str, status: &serde_json::Value) -> Pod {
    let mut pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { POOL_LABEL: "default", TEMPLATE_LABEL: template } },
        "spec": { "nodeName": "w1", "containers": [] },
        "status": status,
    }))
    .unwrap();
    // As the cache has it.
    watch::trim_pod(&mut pod);
    pod
}

fn status(
    state: &serde_json::Value,
    last: &serde_json::Value,
    restarts: u32,
    ready: &str,
) -> serde_json::Value {
    json!({
        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:16:40Z" }],
        "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": ready == "True", "restartCount": restarts,
            "state": state, "lastState": last,
        }],
    })
}

fn running() -> serde_json::Value {
    json!({ "running": {} })
}

fn ended() -> serde_json::Value {
    json!({ "terminated": { "exitCode": 1, "message": "trivet-proxy: no" } })
}

fn facts(pods: &[Pod]) -> NodeFacts {
    let mut facts = NodeFacts::default();
    for pod in pods {
        let row = PodRow::new(Arc::new(pod.clone()));
        add(&mut facts, &row, "b", &Unstarted::new());
    }
    facts
}

#[test]
fn each_end_of_a_container_counts_once_whether_or_not_it_was_restarted() {
    let ends = |state: serde_json::Value, last: serde_json::Value, restarts| {
        newcomer(&pod("new", "b", &status(&state, &last, restarts, "False"))).ends
    };
    let waits = || json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    assert_eq!(ends(running(), json!({}), 0), 0);
    assert_eq!(ends(ended(), json!({}), 0), 1);
    assert_eq!(ends(waits(), ended(), 0), 1);
    assert_eq!(ends(running(), ended(), 1), 1);
    assert_eq!(ends(waits(), ended(), 1), 2);
    assert_eq!(
        ends(
            json!({ "waiting": { "reason": "ContainerCreating" } }),
            json!({}),
            0
        ),
        0
    );
}

#[test]
fn a_new_pod_beside_an_old_one_is_the_newcomer() {
    let new = pod("new", "b", &status(&running(), &json!({}), 0, "True"));
    let old = pod("old", "a", &status(&running(), &json!({}), 0, "True"));
    let seen = facts(&[old.clone(), new.clone()]);
    assert!(seen.has_earlier);
    assert_eq!(seen.earlier_ready_at, Some(1000));
    let newcomer = seen.newcomer.unwrap();
    assert!(newcomer.is_running && newcomer.is_ready);
    assert_eq!(newcomer.ready_at, Some(1000));

    let mut ending = new;
    ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let seen = facts(&[old, ending]);
    assert!(seen.has_earlier && seen.newcomer.is_none());
}

#[test]
fn why_a_newcomer_does_not_run_is_told_without_its_node() {
    let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let seen = newcomer(&pod("new", "b", &status(&waits, &ended(), 1, "False")));
    assert_eq!(seen.words.as_deref(), Some("CrashLoopBackOff: trivet-proxy: no"));
    assert!(!seen.is_running && seen.has_started);
}

#[test]
fn nodes_that_run_no_pods_or_are_gone_are_aside() {
    let node = |ready: &str, pods: &str| -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "w1" },
            "status": { "allocatable": { "pods": pods }, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    };
    assert_eq!(aside(Some(&node("True", "110"))), None);
    assert_eq!(aside(Some(&node("Unknown", "110"))), Some(Aside::NotReady));
    assert_eq!(aside(Some(&node("True", "0"))), Some(Aside::RunsNoPods));
    assert_eq!(aside(None), Some(Aside::RunsNoPods));
}

#[test]
fn the_template_of_a_revision_is_that_of_its_patch() {
    let revision: ControllerRevision = serde_json::from_value(json!({
        "metadata": { "name": "trivet-default-5d" }, "revision": 1,
        "data": { "spec": { "template": {
            "$patch": "replace",
            "metadata": { "creationTimestamp": null, "labels": { TEMPLATE_LABEL: "a" } },
            "spec": { "containers": [{ "name": "proxy", "image": "proxy:1" }], "hostNetwork": true },
        } } },
    }))
    .unwrap();
    let template = content(revision).unwrap();
    assert_eq!(hash(&template), "a");
    let spec = template.spec.unwrap();
    assert_eq!(spec.containers[0].image.as_deref(), Some("proxy:1"));
}

#[test]
fn notes_that_cannot_be_read_are_none() {
    let of = |text: &str| {
        let set = json!({ "metadata": { "annotations": { ROLLOUT: text } } });
        record(&serde_json::from_value(set).unwrap())
    };
    assert_eq!(of("torn"), Record::default());
    let halted = r#"{"good":"a","halted":{"template":"b","node":"w1","cause":"no"},"later":1}"#;
    assert_eq!(of(halted).good, "a");
    assert_eq!(of(halted).halted.unwrap().node, "w1");
    assert_eq!(record(&DaemonSet::default()), Record::default());
}
