//! Whole passes against an API server that is a closure: what is written, and what is left alone.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::Uri;
use kube::Config;
use kube::runtime::controller::Action;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::Instant;
use trivet_crds::TEMPLATE_LABEL;
use trivet_crds::pool::ApiserverPoolSpec;
use trivet_crds::wire::{Document, Gate};

mod cuts;
mod kept;
mod later;
mod two_operators;

use super::pass::pass_in;
use super::*;
use crate::api::client::Access;
use crate::context::tests::context;
use crate::leader::take::LEADER_TERM;
use crate::render::daemon_set::ROLLOUT;

/// An API server that keeps what is applied.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// The last part of the path of each write, status and events aside.
    writes: Arc<Mutex<Vec<String>>>,
    /// Whether the chart's policy refuses the writer.
    forbids_writer: Arc<Mutex<bool>>,
    /// What the DaemonSet controller keeps of the proxies' templates.
    revisions: Arc<Mutex<Vec<Value>>>,
    /// The last resourceVersion. The first revision of etcd is no object's.
    version: Arc<Mutex<u32>>,
}

const MAP: &str = "/api/v1/namespaces/trivet-system/configmaps/trivet-default";
const SET: &str = "/apis/apps/v1/namespaces/trivet-system/daemonsets/trivet-default";
const WRITER: &str = "/apis/apps/v1/namespaces/trivet-system/daemonsets/trivet-default-bootstrap";

impl Server {
    fn answer(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut objects = self.objects.lock().unwrap();
        if method != "GET" {
            if path.ends_with("/status") {
                return (200, json!(pool(ApiserverPoolSpec::default())).to_string());
            }
            if path == WRITER && *self.forbids_writer.lock().unwrap() {
                return refusal(403, "trivet-daemonset-writes denies it");
            }
            if [MAP, SET, WRITER].contains(&path) {
                let mut written: Value = serde_json::from_str(body).unwrap();
                let live = objects.get(path);
                let seen = &written["metadata"]["resourceVersion"];
                // As the API server: an object that is absent is created, whatever version the write names.
                if live.is_some_and(|live| !seen.is_null() && live["metadata"]["resourceVersion"] != *seen) {
                    return refusal(409, "Conflict");
                }
                if path == SET && written.get("spec").is_some() {
                    self.keep_revision(&written["spec"]["template"]);
                }
                let mut version = self.version.lock().unwrap();
                *version = (*version).max(1) + 1;
                written["metadata"]["resourceVersion"] = version.to_string().into();
                // Unlike an apply, a merge does not name its kind.
                if written.get("kind").is_some() {
                    if let Some(term) = live
                        .map(|live| live["metadata"]["annotations"][LEADER_TERM].clone())
                        .filter(Value::is_string)
                    {
                        written["metadata"]["annotations"][LEADER_TERM] = term;
                    }
                    objects.insert(path.to_owned(), written);
                } else {
                    merge(objects.get_mut(path).unwrap(), &written);
                }
                let answer = objects[path].to_string();
                let kind = match path.rsplit('/').nth(1).unwrap() {
                    _ if path == WRITER => "writer",
                    kind => kind,
                };
                self.writes.lock().unwrap().push(kind.to_owned());
                return (200, answer);
            }
            return (200, body.to_owned());
        }
        if let Some(object) = objects.get(path) {
            return (200, object.to_string());
        }
        if path.ends_with("/controllerrevisions") {
            let items = self.revisions.lock().unwrap().clone();
            let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
            return (200, list.to_string());
        }
        if [MAP, SET, WRITER].contains(&path) {
            return refusal(404, "no");
        }
        let items: Vec<_> = objects
            .get(MAP)
            .filter(|map| MAP.starts_with(path) && map["metadata"]["labels"][POOL_LABEL].is_string())
            .into_iter()
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
        (200, list.to_string())
    }

    fn keep_revision(&self, template: &Value) {
        let mut revisions = self.revisions.lock().unwrap();
        let data = json!({ "spec": { "template": template } });
        if revisions.iter().all(|kept| kept["data"] != data) {
            let number = revisions.len() + 1;
            let metadata = json!({ "name": format!("trivet-default-{number}") });
            revisions.push(json!({ "metadata": metadata, "revision": number, "data": data }));
        }
    }

