//! Whole retirements against an API server that is a closure, and a cluster that follows what it is told.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Node;
use kube::runtime::reflector;
use kube::runtime::watcher;
use serde_json::{Value, json};
use trivet_crds::{POOL_LABEL, RETIRE, RETIREMENT, RETIREMENT_LABEL};

use super::*;
use crate::context::tests::context;

const SETS: &str = "/apis/apps/v1/namespaces/trivet-system/daemonsets";
const PROXIES: &str = "trivet-default";
const WRITER: &str = "trivet-default-bootstrap";
const REMOVER: &str = "retire-trivet-default";
const MAP: &str = "/api/v1/namespaces/trivet-system/configmaps/trivet-default";

/// What says in DNS where the apiservers are.
const NAMES: [&str; 3] = [
    "/api/v1/namespaces/trivet-system/services/default-apiservers",
    "/apis/discovery.k8s.io/v1/namespaces/trivet-system/endpointslices/default-apiservers-ipv4-6443",
    "/apis/externaldns.k8s.io/v1alpha1/namespaces/trivet-system/dnsendpoints/trivet-default",
];

/// The nodes of the cluster.
const NODES: [&str; 2] = ["w1", "w2"];

/// More looks than any retirement needs.
const LOOKS: usize = 40;

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Whether the pool exists; none without its CRD.
    pool: Option<bool>,
    writes: usize,
    /// The write that fails, and whether the API server has obeyed it.
    fails: Option<(usize, bool)>,
    events: Vec<String>,
    /// The paths of what was deleted, in order.
    deleted: Vec<String>,
}

fn set(name: &str, component: &str, extra: &Value) -> Value {
    let mut container = json!({ "name": "c", "image": "proxy:1" });
    container["args"] = extra.clone();
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": name, "namespace": "trivet-system", "uid": name, "resourceVersion": "1",
            "labels": { POOL_LABEL: "default", "trivet.dev/component": component }, "annotations": {},
        },
        "spec": { "selector": {}, "template": { "spec": {
            "containers": [container.clone()], "initContainers": [container],
            "volumes": [{ "name": "manifests", "hostPath": { "path": "/etc/kubelet.d" } }],
        } } },
    })
}

fn status(code: u16, message: &str) -> (u16, String) {
    let word = if code < 400 { "Success" } else { "Failure" };
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "status": word, "code": code, "message": message });
    (code, status.to_string())
}

fn list(items: &[Value]) -> (u16, String) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
    (200, list.to_string())
}

