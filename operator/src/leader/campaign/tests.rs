//! Operators that stand for election at an API server that is a closure, on a clock that tests move.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::advance;

use super::*;
use crate::context::tests::{RESET, client};
use crate::serve::readiness::{KINDS, Readiness};

/// An API server with one Lease.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    is_silent: Arc<AtomicBool>,
    forbids: Arc<AtomicBool>,
    versions: Arc<AtomicU32>,
}

impl Server {
    fn answer(&self, method: &str, body: &str) -> (u16, String) {
        if self.is_silent.load(Ordering::SeqCst) {
            return (RESET, String::new());
        }
        if self.forbids.load(Ordering::SeqCst) {
            return refusal(403, "leases is forbidden");
        }
        let mut lease = self.lease.lock().unwrap();
        if method != "GET" {
            let mut written: Value = serde_json::from_str(body).unwrap();
            let versions = |object: &Value| object["metadata"]["resourceVersion"].clone();
            if lease.as_ref().map_or(Value::Null, versions) != versions(&written) {
                return refusal(409, "no");
            }
            let version = self.versions.fetch_add(1, Ordering::SeqCst) + 1;
            written["metadata"]["resourceVersion"] = version.to_string().into();
            *lease = Some(written);
        }
        lease
            .as_ref()
            .map_or_else(|| refusal(404, "no"), |lease| (200, lease.to_string()))
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        let holder = lease
            .as_ref()
            .map(|lease| lease["spec"]["holderIdentity"].clone());
        holder
            .and_then(|holder| Some(holder.as_str()?.to_owned()))
            .unwrap_or_default()
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

/// An operator that stands for election.
struct Operator {
    leadership: Arc<Leadership>,
    readiness: Arc<Readiness>,
    terms_ended: Arc<AtomicU32>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    fn start(server: &Server, name: &str) -> Self {
        let (leadership, _) = Leadership::new();
        let (leadership, terms_ended) = (Arc::new(leadership), Arc::new(AtomicU32::new(0)));
        let (server, stop) = (server.clone(), CancellationToken::new());
        let client = client(move |method, _, body| server.answer(method, body));
        let telemetry = Telemetry::default();
        let readiness = Arc::clone(&telemetry.readiness);
        for kind in KINDS {
            readiness.observe::<Lease>(kind, &Ok(Event::InitDone));
        }
        let campaign = Campaign::new(client, "trivet-system", name, Arc::clone(&leadership), telemetry);
        let (stopped, count) = (stop.clone(), Arc::clone(&terms_ended));
        let forget = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        Self {
            leadership,
            readiness,
            terms_ended,
            stop,
            task: tokio::spawn(async move { campaign.run(stopped, forget).await }),
        }
    }

    fn leads(&self) -> bool {
        self.leadership.check(Instant::now()).is_ok()
    }

    fn terms_ended(&self) -> u32 {
        self.terms_ended.load(Ordering::SeqCst)
    }
}

/// Moves the clock in steps, so that each timer runs at its time. Returns when `is_so`, with the seconds that it took.
async fn until(seconds: u32, is_so: impl Fn() -> bool) -> f64 {
    let begun = Instant::now();
    for _ in 0..seconds * 10 {
        if is_so() {
            return begun.elapsed().as_secs_f64();
        }
        advance(Duration::from_millis(100)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    panic!("not within {seconds} s");
}

async fn pass(seconds: u32) {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    until(seconds + 1, || Instant::now() >= end).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_leads_and_a_released_lease_is_taken_within_seconds() {
    let server = Server::default();
    let first = Operator::start(&server, "first");
    until(5, || first.leads()).await;
    let second = Operator::start(&server, "second");
    pass(60).await;
    assert!(first.leads() && !second.leads());
    assert!(server.holder().starts_with("first_"));

    first.stop.cancel();
    first.task.await.unwrap();
    assert!(first.leadership.check(Instant::now()).is_err());
    assert_eq!(server.holder(), "");
    let took = until(5, || second.leads()).await;
    assert!(took <= 2.5, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_an_operator_that_was_killed_is_taken_within_20_seconds() {
    let server = Server::default();
    let first = Operator::start(&server, "first");
    until(5, || first.leads()).await;
    let second = Operator::start(&server, "second");
    pass(10).await;
    first.task.abort();
    let took = until(20, || second.leads()).await;
    assert!(took >= 13.0, "{took} s: the first one may still lead");
    assert!(!first.leads());
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_reaches_no_api_server_steps_down_in_time_and_leads_again_afterwards() {
    let server = Server::default();
    let operator = Operator::start(&server, "only");
    until(5, || operator.leads()).await;
    server.is_silent.store(true, Ordering::SeqCst);
    let took = until(15, || !operator.leads()).await;
    assert!((7.5..=10.2).contains(&took), "{took} s");
    pass(120).await;
    assert!(!operator.task.is_finished(), "an absent API ends no process");
    assert_eq!(operator.terms_ended(), 1, "what it remembered is forgotten once");
    server.is_silent.store(false, Ordering::SeqCst);
    until(3, || operator.leads()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_may_not_use_its_lease_is_not_ready_and_leads_soon_after_it_may() {
    let server = Server::default();
    let operator = Operator::start(&server, "only");
    until(5, || operator.leads()).await;
    let is_ready = || operator.readiness.check(Instant::now());
    assert_eq!(is_ready(), Ok(()));
    server.forbids.store(true, Ordering::SeqCst);
    until(3, || is_ready().is_err()).await;
    let why = is_ready().unwrap_err();
    assert!(why.contains("Lease: leases is forbidden"), "{why}");
    pass(120).await;
    assert!(!operator.leads() && !operator.task.is_finished());
    server.forbids.store(false, Ordering::SeqCst);
    until(3, || operator.leads() && is_ready().is_ok()).await;
    assert_eq!(operator.terms_ended(), 1);

    server.is_silent.store(true, Ordering::SeqCst);
    pass(50).await;
    assert_eq!(is_ready(), Ok(()), "an absence of a moment");
    until(15, || is_ready().is_err()).await;
    server.is_silent.store(false, Ordering::SeqCst);
    until(3, || is_ready().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_leads_again_only_after_the_work_of_its_last_term_has_ended() {
    let server = Server::default();
    let operator = Operator::start(&server, "only");
    until(5, || operator.leads()).await;
    let work = operator.leadership.enter(Instant::now()).unwrap();
    server.is_silent.store(true, Ordering::SeqCst);
    until(15, || operator.leadership.term().is_none()).await;
    server.is_silent.store(false, Ordering::SeqCst);
    pass(30).await;
    assert!(!operator.leads(), "a pass of its last term is under way");
    drop(work);
    until(3, || operator.leads()).await;
    assert_eq!(operator.terms_ended(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_is_asked_to_stop_keeps_its_lease_until_its_work_has_ended() {
    let server = Server::default();
    let operator = Operator::start(&server, "only");
    until(5, || operator.leads()).await;
    let work = operator.leadership.enter(Instant::now()).unwrap();
    operator.stop.cancel();
    pass(30).await;
    assert!(operator.leads() && server.holder().starts_with("only_"));
    drop(work);
    until(3, || operator.task.is_finished()).await;
    assert_eq!(server.holder(), "");
}

#[test]
fn the_lease_is_written_as_committed() {
    let time = |text: &str| Some(text.parse().unwrap());
    let write = Write {
        version: Some("7".to_owned()),
        record: Record {
            holder: "trivet-operator-x_1".to_owned(),
            seconds: 15,
            acquired: time("2026-11-29T00:00:00Z"),
            renewed: time("2026-11-29T00:00:02Z"),
            transitions: 3,
        },
    };
    insta::assert_yaml_snapshot!("lease", lease(&write));
}