    fn document(&self) -> Document {
        let map = self.object(MAP);
        Document::parse(map["data"][wire::KEY].as_str().unwrap()).unwrap()
    }

    /// The template of the DaemonSet.
    fn template(&self) -> String {
        let template = &self.object(SET)["spec"]["template"];
        template["metadata"]["labels"][TEMPLATE_LABEL]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Lets seconds go by in what the operator has noted.
    fn age_record(&self, seconds: i64) {
        let set = self.object(SET);
        let text = set["metadata"]["annotations"][ROLLOUT].as_str().unwrap();
        let mut record: Value = serde_json::from_str(text).unwrap();
        for time in ["since", "readySince"] {
            if let Some(at) = record[time].as_i64() {
                record[time] = (at - seconds).into();
            }
        }
        self.edit(
            SET,
            &json!({ "metadata": { "annotations": { ROLLOUT: record.to_string() } } }),
        );
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    fn object(&self, path: &str) -> Value {
        self.objects.lock().unwrap()[path].clone()
    }

    fn edit(&self, path: &str, change: &Value) {
        merge(self.objects.lock().unwrap().get_mut(path).unwrap(), change);
    }

    fn members(&self) -> Vec<String> {
        self.document()
            .members
            .into_iter()
            .map(|member| member.name)
            .collect()
    }
}

fn refusal(code: u16, message: &str) -> (u16, String) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "Forbidden",
    };
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                         "message": message, "reason": reason });
    (code, status.to_string())
}

/// A JSON merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        object.clone_from(patch);
        return;
    };
    for (name, value) in fields {
        match object.as_object_mut() {
            // RFC 7386: null removes.
            Some(object) if value.is_null() => drop(object.remove(name)),
            Some(_) | None => merge(&mut object[name.as_str()], value),
        }
    }
}

fn pool(spec: ApiserverPoolSpec) -> ApiserverPool {
    ApiserverPool::new("default", spec)
}

/// A master at an address for documentation, where nothing answers.
fn master(number: u8) -> Node {
    let labels = json!({ "kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "" });
    serde_json::from_value(json!({
        "metadata": { "name": format!("cp{number}"), "labels": labels },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("192.0.2.{number}") }],
            "allocatable": { "pods": "110" },
        },
    }))
    .unwrap()
}

/// A context whose probes reach nobody, for so long that the operator knows it.
fn blind_context(server: &Server) -> (Context, Writer<Node>) {
    let (nodes, writer) = reflector::store();
    let authority = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
    let mut config = Config::new(Uri::from_static("https://unused"));
    config.root_cert = Some(vec![authority.cert.der().to_vec()]);
    let server = server.clone();
    let ctx = Context {
        nodes,
        access: Access::try_new(config).unwrap(),
        ..context(move |method, path, body| server.answer(method, path, body))
    };
    ctx.readiness.observe("Node", &Ok(Event::<Node>::InitDone));
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60));
    ctx.pool_states
        .change("default", |state| state.memory.unseen_since = long_ago);
    (ctx, writer)
}

async fn reconcile_once(spec: &ApiserverPoolSpec, ctx: &Context) -> Duration {
    Box::pin(reconcile(&pool(spec.clone()), ctx)).await.unwrap()
}

/// A Ready proxy on w1.
fn proxy(name: &str, generation: &str) -> Pod {
    let labels = json!({ POOL_LABEL: "default", "pod-template-generation": generation });
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "trivet-system", "labels": labels },
        "spec": { "nodeName": "w1", "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    }))
    .unwrap()
}

#[tokio::test]
async fn while_a_spec_is_rejected_new_masters_are_written_and_the_daemon_set_is_not() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let mut spec = ApiserverPoolSpec::default();
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
    let daemon_set = server.object(SET);

    // One port for two purposes, and an edit that would restart the proxies.
    spec.proxy.metrics.port = 7443;
    spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    spec.connection.drain_timeout_seconds = 5;
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0]);

    nodes.apply_watcher_event(&Event::Apply(master(2)));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps"]);
    assert_eq!(server.members(), ["cp1", "cp2"]);
    assert_eq!(server.object(SET), daemon_set);

    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "a standing rejection writes nothing");
}

