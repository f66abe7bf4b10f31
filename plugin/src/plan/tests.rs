//! Plans against an API server that is a closure, with golden outputs. The objects in it are those that the operator renders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response, Uri};
use kube::Config;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};
use trivet_operator::api::client::Access;
use trivet_operator::cli::PullPolicy;
use trivet_operator::render::{Settings, render};

use super::*;

const HOME: &str = "/apis/apps/v1/namespaces/trivet-system";

/// The objects of an API server by their paths, and the answer to a dry run.
#[derive(Clone, Debug, Default)]
struct World {
    objects: BTreeMap<String, Value>,
    dry_run: Option<(u16, Value)>,
    /// What was asked that is no read.
    written: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Three masters and two workers, and nothing of Trivet.
    fn bare() -> Self {
        let node = |name: &str, number: u8, labels: Value| {
            let mut all = json!({ "kubernetes.io/os": "linux" });
            all.as_object_mut()
                .unwrap()
                .extend(labels.as_object().unwrap().clone());
            json!({
                "metadata": { "name": name, "labels": all },
                "status": {
                    "addresses": [{ "type": "InternalIP", "address": format!("10.0.0.1{number}") }],
                    "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": "True" }],
                },
            })
        };
        let master = |number| {
            node(
                &format!("cp{number}"),
                number,
                json!({ "node-role.kubernetes.io/control-plane": "" }),
            )
        };
        let nodes = json!([
            master(1),
            master(2),
            master(3),
            node("w1", 4, json!({})),
            node("w2", 5, json!({}))
        ]);
        let mut world = Self::default();
        world.put("/api/v1/nodes", list(nodes));
        world
    }

    /// The same with a pool whose proxies run.
    async fn serving() -> Self {
        let mut world = Self::bare();
        let pool: ApiserverPool = serde_json::from_value(pool(json!({}))).unwrap();
        let preview = preview(&pool, pool.status.as_ref(), world.source())
            .await
            .unwrap();
        let desired = render(&preview.plan.rollout.unwrap(), &settings()).unwrap();
        let mut map = serde_json::to_value(desired.config_map.unwrap()).unwrap();
        map["metadata"]["resourceVersion"] = "7".into();
        world.put("/api/v1/namespaces/trivet-system/configmaps", list(json!([map])));
        let mut set = serde_json::to_value(desired.daemon_set.unwrap()).unwrap();
        set["metadata"]["generation"] = 1.into();
        set["status"] = json!({
            "observedGeneration": 1, "currentNumberScheduled": 5, "desiredNumberScheduled": 5, "numberMisscheduled": 0,
            "numberReady": 5, "numberAvailable": 5, "updatedNumberScheduled": 5,
        });
        let labels = set["spec"]["template"]["metadata"]["labels"].clone();
        world.put(&format!("{HOME}/daemonsets/trivet-default"), set.clone());
        world.put(&format!("{HOME}/daemonsets"), list(json!([set])));
        let pods: Vec<_> = ["cp1", "cp2", "cp3", "w1", "w2"]
            .iter()
            .map(|node| {
                json!({
                    "metadata": { "name": format!("proxy-{node}"), "labels": labels, "creationTimestamp": "2026-11-29T10:00:00Z" },
                    "spec": { "nodeName": node, "containers": [] },
                    "status": {
                        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-29T10:00:00Z" }],
                        "containerStatuses": [{
                            "name": "proxy", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                            "state": { "running": {} },
                        }],
                    },
                })
            })
            .collect();
        world.put("/api/v1/namespaces/trivet-system/pods", list(json!(pods)));
        let pool = serde_json::to_value(pool).unwrap();
        world.put("/apis/trivet.dev/v1alpha1/apiserverpools/default", pool.clone());
        world.put("/apis/trivet.dev/v1alpha1/apiserverpools", list(json!([pool])));
        world
    }

    fn put(&mut self, path: &str, object: Value) {
        self.objects.insert(path.to_owned(), object);
    }

    fn client(&self) -> Client {
        let world = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let (code, body) = world.answer(&request);
            async move {
                Response::builder()
                    .status(code)
                    .body(Body::from(body.to_string().into_bytes()))
                    .map_err(BoxError::from)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> (u16, Value) {
        let path = request.uri().path();
        if request.method() != http::Method::GET {
            let is_dry = request.uri().query().unwrap_or_default().contains("dryRun=All");
            if !is_dry {
                self.written
                    .lock()
                    .unwrap()
                    .push(format!("{} {path}", request.method()));
            }
            return self
                .dry_run
                .clone()
                .unwrap_or_else(|| (403, failure(403, "Forbidden", "no")));
        }
        if let Some(object) = self.objects.get(path) {
            return (200, object.clone());
        }
        match path.rsplit('/').next().unwrap() {
            "pods"
            | "configmaps"
            | "daemonsets"
            | "events"
            | "endpointslices"
            | "controllerrevisions"
            | "apiserverpools"
            | "proxyreports" => (200, list(json!([]))),
            _ => (404, failure(404, "NotFound", "not found")),
        }
    }

    fn source(&self) -> Source {
        let mut config = Config::new(Uri::from_static("https://unused"));
        // No authority: members are judged by the status of the pool alone.
        config.root_cert = Some(vec![vec![0; 60]]);
        Source {
            client: self.client(),
            access: Access::try_new(config).unwrap(),
            settings: settings(),
        }
    }

    /// What an edit of the spec would do.
    async fn plan(&self, spec: Value) -> Difference {
        let edit = Edit::parse(&pool(spec).to_string()).unwrap();
        let difference = difference(&self.client(), &edit, self.source()).await.unwrap();
        assert_eq!(*self.written.lock().unwrap(), [""; 0], "a plan writes nothing");
        difference
    }
}

fn list(items: Value) -> Value {
    json!({ "metadata": {}, "items": items })
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}

fn settings() -> Settings {
    Settings {
        namespace: "trivet-system".to_owned(),
        image: "trivet.dev/trivet-proxy:0.1.0".to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        pull_secrets: Vec::new(),
        service_account: "trivet-proxy".to_owned(),
        has_node_bootstrap: true,
        standby_soak: std::time::Duration::from_secs(300),
        rollout_soak_seconds: 30,
        retire_after_seconds: 600,
    }
}

fn pool(spec: Value) -> Value {
    let member = |number: u8| {
        json!({
            "name": format!("cp{number}"), "addresses": [format!("10.0.0.1{number}")], "port": 6443, "source": "Node",
            "state": "Active", "health": "Up",
        })
    };
    json!({
        "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool",
        "metadata": { "name": "default", "uid": "1", "generation": 1, "resourceVersion": "5", "creationTimestamp": "2026-11-29T10:00:00Z" },
        "spec": spec,
        "status": { "members": [member(1), member(2), member(3)] },
    })
}

fn printed(difference: &Difference) -> String {
    print::table(Screen::plain(), difference)
}

#[tokio::test]
async fn a_new_pool_is_planned() {
    let difference = World::bare().plan(json!({})).await;
    assert_eq!(difference.nodes_added, ["cp1", "cp2", "cp3", "w1", "w2"]);
    insta::assert_snapshot!(printed(&difference));
}

#[tokio::test]
async fn an_edit_that_changes_nothing_says_so() {
    let difference = World::serving().await.plan(json!({})).await;
    assert!(difference.is_empty(), "{difference:?}");
    insta::assert_snapshot!(printed(&difference));
}

#[tokio::test]
async fn members_that_drain_and_join_and_settings_that_change_are_told() {
    let difference = World::serving()
        .await
        .plan(json!({
            "members": [
                { "name": "cp1", "state": "Draining" },
                { "name": "cp2", "state": "Disabled" },
                { "name": "extra", "addresses": ["10.0.0.99"] },
            ],
            "connection": { "drainTimeoutSeconds": 30 },
            "balancing": { "locality": "PreferSameZone" },
        }))
        .await;
    insta::assert_snapshot!(printed(&difference));
    insta::assert_json_snapshot!(difference);
}

#[tokio::test]
async fn a_new_template_is_a_rollout() {
    let difference = World::serving()
        .await
        .plan(json!({ "proxy": { "logLevel": "debug" } }))
        .await;
    let rollout = difference.rollout.as_ref().unwrap();
    assert_eq!(rollout.nodes, 5);
    insta::assert_snapshot!(printed(&difference));
}

#[tokio::test]
async fn an_edit_that_would_take_proxies_away_is_refused_as_the_operator_refuses_it() {
    let difference = World::serving()
        .await
        .plan(json!({ "proxy": { "nodeScope": "WorkersOnly" } }))
        .await;
    assert_eq!(difference.refused.as_ref().unwrap().reason, "ScopeWouldShrink");
    insta::assert_snapshot!(printed(&difference));
}

#[tokio::test]
async fn an_edit_without_a_member_is_refused_as_the_operator_refuses_it() {
    let spec = json!({
        "discovery": { "policy": "None" }, "members": [{ "name": "wrong", "addresses": ["10.0.0.98"], "port": 7 }],
    });
    let difference = World::serving().await.plan(spec).await;
    assert_eq!(difference.refused.as_ref().unwrap().reason, "NoHealthyMember");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_in_its_words() {
    let mut world = World::serving().await;
    let words = "ApiserverPool.trivet.dev \"default\" is invalid: spec.listeners[0].port: ports below 1024";
    world.dry_run = Some((422, failure(422, "Invalid", words)));
    let difference = world
        .plan(json!({ "listeners": [{ "name": "apiserver", "port": 80 }] }))
        .await;
    let refusal = difference.refused.as_ref().unwrap();
    assert_eq!(
        (refusal.by, refusal.reason.as_str()),
        ("the API server", "Invalid")
    );
    assert!(printed(&difference).contains("ports below 1024"));
}

#[tokio::test]
async fn the_pool_that_the_api_server_answers_is_the_one_that_is_planned() {
    let mut world = World::serving().await;
    world.dry_run = Some((
        200,
        pool(json!({ "members": [{ "name": "cp3", "state": "Draining" }] })),
    ));
    let difference = world.plan(json!({})).await;
    assert_eq!(difference.members.len(), 1);
    assert_eq!(
        (difference.members[0].name.as_str(), difference.members[0].change),
        ("cp3", difference::Change::Drained)
    );
    assert!(
        difference
            .notes
            .iter()
            .all(|note| !note.contains("may not patch")),
        "{:?}",
        difference.notes
    );
}
