use k8s_openapi::api::apps::v1::DaemonSet;
use proptest::prelude::*;
use serde_json::{Value, json};
use trivet_crds::{RETIRE, RETIREMENT};

use super::super::facts::Use;
use super::*;

const AFTER: u32 = 600;

fn set(annotations: &Value) -> DaemonSet {
    serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).unwrap()
}

fn writer(directory: &str) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": { "labels": { "trivet.dev/component": "bootstrap" } },
        "spec": { "selector": {}, "template": { "spec": {
            "containers": [],
            "initContainers": [{ "name": "write", "args": ["write-manifest"] }],
            "volumes": [{ "name": "manifests", "hostPath": { "path": directory } }],
        } } },
    }))
    .unwrap()
}

fn begun(is_asked: bool) -> Begun {
    Begun {
        since: 1000,
        is_asked,
        directory: None,
    }
}

/// The note of a retirement that has begun.
fn noted(begun: &Begun) -> Value {
    json!({ RETIREMENT: serde_json::to_string(begun).unwrap() })
}

fn node(name: &str, idle_seconds: u32) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        is_ready: true,
        has_proxy: true,
        report: Some(Use {
            connections: 0,
            idle_seconds,
        }),
        remover: Remover::Absent,
    }
}

/// An orphan of two nodes that nobody has used for long.
fn orphan() -> Facts {
    Facts {
        fleet: Fleet {
            pool: "default".to_owned(),
            proxies: Some(set(&json!({}))),
            ..Fleet::default()
        },
        owner: Owner::Absent,
        nodes: vec![node("w1", AFTER), node("w2", AFTER)],
        retire_after: AFTER,
        now: 1000,
    }
}

fn asked(facts: &mut Facts) {
    facts.fleet.proxies = Some(set(&json!({ RETIRE: "now" })));
}