impl Cluster {
    /// An orphan with standbys.
    fn orphan() -> Self {
        let cluster = Self::default();
        let mut state = cluster.0.lock().unwrap();
        state.pool = Some(false);
        let sets = [
            set(PROXIES, "", &json!([])),
            set(WRITER, "bootstrap", &json!(["write-manifest"])),
        ];
        for set in sets {
            let path = format!("{SETS}/{}", set["metadata"]["name"].as_str().unwrap());
            state.objects.insert(path, set);
        }
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": PROXIES } });
        state.objects.insert(MAP.to_owned(), map);
        for path in NAMES {
            let (_, name) = path.rsplit_once('/').unwrap();
            let object = json!({ "addressType": "IPv4", "endpoints": [],
                                 "metadata": { "name": name, "uid": name, "resourceVersion": "1" } });
            state.objects.insert(path.to_owned(), object);
        }
        drop(state);
        cluster
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn has(&self, set: &str) -> bool {
        self.with(|state| state.objects.contains_key(&format!("{SETS}/{set}")))
    }

    fn annotate(&self, set: &str, annotations: &Value) {
        self.with(|state| {
            let set = state.objects.get_mut(&format!("{SETS}/{set}")).unwrap();
            merge(set, &json!({ "metadata": { "annotations": annotations } }));
        });
    }

    fn asks(&self) -> bool {
        self.with(|state| {
            let set = state.objects.get(&format!("{SETS}/{PROXIES}"));
            set.is_some_and(|set| !set["metadata"]["annotations"][RETIRE].is_null())
        })
    }

    fn answer(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.with(|state| state.answer(method, path, body))
    }

    /// An operator that has just started and has read nodes and reports.
    fn operator(&self, idle_seconds: u32) -> Context {
        let cluster = self.clone();
        let mut ctx = context(move |method, path, body| cluster.answer(method, path, body));
        let (nodes, mut writer) = reflector::store();
        for node in NODES {
            let node: Node = serde_json::from_value(json!({
                "metadata": { "name": node },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap();
            writer.apply_watcher_event(&watcher::Event::Apply(node));
        }
        ctx.nodes = nodes;
        ctx.readiness
            .observe::<Node>("Node", &Ok(watcher::Event::InitDone));
        ctx.reports.observe(watcher::Event::Init);
        for node in NODES {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            let report = serde_json::from_value(json!({
                "metadata": { "name": format!("default.{node}") },
                "poolName": "default", "nodeName": node, "idleSeconds": idle_seconds, "observedTime": now,
            }));
            ctx.reports.observe(watcher::Event::InitApply(report.unwrap()));
        }
        ctx.reports.observe(watcher::Event::InitDone);
        ctx
    }

    /// Looks until nothing of the fleet is left; each look is that of a new operator.
    async fn retired(&self) -> bool {
        for _ in 0..LOOKS {
            let ctx = self.operator(600);
            drop(Retirements::default().look(&ctx).await);
            if self.with(|state| state.objects.is_empty()) {
                return true;
            }
        }
        false
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        match method {
            "GET" => self.read(path),
            "POST" => {
                let event: Value = serde_json::from_str(body).unwrap();
                self.events.push(event["reason"].as_str().unwrap().to_owned());
                (201, body.to_owned())
            }
            _ => {
                self.writes += 1;
                match self.fails {
                    Some((number, obeys)) if number == self.writes => {
                        if obeys {
                            drop(self.write(method, path, body));
                        }
                        status(500, "the answer is lost")
                    }
                    _ => self.write(method, path, body),
                }
            }
        }
    }

    fn read(&self, path: &str) -> (u16, String) {
        if path.ends_with("/apiserverpools") {
            let pool = json!({ "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "metadata": { "name": "default" } });
            return match self.pool {
                None => status(404, "the server could not find the requested resource"),
                Some(true) => list(&[pool]),
                Some(false) => list(&[]),
            };
        }
        if path == SETS {
            let sets = self.objects.iter().filter(|(path, _)| path.starts_with(SETS));
            return list(&sets.map(|(_, set)| set.clone()).collect::<Vec<_>>());
        }
        if NAMES.iter().any(|name| name.starts_with(path)) {
            let found = self.objects.iter().filter(|(name, _)| name.starts_with(path));
            return list(&found.map(|(_, object)| object.clone()).collect::<Vec<_>>());
        }
        assert!(path.ends_with("/pods"), "{path}");
        let has = |set: &str| self.objects.contains_key(&format!("{SETS}/{set}"));
        let mut pods = Vec::new();
        for node in NODES {
            if has(PROXIES) {
                pods.push(json!({
                    "metadata": { "name": format!("p-{node}"), "labels": { POOL_LABEL: "default" } },
                    "spec": { "nodeName": node, "containers": [] },
                }));
            }
            if has(REMOVER) {
                let is_done = if has(PROXIES) { "False" } else { "True" };
                let state = json!({ "name": "state", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                                    "state": { "running": {} } });
                pods.push(json!({
                    "metadata": { "name": format!("r-{node}"), "labels": { RETIREMENT_LABEL: "default" } },
                    "spec": { "nodeName": node, "containers": [] },
                    "status": { "containerStatuses": [state], "conditions": [{ "type": "Ready", "status": is_done }] },
                }));
            }
        }
        list(&pods)
    }

    fn write(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let body: Value = serde_json::from_str(body).unwrap();
        if method == "PATCH" {
            if body.get("kind").is_some() {
                self.objects.insert(path.to_owned(), body.clone());
                return (200, body.to_string());
            }
            return match self.objects.get_mut(path) {
                Some(object) => {
                    merge(object, &body);
                    (200, object.to_string())
                }
                None => status(404, "no"),
            };
        }
        assert_eq!(method, "DELETE");
        if path.contains("/proxyreports/") {
            return status(200, "");
        }
        match self.objects.get(path) {
            None => status(404, "no"),
            // The policies of the chart.
            Some(object)
                if !NAMES.contains(&path) && object["metadata"]["annotations"][RETIREMENT].is_null() =>
            {
                status(403, "denied")
            }
            Some(_) => {
                self.objects.remove(path);
                self.deleted.push(path.rsplit('/').next().unwrap().to_owned());
                status(200, "")
            }
        }
    }
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), change);
                }
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}

#[tokio::test]
async fn manifests_go_before_the_proxies_and_the_document_and_the_names_after_them() {
    let cluster = Cluster::orphan();
    assert!(cluster.retired().await);
    let (deleted, events) = cluster.with(|state| (state.deleted.clone(), state.events.clone()));
    let names = NAMES.map(|path| path.rsplit('/').next().unwrap());
    let [service, slice, records] = names;
    assert_eq!(
        deleted,
        [WRITER, PROXIES, PROXIES, service, slice, records, REMOVER]
    );
    assert_eq!(events, ["PoolRetired"]);
}

#[tokio::test]
async fn whatever_write_fails_and_wherever_the_operator_dies_the_next_one_finishes() {
    let cluster = Cluster::orphan();
    assert!(cluster.retired().await);
    let writes = cluster.with(|state| state.writes);
    assert!(writes >= 8, "{writes}");
    for number in 1..=writes {
        for obeys in [false, true] {
            let cluster = Cluster::orphan();
            cluster.with(|state| state.fails = Some((number, obeys)));
            assert!(cluster.retired().await, "write {number}, obeyed: {obeys}");
        }
    }
}

#[tokio::test]
async fn a_pool_that_comes_back_at_any_step_keeps_the_proxies_or_finds_nothing() {
    let cluster = Cluster::orphan();
    assert!(cluster.retired().await);
    for steps in 1..cluster.with(|state| state.writes) {
        let cluster = Cluster::orphan();
        for _ in 0..LOOKS {
            if cluster.with(|state| state.writes) >= steps {
                break;
            }
            drop(Retirements::default().look(&cluster.operator(600)).await);
        }
        let had_proxies = cluster.has(PROXIES);
        cluster.with(|state| state.pool = Some(true));
        for _ in 0..LOOKS {
            drop(Retirements::default().look(&cluster.operator(600)).await);
        }
        assert_eq!(cluster.has(PROXIES), had_proxies, "after {steps} writes");
        assert!(!cluster.has(REMOVER), "after {steps} writes");
        let noted = cluster.with(|state| {
            let sets = state.objects.iter().filter(|(path, _)| path.starts_with(SETS));
            sets.filter(|(_, set)| !set["metadata"]["annotations"][RETIREMENT].is_null())
                .count()
        });
        assert_eq!(noted, 0, "after {steps} writes");
    }
}

#[tokio::test]
async fn an_orphan_that_is_used_costs_no_write() {
    let cluster = Cluster::orphan();
    for _ in 0..3 {
        let pause = Retirements::default().look(&cluster.operator(599)).await;
        assert_eq!(pause, Ok(LOOK));
    }
    assert_eq!(cluster.with(|state| state.writes), 0);
}

#[tokio::test]
async fn a_retirement_that_is_asked_for_too_early_is_told_once_and_forgotten() {
    let cluster = Cluster::orphan();
    cluster.with(|state| state.pool = Some(true));
    cluster.annotate(PROXIES, &json!({ RETIRE: "now" }));
    for _ in 0..3 {
        drop(Retirements::default().look(&cluster.operator(600)).await);
    }
    assert!(cluster.has(PROXIES) && !cluster.asks());
    assert_eq!(cluster.with(|state| state.events.clone()), ["RetireIgnored"]);
}

#[tokio::test]
async fn without_the_crd_only_who_asks_retires() {
    let cluster = Cluster::orphan();
    cluster.with(|state| state.pool = None);
    assert!(!cluster.retired().await);
    assert_eq!(cluster.with(|state| state.writes), 0);
    cluster.annotate(PROXIES, &json!({ RETIRE: "now" }));
    assert!(cluster.retired().await);
}
