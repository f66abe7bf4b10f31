//! What is read of pools that later releases have written.

use kube::ResourceExt;
use kube::core::ObjectList;
use trivet_crds::pool::{DiscoveryPolicy, MemberHealth};

use super::*;

/// A pool with this spec.
pub(crate) fn stored(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "spec": spec,
        "metadata": { "name": name, "uid": format!("uid-of-{name}"), "generation": 3, "resourceVersion": "7",
                      "creationTimestamp": "2026-09-01T00:00:00Z" },
    })
}

/// A pool with this spec, which cannot be read.
pub(crate) fn unreadable(name: &str, spec: Value) -> Unreadable {
    match StoredPool::read(stored(name, spec)).unwrap() {
        StoredPool::Unreadable(pool) => *pool,
        StoredPool::Readable(pool) => panic!("{pool:?}"),
    }
}

#[test]
fn a_pool_that_cannot_be_read_hides_no_other() {
    let items = [
        stored("first", json!({})),
        stored("later", json!({ "discovery": { "policy": "Guess" } })),
        stored(
            "last",
            json!({ "discovery": { "policy": "None" }, "aFieldOfALaterRelease": 1 }),
        ),
    ];
    let list = json!({ "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPoolList",
                       "metadata": { "resourceVersion": "1" }, "items": items });
    let list: ObjectList<StoredPool> = serde_json::from_value(list).unwrap();
    let names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["first", "later", "last"]);
    let [
        StoredPool::Readable(_),
        StoredPool::Unreadable(_),
        StoredPool::Readable(third),
    ] = list.items.as_slice()
    else {
        panic!("{list:?}");
    };
    assert_eq!(third.spec.discovery.policy, DiscoveryPolicy::None);
}

#[test]
fn the_fault_names_the_field_and_the_value_and_the_way_out() {
    let members = json!([{ "name": "a" }, { "name": "b", "state": "Cordoned" }]);
    for (spec, path, value) in [
        (
            json!({ "discovery": { "policy": "Guess" } }),
            "spec.discovery.policy",
            "\"Guess\"",
        ),
        (
            json!({ "members": members }),
            "spec.members[1].state",
            "\"Cordoned\"",
        ),
        (
            json!({ "members": [{ "name": "a", "port": 70_000 }] }),
            "spec.members[0].port",
            "70000",
        ),
        (
            json!({ "listeners": [{ "name": "gossip", "kind": "UDP" }] }),
            "spec.listeners[0].kind",
            "\"UDP\"",
        ),
        (json!({ "nodeBootstrap": 1 }), "spec.nodeBootstrap", "1"),
        (json!("none"), "spec", "\"none\""),
    ] {
        let fault = unreadable("p", spec).fault;
        assert_eq!((fault.path.as_str(), fault.value.as_str()), (path, value));
        let text = fault.to_string();
        assert!(
            text.contains(path) && text.contains("upgrade the operator"),
            "{text}"
        );
    }
    let long = unreadable("p", json!({ "members": "x".repeat(10_000) })).fault;
    assert!(long.to_string().len() < 1000, "{long}");
}

#[test]
fn a_status_of_a_later_release_keeps_no_spec_from_being_read() {
    let mut object = stored("p", json!({}));
    let member = |name: &str, health: &str| {
        json!({ "name": name, "addresses": ["10.0.0.1"], "port": 6443, "source": "Node", "state": "Active",
                "health": health })
    };
    object["status"] = json!({
        "configRevision": 12, "proxies": "many", "future": {},
        "members": [member("a", "Up"), member("b", "Degraded")],
    });
    let StoredPool::Readable(pool) = StoredPool::read(object).unwrap() else {
        panic!("its spec is empty");
    };
    let status = pool.status.unwrap();
    assert_eq!(status.config_revision, Some(12));
    let healths: Vec<_> = status.members.iter().map(|member| member.health).collect();
    assert_eq!(healths, [MemberHealth::Up]);
    assert!(status.proxies.is_none());
}
