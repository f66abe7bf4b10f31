//! A preview reads what a pass reads, and writes nothing.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use trivet_crds::pool::ApiserverPoolSpec;

use super::*;
use crate::context;
use crate::plan::Verdict;

fn list(items: &Value) -> (u16, String) {
    (200, json!({ "metadata": {}, "items": items }).to_string())
}

fn nodes() -> Value {
    let node = |name: &str, ip: &str| {
        json!({
            "metadata": { "name": name, "labels": {
                "kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "",
            } },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": ip }],
                "allocatable": { "pods": "110" },
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    };
    json!([node("cp1", "192.0.2.1"), node("cp2", "192.0.2.2")])
}

fn seen(health: &str) -> ApiserverPoolStatus {
    let member = |name: &str, ip: &str| json!({ "name": name, "addresses": [ip], "port": 1, "source": "Node", "state": "Active", "health": health });
    serde_json::from_value(json!({ "members": [member("cp1", "192.0.2.1"), member("cp2", "192.0.2.2")] }))
        .unwrap()
}

/// A source whose API server has two masters and no pool, and the requests that it got.
fn source() -> (Source, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&requests);
    let ctx = context::tests::context(move |method, path, _| {
        asked.lock().unwrap().push(format!("{method} {path}"));
        match path.rsplit('/').next().unwrap() {
            "nodes" => list(&nodes()),
            name if name.starts_with("trivet-") || path.ends_with("/proxyreports") => {
                let status =
                    json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" });
                (404, status.to_string())
            }
            _ => list(&json!([])),
        }
    });
    let Context {
        client,
        access,
        settings,
        ..
    } = ctx;
    let source = Source {
        client,
        access,
        settings,
    };
    (source, requests)
}

#[tokio::test]
async fn a_new_pool_is_planned_and_nothing_is_written() {
    let (source, requests) = source();
    let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    // Nothing listens there, and an apiserver of 7443 would be a conflict.
    pool.spec.discovery.port = 1;
    let Preview { plan, .. } = preview(&pool, Some(&seen("Up")), source).await.unwrap();
    assert!(
        matches!(plan.verdict, Verdict::Accepted { .. }),
        "{:?}",
        plan.verdict
    );
    let names: Vec<_> = plan.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["cp1", "cp2"]);
    let requests = requests.lock().unwrap();
    assert!(
        requests.iter().all(|request| request.starts_with("GET ")),
        "{requests:?}"
    );
}

#[test]
fn what_the_operator_sees_counts_and_not_what_this_machine_sees() {
    let now = Instant::now();
    let sockets = ["192.0.2.1:1", "192.0.2.9:1"].map(|socket| socket.parse::<SocketAddr>().unwrap());
    let mut own = Healths::default();
    for socket in sockets {
        own.observe(socket, Answer::Silent, now);
    }
    let state = |health, socket: &SocketAddr| {
        let healths = as_the_operator_sees(&own, Some(&seen(health)), now);
        healths.get(socket).unwrap().state
    };
    assert_eq!(state("Up", &sockets[0]), MemberHealth::Up);
    assert_eq!(state("Unready", &sockets[0]), MemberHealth::Unready);
    assert_eq!(state("Unknown", &sockets[0]), MemberHealth::Down);
    assert_eq!(
        state("Up", &sockets[1]),
        MemberHealth::Down,
        "the operator has told nothing of it"
    );
}
