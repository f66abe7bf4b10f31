//! Two operators with different images: one obeys, and the other writes nothing, also where it was paused in the middle of
//! a pass.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::Semaphore;
use tower::{BoxError, service_fn};

use super::*;
use crate::api::fence::is_conflict;
use crate::leader::Leadership;
use crate::leader::take::take;
use crate::leader::tests::{leader_in, term};

/// A client of an operator that is paused before each of its writes until the gate has a permit.
fn paused_before_writes(server: &Server, gate: &Arc<Semaphore>) -> Client {
    let (server, gate) = (server.clone(), Arc::clone(gate));
    let service = service_fn(move |request: Request<Body>| {
        let (server, gate) = (server.clone(), Arc::clone(&gate));
        async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(body.collect_bytes().await?.to_vec())?;
            if parts.method != "GET" {
                gate.acquire().await?.forget();
            }
            let (code, body) = server.answer(parts.method.as_str(), parts.uri.path(), &body);
            let response = Response::builder().status(code);
            response
                .body(Body::from(body.into_bytes()))
                .map_err(BoxError::from)
        }
    });
    Client::new(service, "default")
}

/// An operator that has read all that the other one has read.
fn operator(server: &Server, ctx: &Context) -> Context {
    let operator = Context {
        nodes: ctx.nodes.clone(),
        access: ctx.access.clone(),
        leadership: Arc::new(leader_in(2)),
        ..blind_context(server).0
    };
    operator.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
    operator.reports.observe(Event::InitDone);
    operator
}

/// The next operator, which has another image.
fn next_operator(server: &Server, ctx: &Context) -> Context {
    let mut next = operator(server, ctx);
    next.settings.image = "another".to_owned();
    next
}

/// What an operator does in a term of its own.
async fn lead(ctx: &Context, spec: &ApiserverPoolSpec) -> Result<Duration, Error> {
    let work = ctx.leadership.enter(Instant::now()).unwrap();
    Box::pin(pass_in(&work.term, &pool(spec.clone()).into(), ctx)).await
}

/// Pauses a pass of the old leader before its first write, lets the next one lead, and the old one go on.
async fn is_overtaken(server: &Server, old: Context, next: &Context, spec: &ApiserverPoolSpec) {
    let gate = Arc::new(Semaphore::new(0));
    let old = Context {
        client: paused_before_writes(server, &gate),
        ..old
    };
    let edited = pool(spec.clone());
    let mut late = Box::pin(reconcile(&edited, &old));
    // Everything that it reads has been read once nothing but its write is waited for.
    let reads = tokio::time::timeout(Duration::from_secs(30), &mut late).await;
    assert!(reads.is_err(), "it writes nothing: {reads:?}");
    lead(next, spec).await.unwrap();
    let (objects, writes) = (server.objects.lock().unwrap().clone(), server.writes());
    assert!(!writes.is_empty());
    gate.add_permits(Semaphore::MAX_PERMITS);
    let outcome = late.await;
    let error = outcome.expect_err("the old leader has written");
    assert!(error.write().is_some_and(is_conflict), "{error:?}");
    assert_eq!(server.writes(), [""; 0]);
    assert_eq!(*server.objects.lock().unwrap(), objects);
}

#[tokio::test(start_paused = true)]
async fn a_pass_of_a_paused_leader_writes_nothing_once_the_next_one_has_taken_the_objects() {
    let server = Server::default();
    let (old, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    reconcile_once(&ApiserverPoolSpec::default(), &old).await;
    server.writes();
    let mut spec = ApiserverPoolSpec::default();
    spec.connection.drain_timeout_seconds = 5;
    let next = next_operator(&server, &old);
    is_overtaken(&server, old, &next, &spec).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_leader_creates_no_object_over_that_of_the_next_one() {
    let server = Server::default();
    let (old, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let next = next_operator(&server, &old);
    is_overtaken(&server, old, &next, &ApiserverPoolSpec::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_leader_replaces_no_daemon_set_though_its_document_is_in_place() {
    let server = Server::default();
    let (old, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let spec = ApiserverPoolSpec::default();
    reconcile_once(&spec, &old).await;
    server.writes();
    // The first pass of a process writes the DaemonSet, and no document.
    let next = next_operator(&server, &old);
    is_overtaken(&server, operator(&server, &old), &next, &spec).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_does_not_lead_judges_nothing_and_asks_for_nothing() {
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&has_asked);
    let ctx = Context {
        leadership: Arc::new(Leadership::new().0),
        ..context(move |_, _, _| {
            asked.store(true, Ordering::SeqCst);
            (500, String::new())
        })
    };
    let action = pass(Arc::new(pool(ApiserverPoolSpec::default()).into()), Arc::new(ctx))
        .await
        .unwrap();
    assert_eq!(action, Action::await_change());
    assert!(!has_asked.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn objects_are_taken_once_in_each_term() {
    let server = Server::default();
    let spec = ApiserverPoolSpec::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    reconcile_once(&spec, &ctx).await;
    server.writes();
    for number in 1..=2 {
        let term = term("a", number, Instant::now());
        let next = Context {
            nodes: ctx.nodes.clone(),
            ..blind_context(&server).0
        };
        assert_eq!(take(&next, "default", &term).await.unwrap(), None);
        assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
        for path in [MAP, SET] {
            let annotations = &server.object(path)["metadata"]["annotations"];
            assert_eq!(annotations[LEADER_TERM], term.text().as_str());
        }
        assert_eq!(take(&next, "default", &term).await.unwrap(), None);
        assert_eq!(server.writes(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_term_of_all_waits_until_an_operator_of_a_release_without_election_is_gone() {
    let server = Server::default();
    let spec = ApiserverPoolSpec::default();
    let (ctx, mut nodes) = blind_context(&server);
    let first = term("a", 0, Instant::now());
    let waits = take(&ctx, "default", &first).await.unwrap();
    assert_eq!(waits, None, "there is nothing of the pool");
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    reconcile_once(&spec, &ctx).await;
    server.writes();
    let ctx = next_operator(&server, &ctx);
    let first = term("a", 0, Instant::now());
    let wait = take(&ctx, "default", &first).await.unwrap().unwrap();
    assert_eq!(server.writes(), [""; 0]);
    tokio::time::advance(wait).await;
    assert_eq!(take(&ctx, "default", &first).await.unwrap(), None);
    assert_eq!(server.writes(), ["configmaps", "daemonsets"]);
}
