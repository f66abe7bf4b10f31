//! What is read of a writer and of the proxies that it depends on.

use serde_json::{Value, json};

use super::*;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A writer that removes, of generation 3, with these fields of its status.
fn remover(status: &Value) -> DaemonSet {
    let mut full = json!({
        "observedGeneration": 3, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberReady": 2, "numberMisscheduled": 0,
    });
    full.as_object_mut()
        .unwrap()
        .extend(status.as_object().unwrap().clone());
    object(json!({
        "metadata": { "generation": 3, "labels": { TEMPLATE_LABEL: "0a1b2c3d4e" } },
        "spec": { "selector": {}, "template": { "spec": {
            "containers": [],
            "initContainers": [{ "name": "write", "args": ["remove-manifest"] }],
            "volumes": [{ "name": "manifests", "hostPath": { "path": "/etc/kubelet.d" } }],
        } } },
        "status": full,
    }))
}

#[test]
fn a_task_is_done_once_every_node_has_run_its_newest_pod() {
    let is_done = |status: &Value, are_undone: bool| {
        let pods = Pods {
            are_undone,
            ..Pods::default()
        };
        writer(&remover(status), &pods).unwrap().is_done
    };
    assert!(is_done(&json!({}), false));
    assert!(
        is_done(&json!({ "numberReady": 1 }), false),
        "it ran, and its node is lost since"
    );
    assert!(
        !is_done(&json!({}), true),
        "a pod has not ended its task, or kubelet has refused it"
    );
    assert!(
        !is_done(&json!({ "observedGeneration": 2 }), false),
        "an earlier template"
    );
    assert!(
        !is_done(&json!({ "updatedNumberScheduled": 1 }), false),
        "an earlier pod"
    );
    assert!(!is_done(&json!({ "currentNumberScheduled": 1 }), false), "no pod");
    let mut unseen = remover(&json!({}));
    unseen.status = None;
    assert!(
        !writer(&unseen, &Pods::default()).unwrap().is_done,
        "the controller has not looked"
    );
}

#[test]
fn only_a_writer_that_is_ready_everywhere_needs_no_look_at_its_pods() {
    assert!(is_settled(&remover(&json!({}))));
    for status in [
        json!({ "numberReady": 1 }),
        json!({ "updatedNumberScheduled": 1 }),
        json!({ "observedGeneration": 2 }),
    ] {
        assert!(!is_settled(&remover(&status)), "{status}");
    }
}

#[test]
fn a_pod_that_waits_for_its_directory_has_the_words_of_kubelet() {
    let pod = |name: &str, node: &str| -> Pod {
        object(json!({
            "metadata": { "name": name, "uid": name }, "spec": { "nodeName": node, "containers": [] },
            "status": { "initContainerStatuses": [{
                "name": "write", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "PodInitializing" } },
            }] },
        }))
    };
    let event = |uid: &str| -> Event {
        object(json!({
            "metadata": {}, "involvedObject": { "kind": "Pod", "uid": uid },
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "message": "hostPath type check failed: /etc/kubelet.d is not a directory",
        }))
    };
    let pods = [pod("b", "w2"), pod("a", "w1"), pod("starts", "w3")];
    let events = [event("a"), event("b"), event("of-another-pod")];
    assert_eq!(
        failures(&pods, &events),
        ["w1", "w2"]
            .map(|node| format!("{node}: hostPath type check failed: /etc/kubelet.d is not a directory"))
    );
    let many: Vec<_> = (10..30).map(|number| pod("a", &format!("w{number}"))).collect();
    assert_eq!(failures(&many, &events).len(), FAILURES_LIMIT);
}

fn node(name: &str, ready: &str, taint: Option<&str>) -> Arc<Node> {
    let taints: Vec<_> = taint
        .map(|effect| json!({ "key": "example.com/own", "effect": effect }))
        .into_iter()
        .collect();
    Arc::new(object(json!({
        "metadata": { "name": name }, "spec": { "taints": taints },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })))
}

fn proxy(node: &str, ready: &str) -> Arc<Pod> {
    Arc::new(object(json!({
        "metadata": {}, "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })))
}

#[test]
fn a_node_without_a_ready_proxy_may_have_no_other_way_also_if_it_is_lost() {
    let mut ending = Pod::clone(&proxy("ending", "True"));
    ending.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    let nodes = [
        node("served", "True", None),
        node("starting", "True", None),
        node("missing", "True", None),
        node("lost", "Unknown", None),
        node("ending", "True", None),
        node("evicted", "True", Some("NoExecute")),
        node("never", "True", Some("NoSchedule")),
        node("kept", "True", Some("NoSchedule")),
    ];
    let pods = [
        proxy("served", "True"),
        proxy("starting", "False"),
        proxy("lost", "True"),
        Arc::new(ending),
        proxy("kept", "False"),
    ];
    let without = without_proxy(&nodes, &pods, &Scope::default());
    assert_eq!(without, ["starting", "missing", "lost", "ending", "kept"]);
}
