//! An archive has what it should and none of the secrets that are planted everywhere.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::archive::Entry;
use super::*;

const WEB_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl";
const BOOTSTRAP: &str = "abcdef.0123456789abcdef";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIPlanted\n-----END EC PRIVATE KEY-----\n";
const ENVIRONMENT: &str = "planted-value-of-a-variable";
const BEARER: &str = "planted-opaque-token";
const APPLIED: &str = "planted-in-an-applied-object";

/// What must be in no archive.
const SECRETS: [&str; 6] = [
    WEB_TOKEN,
    BOOTSTRAP,
    "MHcCAQEEIPlanted",
    ENVIRONMENT,
    BEARER,
    APPLIED,
];

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "trivet-default-x", "namespace": "trivet-system",
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"env\":\"{APPLIED}\"}}"),
                "note": format!("token {WEB_TOKEN}"),
            },
        },
        "spec": { "nodeName": "w1", "containers": [{
            "name": "proxy", "env": [{ "name": "A_NAME", "value": ENVIRONMENT }], "args": ["run", format!("--token={BOOTSTRAP}")],
        }] },
        "status": { "containerStatuses": [{
            "name": "proxy", "image": "", "imageID": "", "ready": true, "restartCount": 1, "state": {},
        }] },
    })
}

fn log() -> String {
    format!(
        "line one\nAuthorization: Bearer {BEARER}\nurl https://10.0.0.1:6443/x?token={WEB_TOKEN}&y=1 end\n{KEY}\
         {{\"token\":\"{WEB_TOKEN}\"}}\njoin {BOOTSTRAP}, then\nlast line\n"
    )
}

/// Every kind has the pod, whatever it is: an archive must not depend on where a secret is.
fn client() -> Client {
    let service = service_fn(|request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        assert!(!path.contains("secrets"), "{path}");
        let (code, body) = if path.ends_with("/log") {
            (200, log())
        } else if path.ends_with("/pods") {
            (200, json!({ "metadata": {}, "items": [pod()] }).to_string())
        } else if path.ends_with("/configmaps") {
            let map = json!({ "metadata": { "name": "trivet-default" }, "data": { "pool.json": KEY } });
            (200, json!({ "metadata": {}, "items": [map] }).to_string())
        } else if path.ends_with("/events") {
            let event = json!({
                "metadata": { "name": "e" }, "involvedObject": {}, "message": format!("refused {WEB_TOKEN}"),
            });
            (200, json!({ "metadata": {}, "items": [event] }).to_string())
        } else {
            let status = json!({
                "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
                "message": format!("no, not with {WEB_TOKEN}"),
            });
            (403, status.to_string())
        };
        Response::builder()
            .status(code)
            .body(Body::from(body.into_bytes()))
            .map_err(BoxError::from)
    });
    Client::new(service, "default")
}

/// The files of an archive, by name.
async fn unpacked(log_lines: i64) -> Vec<(String, String)> {
    let entries = gather::all(client(), "trivet-system", log_lines).await;
    let mut bytes = Vec::new();
    archive::write(&mut bytes, &entries, 1_796_000_000).unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name, text)
        })
        .collect()
}

#[tokio::test]
async fn an_archive_has_no_secret() {
    let files = unpacked(100).await;
    for (name, text) in &files {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
    }
}

#[tokio::test]
async fn an_archive_has_objects_logs_and_what_could_not_be_read() {
    let files = unpacked(100).await;
    let text = |name: &str| {
        let found = files
            .iter()
            .find(|(file, _)| *file == format!("trivet-report/{name}"));
        let found =
            found.unwrap_or_else(|| panic!("{name} is not in {:?}", files.iter().map(|file| &file.0)));
        found.1.as_str()
    };
    assert!(
        text("pods.json").contains("A_NAME"),
        "the names of variables stay"
    );
    assert!(text("configmaps.json").contains("trivet-default"));
    for log in [
        "logs/trivet-default-x.proxy.log",
        "logs/trivet-default-x.proxy.previous.log",
    ] {
        assert!(
            text(log).starts_with("line one\n") && text(log).ends_with("last line\n"),
            "{}",
            text(log)
        );
        assert!(text(log).contains("/x?token=REDACTED&y=1 end"), "{}", text(log));
    }
    assert!(text("unread.txt").contains("proxyreports: no, not with REDACTED (403 Forbidden)"));
    assert!(unpacked(0).await.iter().all(|(name, _)| !name.contains("logs/")));
}

#[test]
fn what_is_no_secret_stays() {
    let line = "2026-11-29T12:00:00Z INFO upstream health changed member=cp1 10.0.0.1:6443 sha256:0123abc trivet.dev/pool\n";
    assert_eq!(redact::text(line), line);
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\nafter\n";
    assert_eq!(redact::text(certificate), certificate);
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let path = std::env::temp_dir().join(format!("trivet-report-test-{}", std::process::id()));
    drop(create(&path).unwrap());
    let refusal = create(&path).unwrap_err();
    assert!(
        refusal.is::<BadUsage>() && refusal.to_string().contains("--file"),
        "{refusal:#}"
    );
    std::fs::remove_file(&path).unwrap();
    let entry = Entry::json("a.json", &json!({ "a": 1 })).unwrap();
    assert_eq!(entry.content, b"{\n  \"a\": 1\n}");
}
