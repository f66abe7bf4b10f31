//! What a later release has written: a pool that cannot be read, a document with more in it, and a note that cannot be read.

use trivet_crds::pool::DiscoveryPolicy;

use super::*;
use crate::leader::tests::term;
use crate::pools::StoredPool;
use crate::render::config_map::ACCEPTED_DISCOVERY;

/// The pool with what no release so far can read.
fn unreadable() -> StoredPool {
    let mut object = serde_json::to_value(pool(ApiserverPoolSpec::default())).unwrap();
    object["spec"]["discovery"]["policy"] = "Guess".into();
    StoredPool::read(object).unwrap()
}

/// A pass in a term of its own.
async fn lead(pool: &StoredPool, ctx: &Context) {
    let term = term("a", 1, Instant::now());
    Box::pin(pass_in(&term, pool, ctx)).await.unwrap();
}

/// Makes the document one of a later release.
fn extend_document(server: &Server) {
    let document = server.document();
    let mut value = serde_json::to_value(&document).unwrap();
    value["virtualIP"] = json!({ "addresses": ["192.0.2.100"] });
    // A document without a hash is accepted.
    value.as_object_mut().unwrap().remove("hash");
    server.edit(MAP, &json!({ "data": { wire::KEY: value.to_string() } }));
}

fn text(server: &Server) -> Value {
    serde_json::from_str(server.object(MAP)["data"][wire::KEY].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn while_a_pool_cannot_be_read_none_of_its_objects_is_written_and_then_it_goes_on() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let spec = ApiserverPoolSpec::default();
    lead(&pool(spec.clone()).into(), &ctx).await;
    extend_document(&server);
    server.writes();
    let objects = server.objects.lock().unwrap().clone();

    // This operator and the next one, whose term is not noted yet.
    let next = Context {
        nodes: ctx.nodes.clone(),
        ..blind_context(&server).0
    };
    nodes.apply_watcher_event(&Event::Apply(master(2)));
    for ctx in [&ctx, &next] {
        for _ in 0..2 {
            lead(&unreadable(), ctx).await;
        }
    }
    assert_eq!(server.writes(), [""; 0]);
    assert_eq!(*server.objects.lock().unwrap(), objects);

    lead(&pool(spec).into(), &ctx).await;
    assert_eq!(server.members(), ["cp1", "cp2"]);
    assert_eq!(text(&server)["virtualIP"]["addresses"][0], "192.0.2.100");
}

#[tokio::test]
async fn what_a_document_of_a_later_release_has_besides_survives_what_this_one_writes() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let mut spec = ApiserverPoolSpec::default();
    reconcile_once(&spec, &ctx).await;
    extend_document(&server);
    server.edit(
        MAP,
        &json!({ "metadata": { "annotations": { "trivet.dev/of-a-later-release": "x" } } }),
    );
    server.writes();
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0], "nothing is to be written");
    let survives = || {
        // It reads, so its hash is that of the whole.
        let document = server.document();
        assert_eq!(text(&server)["virtualIP"]["addresses"][0], "192.0.2.100");
        let annotations = &server.object(MAP)["metadata"]["annotations"];
        assert_eq!(annotations["trivet.dev/of-a-later-release"], "x");
        document
    };
    let before = survives();

    // An edit that changes a note alone.
    spec.discovery.removal_delay_seconds = 600;
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), ["configmaps"]);
    assert_eq!(survives(), before);
    // One that is obeyed, and one that is rejected while a master joins.
    spec.connection.drain_timeout_seconds = 5;
    reconcile_once(&spec, &ctx).await;
    assert_eq!(survives().connection.drain_timeout_seconds, 5);
    spec.proxy.metrics.port = 7443;
    nodes.apply_watcher_event(&Event::Apply(master(2)));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(survives().members.len(), 2);
}

#[tokio::test]
async fn a_document_of_a_later_release_that_cannot_be_read_is_not_written_over_and_a_torn_one_is() {
    let server = Server::default();
    let (ctx, mut nodes) = blind_context(&server);
    nodes.apply_watcher_event(&Event::Apply(master(1)));
    let mut spec = ApiserverPoolSpec::default();
    reconcile_once(&spec, &ctx).await;
    let mut later = text(&server);
    later["members"][0]["state"] = "Resting".into();
    later["hash"] = wire::content_hash(&later).into();
    server.edit(MAP, &json!({ "data": { wire::KEY: later.to_string() } }));
    server.writes();

    spec.connection.drain_timeout_seconds = 5;
    nodes.apply_watcher_event(&Event::Apply(master(2)));
    for _ in 0..2 {
        reconcile_once(&spec, &ctx).await;
        spec.management = trivet_crds::pool::ManagementPolicy::Paused;
    }
    spec.management = trivet_crds::pool::ManagementPolicy::Managed;
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.writes(), [""; 0]);
    let told = ctx.pool_states.of("default").status.unwrap();
    let accepted = told.conditions.iter().find(|it| it.type_ == "Accepted").unwrap();
    assert_eq!(
        (accepted.status.as_str(), accepted.reason.as_str()),
        ("False", "DocumentUnreadable")
    );

    later["hash"] = "sha256:torn".into();
    server.edit(MAP, &json!({ "data": { wire::KEY: later.to_string() } }));
    reconcile_once(&spec, &ctx).await;
    assert_eq!(server.document().connection.drain_timeout_seconds, 5);
}

#[tokio::test]
async fn a_discovery_that_a_later_release_has_noted_is_not_guessed() {
    for note in [
        r#"{"policy":"Guess","port":6443}"#,
        r#"{"policy":"Nodes","port":6443,"removalDelaySeconds":300,"onlyIf":"x"}"#,
    ] {
        let server = Server::default();
        let (ctx, mut nodes) = blind_context(&server);
        nodes.apply_watcher_event(&Event::Apply(master(1)));
        let mut spec = ApiserverPoolSpec::default();
        reconcile_once(&spec, &ctx).await;
        server.edit(
            MAP,
            &json!({ "metadata": { "annotations": { ACCEPTED_DISCOVERY: note } } }),
        );
        server.writes();

        // Rejected: by a guess, the discovery would add the new master, and note something else.
        spec.proxy.metrics.port = 7443;
        nodes.apply_watcher_event(&Event::Apply(master(2)));
        reconcile_once(&spec, &ctx).await;
        assert_eq!(server.writes(), [""; 0], "{note}");
        let told = ctx.pool_states.of("default").status.unwrap();
        let accepted = told.conditions.iter().find(|it| it.type_ == "Accepted").unwrap();
        assert!(
            accepted.message.contains("a later release has noted"),
            "{accepted:?}"
        );
        assert!(ctx.pool_states.of("default").memory.absent.is_empty());

        // A master that goes meanwhile is not absent yet, though the spec asks for another discovery.
        nodes.apply_watcher_event(&Event::Delete(master(1)));
        reconcile_once(&spec, &ctx).await;
        assert!(ctx.pool_states.of("default").memory.absent.is_empty(), "{note}");
        assert_eq!(server.members(), ["cp1"]);

        // Once a spec is accepted, its discovery is noted.
        spec.proxy.metrics.port = 7444;
        reconcile_once(&spec, &ctx).await;
        assert_eq!(server.members(), ["cp1", "cp2"]);
        let annotations = server.object(MAP)["metadata"]["annotations"].clone();
        let noted = annotations[ACCEPTED_DISCOVERY].as_str().unwrap();
        let noted: trivet_crds::pool::Discovery = serde_json::from_str(noted).unwrap();
        assert_eq!(noted.policy, DiscoveryPolicy::Nodes);
    }
}
