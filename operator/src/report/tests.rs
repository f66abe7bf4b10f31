//! What is reported when the API server fails.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use trivet_crds::pool::ApiserverPoolSpec;

use super::*;
use crate::apply;
use crate::context::tests::context;
use crate::plan::facts::Discovered;
use crate::plan::masters::Master;
use crate::plan::{self, tests::facts};

/// An API server that can be absent, and the notes of the events that it has taken.
#[derive(Clone, Default)]
struct Server {
    is_absent: Arc<Mutex<bool>>,
    refuses_events: Arc<Mutex<bool>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn answer(&self, path: &str, body: &str) -> (u16, String) {
        let failure = |code: u16| {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                                 "message": "no", "reason": "no" });
            (code, status.to_string())
        };
        if *self.is_absent.lock().unwrap() {
            return failure(503);
        }
        if !path.contains("/events") {
            let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
            return (200, serde_json::to_string(&pool).unwrap());
        }
        if *self.refuses_events.lock().unwrap() {
            return failure(403);
        }
        let event: Value = serde_json::from_str(body).unwrap();
        let note = event["note"].as_str().unwrap_or_default().to_owned();
        self.notes.lock().unwrap().push(note);
        (201, body.to_owned())
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap())
    }
}

fn context_of(server: &Server) -> Context {
    let server = server.clone();
    context(move |_, path, body| server.answer(path, body))
}

/// Facts with one master that nobody has probed.
fn one_master() -> Facts {
    let master = Master {
        name: "cp1".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ..Master::default()
    };
    Facts {
        discovered: Discovered::Masters(vec![master]),
        ..facts()
    }
}

async fn report_on(ctx: &Context, facts: &Facts, applied: &Applied) -> Result<(), Error> {
    let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    report_of(ctx, &pool, facts, applied).await
}

async fn report_of(
    ctx: &Context,
    pool: &ApiserverPool,
    facts: &Facts,
    applied: &Applied,
) -> Result<(), Error> {
    let pass = Pass {
        plan: &plan::plan(pool, facts).unwrap(),
        facts,
        proxies: &Proxies::default(),
        writer: &Bootstrap::default(),
        applied,
    };
    report(ctx, pool, pass).await
}

#[tokio::test]
async fn an_event_that_the_api_server_could_not_take_is_published_by_the_next_pass() {
    let server = Server::default();
    let ctx = context_of(&server);
    *server.is_absent.lock().unwrap() = true;
    let facts = one_master();
    let applied = Applied::default();
    assert!(
        report_on(&ctx, &facts, &applied).await.is_err(),
        "the status is not written"
    );
    assert_eq!(server.notes(), [""; 0]);

    *server.is_absent.lock().unwrap() = false;
    report_on(&ctx, &facts, &applied).await.unwrap();
    assert_eq!(server.notes(), ["cp1 is a member since revision 1"]);
    report_on(&ctx, &facts, &applied).await.unwrap();
    assert_eq!(server.notes(), [""; 0], "once is enough");
}

#[tokio::test]
async fn an_event_that_the_api_server_refuses_is_not_tried_for_ever() {
    let server = Server::default();
    let ctx = context_of(&server);
    *server.refuses_events.lock().unwrap() = true;
    report_on(&ctx, &one_master(), &Applied::default()).await.unwrap();
    assert_eq!(ctx.pool_states.of("default").unsent, []);
}

#[tokio::test]
async fn members_that_came_by_a_write_without_an_answer_get_their_events() {
    let server = Server::default();
    let ctx = context_of(&server);
    let lost = Applied {
        failure: Some(apply::Error {
            kind: Kind::ConfigMap,
            name: "trivet-default".to_owned(),
            source: kube::Error::Service("the connection is gone".into()),
        }),
        ..Applied::default()
    };
    let mut facts = one_master();
    report_on(&ctx, &facts, &lost).await.unwrap();
    assert_eq!(server.notes(), [""; 0]);

    // The write has arrived all the same: the next pass finds its document in force.
    let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    let rollout = plan::plan(&pool, &facts).unwrap().rollout.unwrap();
    facts.current.members = rollout.document.members.clone();
    facts.current.document = Some(rollout.document);
    report_on(&ctx, &facts, &Applied::default()).await.unwrap();
    assert_eq!(server.notes(), ["cp1 is a member since revision 1"]);
}

#[tokio::test]
async fn under_a_crd_of_an_earlier_release_the_status_is_written_without_its_new_fields() {
    let merged = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&merged);
    let ctx = context(move |_, path, body| {
        if path.contains("/events") {
            return (201, body.to_owned());
        }
        let patch: Value = serde_json::from_str(body).unwrap();
        if patch["kind"] == "ApiserverPool" {
            let message = "failed to create typed patch object (default; trivet.dev/v1alpha1, Kind=ApiserverPool): \
                           .status.members[name=\"cp1\"].reachableNodes: field not declared in schema";
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
                                 "message": message });
            return (500, status.to_string());
        }
        seen.lock().unwrap().push(patch);
        let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        (200, serde_json::to_string(&pool).unwrap())
    });
    let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    pool.metadata.resource_version = Some("7".to_owned());
    report_of(&ctx, &pool, &one_master(), &Applied::default())
        .await
        .unwrap();
    let merged = merged.lock().unwrap();
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0]["status"]["members"][0]["name"], "cp1");
    assert_eq!(
        merged[0]["metadata"]["resourceVersion"], "7",
        "the write is fenced"
    );
}

/// What a schema of an earlier release keeps.
fn pruned(mut status: Value) -> Value {
    let members = status["members"].as_array_mut().into_iter().flatten();
    for member in members {
        member.as_object_mut().unwrap().remove("reportingNodes");
        member.as_object_mut().unwrap().remove("lastTransitionTime");
    }
    status
}

#[tokio::test]
async fn under_a_crd_of_an_earlier_release_a_status_that_says_the_same_is_written_once() {
    let kept = Arc::new(Mutex::new((0, Value::Null)));
    let stored = Arc::clone(&kept);
    let ctx = context(move |_, path, body| {
        if path.contains("/events") {
            return (201, body.to_owned());
        }
        let patch: Value = serde_json::from_str(body).unwrap();
        if patch["kind"] == "ApiserverPool" {
            let message = ".status.members[name=\"cp1\"].reportingNodes: field not declared in schema";
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
                                 "message": message });
            return (500, status.to_string());
        }
        let mut kept = stored.lock().unwrap();
        *kept = (kept.0 + 1, pruned(patch["status"].clone()));
        let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        pool.status = serde_json::from_value(kept.1.clone()).unwrap();
        (200, serde_json::to_string(&pool).unwrap())
    });
    let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    let mut facts = one_master();
    let writes = || {
        let (count, status) = kept.lock().unwrap().clone();
        kept.lock().unwrap().0 = 0;
        (count, serde_json::from_value(status).unwrap())
    };
    for expected in [1, 0, 0] {
        report_of(&ctx, &pool, &facts, &Applied::default()).await.unwrap();
        let (count, status) = writes();
        assert_eq!(count, expected);
        // The watch brings what was kept.
        pool.status = Some(status);
    }
    let lost = ctx.pool_states.of("default").stored.unwrap().lost;
    assert_eq!(
        lost.into_iter().collect::<Vec<_>>(),
        ["members[].lastTransitionTime"]
    );

    facts.node_count = Some(9);
    facts.unix_seconds += 100;
    report_of(&ctx, &pool, &facts, &Applied::default()).await.unwrap();
    assert_eq!(writes().0, 1, "a change is written");
}
