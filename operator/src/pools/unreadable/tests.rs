use std::sync::{Arc, Mutex};

use super::*;
use crate::context::tests::context;
use crate::pools::tests::{stored, unreadable as unreadable_pool};

const NOW: &str = "2026-11-30T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": "Before", "message": "before", "observedGeneration": 2,
            "lastTransitionTime": "2026-11-01T00:00:00Z", "future": type_ })
}

/// A pool that cannot be read, with the status of a later release.
fn of_later_release() -> Unreadable {
    let mut pool = unreadable_pool("p", json!({ "discovery": { "policy": "Guess" } }));
    pool.object["status"] = json!({
        "observedGeneration": 2, "configRevision": 12, "future": { "a": [1] },
        "conditions": [condition("Future", "True"), condition("Accepted", "True"), condition("Progressing", "True")],
    });
    pool
}

#[test]
fn only_the_conditions_that_say_so_change_in_a_status_of_a_later_release() {
    let pool = of_later_release();
    let patch = pool.patch(now()).unwrap();
    assert_eq!(
        patch["metadata"],
        json!({ "uid": "uid-of-p", "resourceVersion": "7" }),
        "the write is fenced"
    );
    let fields: Vec<_> = patch["status"].as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["conditions", "observedGeneration"],
        "a merge keeps the others"
    );
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let types: Vec<_> = conditions.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Future", "Accepted", "Progressing", "Ready"]);
    assert_eq!(conditions[0], condition("Future", "True"));
    assert_eq!(conditions[2], condition("Progressing", "True"));
    for told in [&conditions[1], &conditions[3]] {
        assert_eq!(told["status"], "False");
        assert_eq!(told["reason"], UNREADABLE);
        assert_eq!(told["observedGeneration"], 3);
        assert_eq!(told["lastTransitionTime"], NOW);
        let message = told["message"].as_str().unwrap();
        let has = |part: &str| message.contains(part);
        assert!(has("spec.discovery.policy") && has("\"Guess\""), "{message}");
        assert!(has("upgrade the operator"), "{message}");
    }
    assert_eq!(conditions[1]["future"], "Accepted");
}

#[test]
fn what_the_status_says_already_is_not_written_again_and_keeps_its_time() {
    let mut pool = of_later_release();
    pool.object["status"]["conditions"] = pool.patch(now()).unwrap()["status"]["conditions"].clone();
    let later = "2026-11-30T01:00:00Z".parse().unwrap();
    assert_eq!(pool.patch(later), None);
    pool.metadata.generation = Some(4);
    let patch = pool.patch(later).unwrap();
    assert_eq!(patch["status"]["conditions"][1]["lastTransitionTime"], NOW);
}

/// What is sent: a method and a path, with the body.
type Sent = Vec<(String, String)>;

/// Tells of `pool` twice where the API server answers writes of the status with this code.
async fn told(pool: &Unreadable, code: u16) -> (Vec<Result<(), report::Error>>, Sent, Context) {
    let sent = Arc::new(Mutex::new(Sent::new()));
    let kept = Arc::clone(&sent);
    let ctx = context(move |method, path, body| {
        let call = format!("{method} {path}");
        kept.lock().unwrap().push((call, body.to_owned()));
        if !path.ends_with("/status") {
            return (200, body.to_owned());
        }
        if code == 200 {
            return (200, stored("p", json!({})).to_string());
        }
        let refusal = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                              "message": "no", "reason": "Invalid" });
        (code, refusal.to_string())
    });
    let outcomes = vec![tell(&ctx, pool).await, tell(&ctx, pool).await];
    let sent = sent.lock().unwrap().clone();
    (outcomes, sent, ctx)
}

#[tokio::test]
async fn a_pool_that_cannot_be_read_has_one_event_a_metric_and_a_status_and_nothing_else_is_written() {
    let (outcomes, sent, ctx) = told(&of_later_release(), 200).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let calls: Vec<_> = sent.iter().map(|(call, _)| call.as_str()).collect();
    let event = "POST /apis/events.k8s.io/v1/namespaces/default/events";
    let status = "PATCH /apis/trivet.dev/v1alpha1/apiserverpools/p/status";
    // The cache of this test never learns of the write.
    assert_eq!(calls, [event, status, status]);
    assert!(sent[0].1.contains("Unreadable") && sent[0].1.contains("spec.discovery.policy"));
    let metrics = ctx.metrics.to_text().unwrap();
    let gauge = r#"pool_condition{pool="p",type="Accepted",status="False",reason="Unreadable"} 1"#;
    assert!(metrics.contains(gauge), "{metrics}");
}

#[tokio::test]
async fn a_status_that_the_api_server_refuses_is_no_failure_and_its_absence_is_one() {
    for (code, is_failure) in [(422, false), (404, false), (409, true), (403, true), (503, true)] {
        let (outcomes, _, _) = told(&of_later_release(), code).await;
        assert!(
            outcomes.iter().all(|outcome| outcome.is_err() == is_failure),
            "{code}: {outcomes:?}"
        );
    }
}
