//! Every rule on ports is part of a pass: a spec that breaks one is rejected, and the last good document stays in force.

use std::sync::Arc;

use serde_json::json;

use super::*;

const LISTENER: (&str, u16) = ("127.0.0.1", 7443);

/// A pool that is obeyed, in a cluster whose node cp1 is in the scope of the proxies.
fn obeyed() -> World {
    let mut world = World::with_masters(1);
    let node = json!({
        "metadata": { "name": "cp1", "labels": { "kubernetes.io/os": "linux" } },
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] },
    });
    world.facts.nodes = vec![Arc::new(serde_json::from_value(node).unwrap())];
    assert_eq!(rejected(&world.pass()), "");
    world
}

/// Fails unless the next pass rejects the spec for this reason and leaves the document as it is.
fn assert_rejected(mut world: World, reason: &str) {
    let before = world.facts.current.document.clone();
    let plan = world.pass();
    assert_eq!(rejected(&plan), reason);
    assert_eq!(world.facts.current.document, before);
}

#[test]
fn a_listener_on_the_port_of_an_apiserver_of_its_node() {
    let mut world = obeyed();
    world.pool.spec.listeners[0].port = 6443;
    assert_rejected(world, "PortOfApiserver");
}

#[test]
fn one_port_for_listener_and_metrics() {
    let mut world = obeyed();
    world.pool.spec.proxy.metrics.port = LISTENER.1;
    assert_rejected(world, "Invalid");
}

#[test]
fn a_listener_where_another_pool_serves() {
    let mut world = obeyed();
    let claim = (LISTENER.0.parse().unwrap(), LISTENER.1);
    world.facts.rivals = vec![older_at(claim)];
    assert_rejected(world, "ListenerConflict");
}