/// Why the fleet stays.
fn stays(facts: &Facts) -> Stay {
    match decide(facts) {
        Step::Stay(stay) => stay,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_fleet_stays_until_every_node_has_been_without_a_client_for_long_enough() {
    let mut facts = orphan();
    assert!(matches!(decide(&facts), Step::Begin(_)));
    for (report, why) in [
        (None, Why::Unreported),
        (
            Some(Use {
                connections: 3,
                idle_seconds: AFTER,
            }),
            Why::Clients(3),
        ),
        (
            Some(Use {
                connections: 0,
                idle_seconds: AFTER - 1,
            }),
            Why::IdleFor(AFTER - 1),
        ),
    ] {
        facts.nodes[1].report = report;
        let busy = vec![Busy {
            node: "w2".to_owned(),
            why,
        }];
        assert_eq!(stays(&facts), Stay::InUse(busy));
    }
}

#[test]
fn a_fleet_with_a_pool_stays_whatever_is_asked_and_the_annotation_does_not_stay() {
    let mut facts = orphan();
    facts.owner = Owner::Exists;
    assert_eq!(stays(&facts), Stay::Owned);
    asked(&mut facts);
    assert_eq!(decide(&facts), Step::Ignore);
}

#[test]
fn a_deleted_crd_retires_nothing_unless_somebody_asks() {
    let mut facts = orphan();
    facts.owner = Owner::KindAbsent;
    assert_eq!(stays(&facts), Stay::KindAbsent);
    asked(&mut facts);
    assert!(matches!(
        decide(&facts),
        Step::Begin(Begun { is_asked: true, .. })
    ));
}

#[test]
fn who_asks_does_not_wait_for_clients_to_go() {
    let mut facts = orphan();
    facts.nodes[0].report = None;
    asked(&mut facts);
    assert!(matches!(decide(&facts), Step::Begin(_)));
}

#[test]
fn an_operator_that_starts_anew_goes_on_with_each_step() {
    let mut facts = orphan();
    facts.fleet.writer = Some(writer("/etc/kubelet.d"));
    let Step::Begin(begun) = decide(&facts) else {
        panic!("{:?}", decide(&facts));
    };
    assert_eq!(begun.directory.as_deref(), Some("/etc/kubelet.d"));

    facts.fleet.proxies = Some(set(&noted(&begun)));
    assert_eq!(decide(&facts), Step::DeleteWriter);
    facts.fleet.writer = None;
    assert_eq!(decide(&facts), Step::Place(begun.clone()));

    facts.fleet.remover = Some(set(&noted(&begun)));
    assert!(matches!(decide(&facts), Step::AwaitRemovers(waits) if waits.len() == 2));
    facts.nodes[0].remover = Remover::Waits;
    facts.nodes[1].remover = Remover::Starts(Some("no image".to_owned()));
    let wait = Wait {
        node: "w2".to_owned(),
        why: "no image".to_owned(),
    };
    assert_eq!(decide(&facts), Step::AwaitRemovers(vec![wait]));
    facts.nodes[1].remover = Remover::Waits;
    assert_eq!(decide(&facts), Step::DeleteProxies);

    facts.fleet.proxies = None;
    assert!(matches!(decide(&facts), Step::AwaitEnd(waits) if waits.len() == 2));
    for node in &mut facts.nodes {
        node.has_proxy = false;
        node.report = None;
    }
    facts.nodes[0].remover = Remover::Done;
    assert!(matches!(decide(&facts), Step::AwaitEnd(waits) if waits.len() == 1));
    facts.nodes[1].remover = Remover::Done;
    assert_eq!(decide(&facts), Step::Finish(Vec::new()));

    facts.fleet.remover = None;
    facts.nodes.clear();
    assert_eq!(stays(&facts), Stay::NoProxies);
}

#[test]
fn a_pool_that_comes_back_undoes_what_has_begun_and_so_does_a_client() {
    let mut facts = orphan();
    facts.fleet.proxies = Some(set(&noted(&begun(false))));
    facts.fleet.remover = Some(set(&noted(&begun(false))));
    facts.nodes[0].report = None;
    assert!(matches!(decide(&facts), Step::Undo(Stay::InUse(_))));
    facts.owner = Owner::Exists;
    assert_eq!(decide(&facts), Step::Undo(Stay::Owned));
    facts.fleet.remover = None;
    assert_eq!(decide(&facts), Step::Undo(Stay::Owned));
    // Also where the proxies are gone: those of the new pool must find no remover.
    facts.fleet.remover = Some(set(&noted(&begun(false))));
    facts.fleet.proxies = None;
    assert_eq!(decide(&facts), Step::Undo(Stay::Owned));
}

#[test]
fn only_who_asks_leaves_nodes_behind_that_are_not_ready_and_after_a_while() {
    for (is_asked, later, is_left) in [
        (true, UNREADY_SECONDS, true),
        (true, UNREADY_SECONDS - 1, false),
        (false, 100 * UNREADY_SECONDS, false),
    ] {
        let mut facts = orphan();
        facts.fleet.proxies = Some(set(&noted(&begun(is_asked))));
        facts.fleet.remover = facts.fleet.proxies.clone();
        if is_asked {
            let mut annotations = noted(&begun(true));
            annotations[RETIRE] = json!("now");
            facts.fleet.proxies = Some(set(&annotations));
        }
        facts.now += later;
        facts.nodes[0].remover = Remover::Waits;
        facts.nodes[1].is_ready = false;
        assert_eq!(
            decide(&facts) == Step::DeleteProxies,
            is_left,
            "{is_asked} {later}"
        );

        facts.fleet.proxies = None;
        facts.nodes[0].remover = Remover::Done;
        facts.nodes[0].has_proxy = false;
        let step = decide(&facts);
        if is_left {
            assert_eq!(step, Step::Finish(vec!["w2".to_owned()]));
        } else {
            assert!(matches!(step, Step::AwaitEnd(waits) if waits[0].why.contains("not Ready")));
        }
    }
}

fn nodes() -> impl Strategy<Value = Vec<NodeFacts>> {
    let remover = prop_oneof![
        Just(Remover::Absent),
        Just(Remover::Starts(None)),
        Just(Remover::Waits),
        Just(Remover::Done),
    ];
    let report = prop::option::of(
        (0_u32..2, 0_u32..1200).prop_map(|(connections, idle_seconds)| Use {
            connections,
            idle_seconds,
        }),
    );
    let node = (any::<bool>(), any::<bool>(), report, remover);
    let node = node.prop_map(|(is_ready, has_proxy, report, remover)| NodeFacts {
        name: "w".to_owned(),
        is_ready,
        has_proxy,
        report,
        remover,
    });
    prop::collection::vec(node, 0..4)
}

proptest! {
    #[test]
    fn proxies_are_deleted_only_where_the_pool_is_gone_and_nobody_uses_them_or_somebody_asks(
        owner in prop_oneof![Just(Owner::Exists), Just(Owner::Absent), Just(Owner::KindAbsent)],
        (asks, has_begun, has_remover, has_writer) in any::<(bool, bool, bool, bool)>(),
        nodes in nodes(),
        later in 0_i64..1200,
    ) {
        let mut annotations = if has_begun { noted(&begun(asks)) } else { json!({}) };
        if asks {
            annotations[RETIRE] = json!("now");
        }
        let facts = Facts {
            fleet: Fleet {
                proxies: Some(set(&annotations)),
                remover: has_remover.then(|| set(&json!({}))),
                writer: has_writer.then(|| writer("/etc/kubelet.d")),
                ..Fleet::default()
            },
            owner,
            nodes,
            now: 1000 + later,
            ..orphan()
        };
        if decide(&facts) == Step::DeleteProxies {
            prop_assert!(owner != Owner::Exists);
            prop_assert!(has_begun && has_remover && !has_writer);
            prop_assert!(asks || owner == Owner::Absent && busy(&facts.nodes, AFTER).is_empty());
            let is_late = asks && later >= UNREADY_SECONDS;
            for node in &facts.nodes {
                let is_placed = matches!(node.remover, Remover::Waits | Remover::Done);
                prop_assert!(is_placed || !node.is_ready && is_late);
            }
        }
    }
}
