//! Against API servers that are sockets of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::Method;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec};

use super::*;
use crate::api::fence::is_fenced;
use crate::leader::Leadership;
use crate::leader::tests::leader;
use crate::serve::metrics::Metrics;

#[test]
fn a_certificate_is_wrapped_as_pem() {
    let text = pem(&[0; 60]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----");
    assert_eq!((lines[1].len(), lines[2].len()), (64, 16));
    assert_eq!(lines[3], "-----END CERTIFICATE-----");
}

/// How to reach an API server at this port of this machine, without TLS.
fn access(port: u16) -> Access {
    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let mut config = Config::new(url);
    config.root_cert = Some(Vec::new());
    Access::try_new(config).unwrap()
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// How long a list takes to fail at an apiserver that says this and nothing more. The socket stays open.
async fn silence_is_noticed_after(said: &'static str) -> Duration {
    let (listener, port) = listen().await;
    let serve = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(said.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let client = access(port).unfenced().unwrap();
    let begun = Instant::now();
    let listed = Api::<Node>::all(client).list(&ListParams::default()).await;
    let took = begun.elapsed();
    serve.abort();
    assert!(listed.is_err(), "{took:?}: {listed:?}");
    took
}

#[tokio::test]
async fn an_apiserver_that_falls_silent_in_the_middle_of_a_list_is_noticed_within_ten_seconds() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90000\r\n\r\n{\"kind\":";
    let took = silence_is_noticed_after(half).await;
    assert!(took < Duration::from_secs(10) && took >= LONGEST_GAP, "{took:?}");
}

#[tokio::test]
async fn an_apiserver_that_takes_a_request_and_never_answers_is_noticed_within_ten_seconds() {
    let took = silence_is_noticed_after("").await;
    assert!(
        took < Duration::from_secs(10) && took >= ANSWER_TIMEOUT,
        "{took:?}"
    );
}

#[tokio::test]
async fn the_api_server_is_told_which_program_asks() {
    let (listener, port) = listen().await;
    let serve = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = socket.read(&mut request).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let access = access(port);
    let access = Access::try_new(named(access.config, USER_AGENT)).unwrap();
    let nodes = Api::<Node>::all(access.unfenced().unwrap());
    // The server ends without an answer.
    nodes.list(&ListParams::default()).await.unwrap_err();
    let request = serve.await.unwrap().to_lowercase();
    assert!(request.contains("\r\nuser-agent: trivet-operator/"), "{request}");
}

#[test]
fn only_a_watch_may_rest() {
    let gap = |path: &str| longest_gap(&path.parse().unwrap());
    assert_eq!(gap("/api/v1/nodes?&limit=100"), LONGEST_GAP);
    assert_eq!(gap("/api/v1/nodes?&watch=true&timeoutSeconds=30"), LONGEST_REST);
    assert_eq!(gap("/api/v1/nodes/watch=true"), LONGEST_GAP);
}

/// An API server that counts what is not a read, and says yes to everything.
async fn counting(writes: Arc<AtomicUsize>) -> u16 {
    let (listener, port) = listen().await;
    let answer = move |method: Method, body: String| {
        if method != Method::GET {
            writes.fetch_add(1, Ordering::SeqCst);
        }
        let object = json!({ "metadata": {}, "items": [] }).to_string();
        std::future::ready(if body.contains("spec") { body } else { object })
    };
    let routes = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

/// Every way in which the operator, or a part that is added to it, may write.
async fn write_in_every_way(client: &Client) -> Vec<Result<(), kube::Error>> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "trivet-system");
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "trivet-system");
    let pools = Api::<ApiserverPool>::all(client.clone());
    let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    let (apply, merge) = (PatchParams::apply("a").force(), PatchParams::default());
    let note = json!({ "metadata": { "name": "a" }, "apiVersion": "v1", "kind": "ConfigMap" });
    let (create, delete) = (PostParams::default(), DeleteParams::default());
    let event = Event {
        type_: EventType::Normal,
        reason: "A".to_owned(),
        note: None,
        action: "A".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(client.clone(), "a".into());
    vec![
        maps.create(&create, &map).await.map(drop),
        maps.replace("a", &create, &map).await.map(drop),
        maps.patch("a", &apply, &Patch::Apply(&note)).await.map(drop),
        sets.patch_metadata("a", &merge, &Patch::Merge(&note))
            .await
            .map(drop),
        pools
            .patch_status("a", &apply, &Patch::Apply(&note))
            .await
            .map(drop),
        pools.replace_status("a", &create, &pool).await.map(drop),
        maps.delete("a", &delete).await.map(drop),
        maps.delete_collection(&delete, &ListParams::default())
            .await
            .map(drop),
        recorder.publish(&event, &pool.object_ref(&())).await,
    ]
}

#[tokio::test]
async fn no_write_of_any_kind_leaves_an_operator_that_does_not_lead() {
    let writes = Arc::new(AtomicUsize::new(0));
    let port = counting(Arc::clone(&writes)).await;
    let metrics = Arc::new(Metrics::default());
    let expired = leader("a");
    let term = expired.term().unwrap();
    expired.lead(&term, Instant::now());
    for (leadership, word) in [(Leadership::new().0, "NotLeader"), (expired, "LeaseExpired")] {
        let fence = Fence::new(Arc::new(leadership), Arc::clone(&metrics));
        let client = access(port).client(fence).unwrap();
        for (number, written) in write_in_every_way(&client).await.into_iter().enumerate() {
            let error = written.expect_err(&format!("write {number}"));
            assert!(is_fenced(&error), "write {number}: {error:?}");
        }
        let read = Api::<Node>::all(client).list(&ListParams::default()).await;
        assert!(read.is_ok(), "{read:?}");
        let counted = format!("trivet_operator_fenced_writes_total{{reason=\"{word}\"}} 9");
        let text = metrics.to_text().unwrap();
        assert!(text.contains(&counted), "{text}");
    }
    assert_eq!(writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_write_of_a_leader_passes_until_it_leads_no_longer() {
    let writes = Arc::new(AtomicUsize::new(0));
    let port = counting(Arc::clone(&writes)).await;
    let leadership = Arc::new(leader("a"));
    let fence = Fence::new(Arc::clone(&leadership), Arc::default());
    let client = access(port).client(fence).unwrap();
    let fenced = |results: Vec<Result<(), kube::Error>>| {
        let errors = results.into_iter().filter_map(Result::err);
        errors.filter(is_fenced).count()
    };
    assert_eq!(fenced(write_in_every_way(&client).await), 0);
    let sent = writes.swap(0, Ordering::SeqCst);
    assert_eq!(sent, 9);
    leadership.step_down();
    assert_eq!(fenced(write_in_every_way(&client).await), sent);
    assert_eq!(writes.load(Ordering::SeqCst), 0);
}