#[tokio::test]
async fn a_document_whose_label_was_removed_by_hand_is_followed_and_gets_it_back() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let spec = ApiserverPoolSpec::default();
    reconcile_once(&spec, &ctx).await;
    let revision = server.document().revision;
    server.edit(MAP, &json!({ "metadata": { "labels": { POOL_LABEL: null } } }));
    server.writes();

    // What is in force is known without the label, so nothing is written for it.
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.document().revision, revision);
    nodes.apply_watcher_event(&Event::Apply(master(2)));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.members(), ["cp1", "cp2"]);
    assert_eq!(
        server.object(MAP)["metadata"]["labels"][POOL_LABEL],
        json!("default")
    );
}

/// The status of a DaemonSet whose one node, w1, has an available pod.
fn on_one_node(updated: u8) -> Value {
    json!({ "status": { "observedGeneration": 1, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
                        "numberReady": 1, "numberAvailable": 1, "updatedNumberScheduled": updated,
                        "numberMisscheduled": 0 } })
}

/// A pool on one Ready worker with an available proxy.
async fn served(spec: &ApiserverPoolSpec, server: &Server) -> (Context, Writer<Node>, Writer<Pod>) {
    let (ctx, mut nodes) = blind_context(server);
    let (cached, mut pods) = reflector::store();
    let ctx = Context { pods: cached, ..ctx };
    ctx.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
    ctx.reports.observe(Event::InitDone);
    let worker = json!({ "metadata": { "name": "w1", "labels": { "kubernetes.io/os": "linux" } }, "status": {
        "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    nodes.apply_watcher_event(&Event::Apply(serde_json::from_value(worker).unwrap()));
    let mut listed = spec.clone();
    listed.node_bootstrap = trivet_crds::pool::NodeBootstrap::default();
    reconcile_once(&listed, &ctx).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
    server.edit(SET, &on_one_node(1));
    pods.apply_watcher_event(&Event::Apply(proxy("a", "1")));
    reconcile_once(&listed, &ctx).await;
    assert_eq!(server.writes(), ["daemonsets"], "the template is noted as good");
    server.edit(SET, &on_one_node(1));
    (ctx, nodes, pods)
}

/// A pod of the template in place on w1 whose container runs, and is Ready or not.
fn new_proxy(server: &Server, ready: &str, ends: u32) -> Pod {
    let mut pod = serde_json::to_value(proxy("new", "2")).unwrap();
    pod["metadata"]["labels"][TEMPLATE_LABEL] = server.template().into();
    pod["status"] = json!({
        "conditions": [{ "type": "Ready", "status": ready }],
        "containerStatuses": [{ "name": "proxy", "image": "", "imageID": "", "ready": ready == "True",
                                "restartCount": ends, "state": { "running": {} } }],
    });
    serde_json::from_value(pod).unwrap()
}

/// Rolls the template in place out on w1.
async fn roll_out(spec: &ApiserverPoolSpec, server: &Server, ctx: &Context, pods: &mut Writer<Pod>) {
    pods.apply_watcher_event(&Event::Apply(new_proxy(server, "False", 0)));
    reconcile_once(spec, ctx).await;
    assert_eq!(server.document().rollout.gate, Gate::of_node("w1"));
    pods.apply_watcher_event(&Event::Apply(new_proxy(server, "True", 0)));
    reconcile_once(spec, ctx).await;
    assert_eq!(server.document().rollout.gate, Gate::of_node("w1"), "it soaks");
    server.age_record(31);
    reconcile_once(spec, ctx).await;
    assert!(server.document().rollout.gate.is_open());
    pods.apply_watcher_event(&Event::Delete(proxy("a", "1")));
    server.edit(SET, &on_one_node(1));
    reconcile_once(spec, ctx).await;
    server.edit(SET, &on_one_node(1));
    server.writes();
}

/// A pool of one listed member, with static pods.
fn with_static_pods() -> ApiserverPoolSpec {
    serde_json::from_value(json!({
        "members": [{ "name": "cp1", "addresses": ["192.0.2.1"] }], "discovery": { "policy": "None" },
        "nodeBootstrap": { "policy": "StaticPod" },
    }))
    .unwrap()
}

/// The command of the writer's pods.
fn command(server: &Server) -> Value {
    server.object(WRITER)["spec"]["template"]["spec"]["initContainers"][0]["args"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn the_standbys_follow_the_proxies_and_go_after_them() {
    let server = Server::default();
    let mut spec = with_static_pods();
    let (ctx, _nodes, mut pods) = served(&spec, &server).await;

    // The first manifests wait for the proxies alone.
    server.edit(SET, &on_one_node(0));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "the proxies are not available");
    server.edit(SET, &on_one_node(1));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["writer"]);
    assert_eq!(command(&server), "write-manifest");
    server.edit(WRITER, &on_one_node(1));

    // A new template waits until the proxies have run with it.
    spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
    roll_out(&spec, &server, &ctx, &mut pods).await;
    for _ in 0..=9 {
        reconcile_once(&spec, &ctx).await;
        assert_eq!(server.writes(), [""; 0], "it soaks");
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["writer"]);
    server.edit(WRITER, &on_one_node(1));

    // The manifests go once every node has a proxy.
    spec.node_bootstrap.policy = trivet_crds::pool::BootstrapPolicy::None;
    let own = new_proxy(&server, "True", 0);
    pods.apply_watcher_event(&Event::Delete(own.clone()));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "w1 has no other way to the API");
    pods.apply_watcher_event(&Event::Apply(own));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["writer"]);
    assert_eq!(command(&server), "remove-manifest");

    // The writer rests once they are gone, and nobody deletes it.
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "the pods have not run yet");
    server.edit(WRITER, &on_one_node(1));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["writer"]);
    let selector = &server.object(WRITER)["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(selector["trivet.dev/no-node"], "true");
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_has_not_read_the_pods_yet_leaves_a_rollout_alone() {
    let server = Server::default();
    let mut spec = with_static_pods();
    spec.node_bootstrap = trivet_crds::pool::NodeBootstrap::default();
    let (ctx, _nodes, _pods) = served(&spec, &server).await;
    spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    reconcile_once(&spec, &ctx).await;
    server.edit(SET, &on_one_node(0));
    server.writes();
    let target = server.document().rollout;
    assert_eq!(target.gate, Gate::closed());

    // To it the pool looks as if nobody served.
    let next = Context {
        nodes: ctx.nodes.clone(),
        ..blind_context(&server).0
    };
    reconcile_once(&spec, &next).await;
    assert_eq!(server.document().rollout, target);
    // The next operator of this test trusts another authority.
    assert_eq!(server.writes(), ["configmaps"]);
}

/// The condition Progressing of the last pass.
fn progressing(ctx: &Context) -> (String, String, String) {
    let status = ctx.pool_states.of("default").status.unwrap();
    let mut conditions = status.conditions.into_iter();
    let condition = conditions.find(|it| it.type_ == "Progressing").unwrap();
    (condition.status, condition.reason, condition.message)
}

#[tokio::test(start_paused = true)]
async fn a_broken_template_is_replaced_by_the_last_good_one_by_whichever_operator_is_there() {
    let server = Server::default();
    let mut spec = with_static_pods();
    spec.node_bootstrap = trivet_crds::pool::NodeBootstrap::default();
    let (ctx, _nodes, mut pods) = served(&spec, &server).await;
    let (good, content) = (server.template(), server.object(SET)["spec"]["template"].clone());

    spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
    assert_eq!(server.document().rollout.gate, Gate::closed());
    let bad = server.template();
    assert_ne!(bad, good);
    assert_eq!(progressing(&ctx).1, "RollingOut");
    pods.apply_watcher_event(&Event::Apply(new_proxy(&server, "False", 0)));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.document().rollout.gate, Gate::of_node("w1"));
    assert!(progressing(&ctx).2.contains("node w1 alone has the new template"));
    server.writes();

    // Another operator goes on, and finds that the new proxy has ended.
    let next = Context {
        nodes: ctx.nodes.clone(),
        pods: ctx.pods.clone(),
        ..blind_context(&server).0
    };
    next.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
    pods.apply_watcher_event(&Event::Apply(new_proxy(&server, "False", 2)));
    reconcile_once(&spec, &next).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
    let target = server.document().rollout;
    assert_eq!(
        (target.template.as_str(), target.gate),
        (good.as_str(), Gate::default())
    );
    assert_eq!(server.object(SET)["spec"]["template"], content);

    // The controller has deleted the pod of the bad template.
    pods.apply_watcher_event(&Event::Delete(proxy("new", "2")));
    server.edit(SET, &on_one_node(1));
    for _ in 0..3 {
        reconcile_once(&spec, &next).await;
    }
    assert_eq!(server.writes(), [""; 0], "it stands");
    let (status, reason, message) = progressing(&next);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RolloutHalted"));
    assert!(message.contains(&bad) && message.contains("node w1"), "{message}");

    // The same template again is not tried, and another one is.
    spec.proxy.image = None;
    reconcile_once(&spec, &next).await;
    assert_eq!(progressing(&next).0, "True");
    spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    reconcile_once(&spec, &next).await;
    assert_eq!(
        (server.template(), progressing(&next).1),
        (good, "RolloutHalted".to_owned())
    );
    spec.proxy.image = Some("registry.example.com/proxy:3".to_owned());
    reconcile_once(&spec, &next).await;
    assert_eq!(server.document().rollout.gate, Gate::closed());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_refused_holds_nothing_else_up() {
    let server = Server::default();
    let mut spec = with_static_pods();
    let (ctx, _nodes, _pods) = served(&spec, &server).await;
    *server.forbids_writer.lock().unwrap() = true;
    let refused = Box::pin(reconcile(&pool(spec.clone()), &ctx)).await;
    assert_eq!(refused.unwrap_err().reason(), "BootstrapForbidden");
    let told = || {
        let status = ctx.pool_states.of("default").status.unwrap();
        let condition = status.conditions.into_iter().find(|it| it.type_ == "Progressing");
        condition.unwrap().reason
    };
    assert_eq!(told(), "BootstrapForbidden");

    spec.members
        .push(serde_json::from_value(json!({ "name": "cp2", "addresses": ["192.0.2.2"] })).unwrap());
    Box::pin(reconcile(&pool(spec.clone()), &ctx)).await.unwrap_err();
    assert_eq!(server.writes(), ["configmaps"]);
    assert_eq!(server.members(), ["cp1", "cp2"]);
}

#[tokio::test(start_paused = true)]
async fn the_daemon_set_controller_is_woken_once_for_a_pod_that_it_has_forgotten() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    let (cached, mut pods) = reflector::store();
    let ctx = Context { pods: cached, ..ctx };
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let worker = json!({ "metadata": { "name": "w1" }, "status": {
        "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    nodes.apply_watcher_event(&Event::Apply(serde_json::from_value(worker).unwrap()));
    let spec = ApiserverPoolSpec::default();
    let settled = reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);

    // The status counts the old pod of the node, which is available.
    server.edit(
        SET,
        &json!({
            "metadata": { "annotations": { "deprecated.daemonset.template.generation": "2" } },
            "status": { "desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1,
                        "numberAvailable": 1, "updatedNumberScheduled": 0, "numberMisscheduled": 0 },
        }),
    );
    let old = proxy("old", "1");
    pods.apply_watcher_event(&Event::Apply(old.clone()));
    pods.apply_watcher_event(&Event::Apply(proxy("new", "2")));
    let replacing = reconcile_once(&spec, &ctx).await;
    assert!(replacing != settled, "the next pass is sooner");
    assert_eq!(server.writes(), [""; 0], "the new pod may not be available yet");

    tokio::time::advance(Duration::from_secs(15)).await;
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["daemonsets"]);
    let annotations = &server.object(SET)["metadata"]["annotations"];
    assert!(annotations["trivet.dev/woken"].is_string(), "{annotations}");
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "the annotation stays as it is");

    // The controller has deleted the old pod.
    pods.apply_watcher_event(&Event::Delete(old));
    for _ in 0..3 {
        tokio::time::advance(RESYNC).await;
        assert_eq!(reconcile_once(&spec, &ctx).await, settled);
    }
    assert_eq!(server.writes(), [""; 0]);
}
