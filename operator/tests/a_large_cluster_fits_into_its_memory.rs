//! The operator's caches of a cluster with 5,000 nodes, filled as the operator fills them, take less than 128 MiB. The whole operator
//! is measured by `make bench`: `docs/scale.md`.
//!
//! A file of its own, because it measures its process.

use std::sync::Arc;

use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::client::Body;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use trivet_crds::POOL_LABEL;
use trivet_crds::report::ProxyReport;
use trivet_operator::api::watch::{trim_node, trim_pod, watch};
use trivet_operator::reports::Reports;
use trivet_operator::serve::readiness::Readiness;

const NODES: usize = 5000;

/// The limit of the whole operator, of which the rest takes some 20 MiB.
const LIMIT_KIB: u64 = 100 * 1024;

#[tokio::test]
async fn five_thousand_nodes_their_proxies_and_reports_take_less_than_100_mib() {
    let client = Client::new(tower::service_fn(answer), "default");
    let readiness = Arc::new(Readiness::default());
    let (nodes, writer) = reflector::store();
    let watching = watch(
        Api::<Node>::all(client.clone()),
        None,
        "Node",
        Arc::clone(&readiness),
    )
    .modify(trim_node)
    .reflect(writer)
    .take_until(Box::pin(readiness.read("Node")));
    watching.for_each(|_| std::future::ready(())).await;
    let (pods, writer) = reflector::store();
    let watching = watch(
        Api::<Pod>::all(client.clone()),
        Some(POOL_LABEL),
        "Pod",
        Arc::clone(&readiness),
    )
    .modify(trim_pod)
    .reflect(writer)
    .take_until(Box::pin(readiness.read("Pod")));
    watching.for_each(|_| std::future::ready(())).await;

    let reports = Reports::default();
    let mut events = Box::pin(watcher(
        Api::<ProxyReport>::all(client),
        Config::default().page_size(100),
    ));
    while !reports.has_read() {
        reports.observe(events.next().await.unwrap().unwrap());
    }

    assert_eq!((nodes.len(), pods.len()), (NODES, NODES));
    assert_eq!(reports.of("default").len(), NODES);
    let peak = peak_kib().unwrap();
    println!("{NODES} nodes, pods and reports: at most {peak} KiB");
    assert!(peak < LIMIT_KIB, "{peak} KiB");
}

/// One page of a list; a watch that brings nothing would not be reached.
async fn answer(request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<usize>().ok());
    let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(NODES));
    let to = (from + limit).min(NODES);
    let path = request.uri().path();
    let (kind, version, item): (_, _, fn(usize) -> Value) = match path.rsplit('/').next() {
        Some("nodes") => ("NodeList", "v1", node),
        Some("pods") => ("PodList", "v1", pod),
        _ => ("ProxyReportList", "trivet.dev/v1alpha1", report),
    };
    let items: Vec<_> = (from..to).map(item).collect();
    let more = if to < NODES { to.to_string() } else { String::new() };
    let list = json!({
        "apiVersion": version, "kind": kind,
        "metadata": { "resourceVersion": "1", "continue": more }, "items": items,
    });
    Ok(Response::new(Body::from(list.to_string().into_bytes())))
}

/// A node as kubelet reports it, with its fifty images.
fn node(index: usize) -> Value {
    let labels: Value = (0..20)
        .map(|label| {
            (
                format!("example.com/label-{label}"),
                json!(format!("value-{index}")),
            )
        })
        .collect();
    let image = |image: usize| {
        let digest = format!(
            "registry.example.com/project/image-{image}@sha256:{:064x}",
            index * 100 + image
        );
        json!({ "names": [digest, format!("registry.example.com/project/image-{image}:1.2.3")], "sizeBytes": 1 })
    };
    let condition = |type_: &str, status: &str| {
        json!({ "type": type_, "status": status, "reason": "KubeletReady", "message": "kubelet is posting its status",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    json!({
        "metadata": { "name": format!("node-{index}"), "uid": format!("uid-{index}"), "labels": labels,
                      "annotations": { "example.com/note": "x".repeat(2000) }, "resourceVersion": "1" },
        "spec": { "podCIDRs": ["10.0.0.0/24"], "providerID": format!("provider://{index}") },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }, { "type": "Hostname", "address": format!("node-{index}") }],
            "allocatable": { "cpu": "32", "memory": "128Gi", "pods": "110" },
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("Ready", "True")],
            "images": (0..50).map(image).collect::<Vec<_>>(),
        },
    })
}

/// A proxy's pod as the DaemonSet controller and kubelet leave it.
fn pod(index: usize) -> Value {
    let condition = |type_: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let argument = |argument: usize| json!(format!("--argument-{argument}"));
    json!({
        "metadata": { "name": format!("trivet-default-{index}"), "namespace": "trivet-system", "uid": format!("uid-{index}"),
                      "labels": { POOL_LABEL: "default", "pod-template-generation": "3", "controller-revision-hash": "abcdef" },
                      "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": "x".repeat(3000) } }], "resourceVersion": "1" },
        "spec": { "nodeName": format!("node-{index}"), "hostNetwork": true,
                  "containers": [{ "name": "proxy", "args": (0..30).map(argument).collect::<Vec<_>>() }] },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1",
            "conditions": conditions,
            "containerStatuses": [{ "name": "proxy", "image": "proxy", "imageID": "x".repeat(200), "ready": true,
                                    "restartCount": 0, "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }],
        },
    })
}

/// The report of a node that reaches three members.
fn report(index: usize) -> Value {
    let member = |number: usize| {
        json!({
            "name": format!("cp{number}.example.internal"), "address": format!("10.0.0.{number}:6443"), "standing": "Active",
            "health": "Up", "lastAnswer": "Verified", "lastProbeMilliseconds": 3, "connections": 4,
            "certificate": { "state": "Verified", "notAfter": "2027-01-01T00:00:00Z",
                             "uncoveredAddresses": ["127.0.0.1:7443", "[::1]:7443"] },
        })
    };
    json!({
        "metadata": { "name": format!("default.node-{index}"), "uid": format!("uid-{index}"), "resourceVersion": "1",
                      "managedFields": [{ "manager": "trivet-proxy", "fieldsV1": { "f:members": "x".repeat(1000) } }] },
        "poolName": "default", "nodeName": format!("node-{index}"), "revision": 7, "template": "0123456789",
        "members": [member(1), member(2), member(3)], "membersSummary": "3/3", "connections": 12,
        "observedTime": "2026-01-01T00:00:00Z",
    })
}

/// The most memory that this process ever had in use.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
