//! Replies to probes: whatever the body says, the status decides, and the log stays one line.

use hyper::StatusCode;
use trivet_proxy::{
    balance::health::Outcome,
    probe::reply::Reply,
    trust::{Certificate, CertificateStatus, Dates},
};

use crate::search::{fuzz, keep};

/// As Kubernetes 1.34 answers `/readyz?verbose` where etcd cannot be reached, shortened.
const RED: &str = "[+]ping ok
[+]log ok
[-]etcd failed: reason withheld
[-]etcd-readiness failed: reason withheld
[+]informer-sync ok
[+]poststarthook/start-apiserver-admission-initializer ok
[+]shutdown ok
readyz check failed
";

#[test]
fn no_body_changes_what_the_status_says() {
    fuzz("reply", &[RED.into()], |body| {
        judged(&String::from_utf8_lossy(body));
    });
}

fn judged(body: &str) {
    let reply = |status: StatusCode, certificate| Reply {
        status,
        body: body.to_owned(),
        certificate,
        shown: Certificate::default(),
    };
    for (alive, outcome) in [
        (StatusCode::OK, Outcome::Ready),
        (StatusCode::UNAUTHORIZED, Outcome::Withheld),
        (StatusCode::FORBIDDEN, Outcome::Withheld),
    ] {
        let reply = reply(alive, CertificateStatus::Verified);
        assert_eq!(reply.outcome(), outcome);
        assert_eq!(reply.detail(), "");
    }
    let red = reply(
        StatusCode::INTERNAL_SERVER_ERROR,
        CertificateStatus::OutOfDate(Dates::Expired),
    );
    let outcome = red.outcome();
    assert!(
        matches!(outcome, Outcome::NotReady | Outcome::EtcdFailed),
        "{outcome:?}"
    );
    assert!(
        outcome == Outcome::NotReady || body.contains("[-]etcd"),
        "{body:?}"
    );
    let red = reply(StatusCode::SERVICE_UNAVAILABLE, CertificateStatus::Verified);
    assert_eq!(red.outcome(), outcome);
    assert!(!red.detail().contains(['\n', '\r']), "{:?}", red.detail());
    let foreign = reply(
        StatusCode::OK,
        CertificateStatus::Untrusted("unknown issuer".to_owned()),
    );
    assert_eq!(foreign.outcome(), Outcome::Untrusted);
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_replies() {
    keep("reply", "red", RED.as_bytes());
    keep(
        "reply",
        "green",
        RED.replace("[-]", "[+]")
            .replace("failed: reason withheld", "ok")
            .as_bytes(),
    );
    keep(
        "reply",
        "forbidden",
        br#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}"#,
    );
}
