//! The DaemonSet controller's answers, and which edits of the scope are held back.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Resource;
use proptest::prelude::*;
use serde_json::{Value, json};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec};

use super::guard::{ALLOW_SCOPE_SHRINK, check};
use super::in_place::InPlace;
use super::*;
use crate::plan::Facts;
use crate::plan::rejection::Rejection;
use crate::plan::tests::facts;

const LINUX: &str = "kubernetes.io/os";

fn node(name: &str, labels: &Value, taints: &Value) -> Node {
    let mut node: Node = serde_json::from_value(
        json!({ "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints } }),
    )
    .unwrap();
    let labels = node.metadata.labels.get_or_insert_default();
    labels.insert(LINUX.to_owned(), "linux".to_owned());
    node
}

fn worker(name: &str) -> Node {
    node(name, &json!({ "zone": "a", "cores": "8" }), &json!([]))
}

fn master(name: &str) -> Node {
    let taint = json!([{ "key": CONTROL_PLANE_LABELS[0], "effect": "NoSchedule" }]);
    node(name, &json!({ (CONTROL_PLANE_LABELS[0]): "" }), &taint)
}

fn proxy(template: &Value) -> ProxyTemplate {
    serde_json::from_value(template.clone()).unwrap()
}

fn terms(terms: &Value) -> Scope {
    Scope {
        required: Some(serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap()),
        tolerations: vec![tolerate_everything()],
        ..Scope::default()
    }
}

fn is_placed(scope: &Scope, node: &Node) -> bool {
    scope.placement(node) == Placement::Placed
}

#[test]
fn every_operator_of_a_requirement_is_known() {
    let expression = |key: &str, operator: &str, values: &[&str]| json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]);
    let cases = [
        ("zone", "In", vec!["b", "a"], true),
        ("zone", "In", vec!["b"], false),
        ("absent", "In", vec!["a"], false),
        ("zone", "NotIn", vec!["b"], true),
        ("zone", "NotIn", vec!["a"], false),
        ("absent", "NotIn", vec!["a"], true),
        ("zone", "Exists", vec![], true),
        ("absent", "Exists", vec![], false),
        ("zone", "DoesNotExist", vec![], false),
        ("absent", "DoesNotExist", vec![], true),
        ("cores", "Gt", vec!["7"], true),
        ("cores", "Gt", vec!["8"], false),
        ("cores", "Lt", vec!["9"], true),
        ("cores", "Lt", vec!["8"], false),
        ("zone", "Gt", vec!["1"], false),
        ("absent", "Lt", vec!["1"], false),
        // Terms that cannot be parsed.
        ("zone", "In", vec![], false),
        ("zone", "NotIn", vec![], false),
        ("zone", "Exists", vec!["a"], false),
        ("cores", "Gt", vec!["7", "6"], false),
        ("cores", "Gt", vec!["many"], false),
        ("zone", "Like", vec!["a"], false),
    ];
    for (key, operator, values, expected) in cases {
        let scope = terms(&expression(key, operator, &values));
        assert_eq!(
            is_placed(&scope, &worker("w1")),
            expected,
            "{key} {operator} {values:?}"
        );
    }
}

#[test]
fn a_field_is_the_name_of_the_node() {
    let field = |operator: &str, values: &[&str]| json!([{ "matchFields": [{ "key": "metadata.name", "operator": operator, "values": values }] }]);
    for (operator, values, expected) in [
        ("In", vec!["w1"], true),
        ("In", vec!["w2"], false),
        ("NotIn", vec!["w2"], true),
        ("NotIn", vec!["w1"], false),
        ("In", vec!["w1", "w2"], false),
        ("Exists", vec![], false),
    ] {
        assert_eq!(
            is_placed(&terms(&field(operator, &values)), &worker("w1")),
            expected,
            "{operator} {values:?}"
        );
    }
}

#[test]
fn one_term_must_match_with_all_it_says_and_an_empty_one_matches_nothing() {
    let yes = json!({ "key": "zone", "operator": "Exists" });
    let no = json!({ "key": "zone", "operator": "DoesNotExist" });
    let w1 = worker("w1");
    assert!(is_placed(
        &terms(&json!([{ "matchExpressions": [no] }, { "matchExpressions": [yes] }])),
        &w1
    ));
    assert!(!is_placed(
        &terms(&json!([{ "matchExpressions": [yes, no] }])),
        &w1
    ));
    assert!(!is_placed(&terms(&json!([{}])), &w1));
    assert!(!is_placed(&terms(&json!([])), &w1));
    assert!(is_placed(
        &terms(&json!([{}, { "matchExpressions": [yes] }])),
        &w1
    ));
}

#[test]
fn an_empty_spec_places_a_proxy_on_every_linux_node_that_a_kubelet_runs() {
    let scope = Scope::wanted(&ProxyTemplate::default());
    assert!(is_placed(&scope, &worker("w1")));
    assert!(is_placed(&scope, &master("cp1")));
    let windows = node("win", &json!({}), &json!([]));
    let windows = Node {
        metadata: kube::api::ObjectMeta {
            labels: Some([(LINUX.to_owned(), "windows".to_owned())].into()),
            ..windows.metadata
        },
        ..windows
    };
    assert_eq!(scope.placement(&windows), Placement::Excluded);
    for type_ in VIRTUAL_NODES {
        let virtual_node = node("v", &json!({ "type": type_ }), &json!([]));
        assert_eq!(scope.placement(&virtual_node), Placement::Excluded, "{type_}");
    }
}

#[test]
fn workers_only_leaves_out_masters_by_either_label() {
    let scope = Scope::wanted(&proxy(&json!({ "nodeScope": "WorkersOnly" })));
    assert!(is_placed(&scope, &worker("w1")));
    for label in CONTROL_PLANE_LABELS {
        let master = node("cp1", &json!({ label: "" }), &json!([]));
        assert_eq!(scope.placement(&master), Placement::Excluded, "{label}");
    }
}

#[test]
fn a_taint_without_a_toleration_keeps_or_evicts_by_its_effect() {
    use Placement::{Excluded, Kept, Placed};
    let own = |effect: &str| json!([{ "key": "own", "value": "x", "effect": effect }]);
    let cases = [
        (own("NoSchedule"), json!([]), Kept),
        (own("NoExecute"), json!([]), Excluded),
        (own("PreferNoSchedule"), json!([]), Placed),
        (own("NoSchedule"), json!([{ "operator": "Exists" }]), Placed),
        (own("NoExecute"), json!([{ "operator": "Exists" }]), Placed),
        (
            own("NoSchedule"),
            json!([{ "key": "own", "operator": "Exists" }]),
            Placed,
        ),
        (own("NoSchedule"), json!([{ "key": "own", "value": "x" }]), Placed),
        (
            own("NoSchedule"),
            json!([{ "key": "own", "operator": "Equal", "value": "y" }]),
            Kept,
        ),
        (
            own("NoSchedule"),
            json!([{ "key": "other", "operator": "Exists" }]),
            Kept,
        ),
        (
            own("NoSchedule"),
            json!([{ "key": "own", "operator": "Exists", "effect": "NoExecute" }]),
            Kept,
        ),
        (
            own("NoExecute"),
            json!([{ "operator": "Exists", "tolerationSeconds": 60 }]),
            Excluded,
        ),
        (own("NoSchedule"), json!([{ "operator": "Like" }]), Kept),
    ];
    for (taints, tolerations, expected) in cases {
        let scope = Scope::wanted(&proxy(&json!({ "tolerations": tolerations })));
        let node = node("w1", &json!({}), &taints);
        assert_eq!(scope.placement(&node), expected, "{taints} {tolerations}");
    }
}

#[test]
fn what_kubernetes_taints_in_an_outage_leaves_a_node_in_scope() {
    let scope = Scope::wanted(&proxy(&json!({ "tolerations": [] })));
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("not-ready", "NoSchedule"),
        ("unreachable", "NoExecute"),
        ("unreachable", "NoSchedule"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
        ("network-unavailable", "NoSchedule"),
    ] {
        let taint = json!([{ "key": format!("node.kubernetes.io/{key}"), "effect": effect }]);
        assert!(
            is_placed(&scope, &node("w1", &json!({}), &taint)),
            "{key} {effect}"
        );
    }
}

/// Three masters and two workers, each with a proxy of a pool whose DaemonSet is of this template.
fn serving(template: &Value) -> Facts {
    let nodes: Vec<_> = ["cp1", "cp2", "cp3"]
        .map(master)
        .into_iter()
        .chain(["w1", "w2"].map(worker))
        .collect();
    let names = nodes.iter().map(ResourceExt::name_any).collect();
    Facts {
        nodes: nodes.into_iter().map(Arc::new).collect(),
        in_place: InPlace {
            scope: Some(Scope::wanted(&proxy(template))),
            nodes: Some(names),
        },
        ..facts()
    }
}

/// A pool at generation 5.
fn pool(template: &Value) -> ApiserverPool {
    let spec = ApiserverPoolSpec {
        proxy: proxy(template),
        ..ApiserverPoolSpec::default()
    };
    let mut pool = ApiserverPool::new("default", spec);
    pool.metadata.generation = Some(5);
    pool
}

fn lost(template: &Value, facts: &Facts) -> Vec<String> {
    match check(&pool(template), facts) {
        Ok(()) => Vec::new(),
        Err(Rejection::ScopeWouldShrink { nodes }) => nodes.into_iter().collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_edit_that_takes_proxies_is_rejected_with_their_nodes() {
    let all = ["cp1", "cp2", "cp3", "w1", "w2"];
    let masters = ["cp1", "cp2", "cp3"];
    let facts = serving(&json!({}));
    assert_eq!(lost(&json!({ "nodeSelector": { "zone": "typo" } }), &facts), all);
    assert_eq!(lost(&json!({ "nodeScope": "WorkersOnly" }), &facts), masters);
    // The pods of the masters would stay, and none could take their place.
    assert_eq!(lost(&json!({ "tolerations": [] }), &facts), masters);
    assert!(lost(&json!({}), &facts).is_empty());
    assert!(lost(&json!({ "nodeSelector": { LINUX: "linux" } }), &facts).is_empty());
}

#[test]
fn the_message_counts_the_nodes_names_some_and_tells_the_way_out() {
    let mut facts = serving(&json!({}));
    facts.nodes.push(Arc::new(worker("w3")));
    facts.in_place.nodes.as_mut().unwrap().insert("w3".to_owned());
    let rejection = check(&pool(&json!({ "nodeSelector": { "a": "b" } })), &facts).unwrap_err();
    assert_eq!(rejection.reason(), "ScopeWouldShrink");
    let message = rejection.to_string();
    for part in ["6 nodes", "(cp1, cp2, cp3, w1, w2, ...)", ALLOW_SCOPE_SHRINK] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_annotation_allows_one_generation() {
    let facts = serving(&json!({}));
    let mut pool = pool(&json!({ "nodeScope": "WorkersOnly" }));
    for (generation, is_allowed) in [
        ("4", false),
        ("5", true),
        ("6", false),
        ("true", false),
        (" 5 ", true),
    ] {
        pool.meta_mut().annotations = Some([(ALLOW_SCOPE_SHRINK.to_owned(), generation.to_owned())].into());
        assert_eq!(check(&pool, &facts).is_ok(), is_allowed, "{generation}");
    }
}

/// A spec whose affinity has these terms.
fn affinity(terms: &Value) -> Value {
    let required =
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
    json!({ "nodeAffinity": required })
}

#[test]
fn each_term_of_the_affinity_leads_to_nodes_that_a_kubelet_runs_and_that_are_in_scope() {
    let by_label = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] });
    let by_name = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["cp1"] }] });
    let scope = |node_scope: &str, terms: &Value| {
        Scope::wanted(&proxy(
            &json!({ "nodeScope": node_scope, "affinity": affinity(terms) }),
        ))
    };
    let both = scope("AllNodes", &json!([by_label, by_name]));
    assert!(is_placed(&both, &worker("w1")) && is_placed(&both, &master("cp1")));
    assert!(!is_placed(&both, &master("cp2")));
    let virtual_node = node(
        "w1",
        &json!({ "zone": "a", "type": "virtual-kubelet" }),
        &json!([]),
    );
    assert!(!is_placed(&both, &virtual_node));
    let workers = scope("WorkersOnly", &json!([by_label, by_name]));
    assert!(is_placed(&workers, &worker("w1")) && !is_placed(&workers, &master("cp1")));
}

#[test]
fn an_affinity_that_takes_a_proxy_away_is_rejected_and_one_that_takes_none_is_not() {
    let facts = serving(&json!({}));
    let expression = |operator: &str, values: &Value| {
        affinity(
            &json!([{ "matchExpressions": [{ "key": "zone", "operator": operator, "values": values }] }]),
        )
    };
    let typo = lost(&json!({ "affinity": expression("In", &json!(["typo"])) }), &facts);
    assert_eq!(typo.len(), facts.nodes.len(), "{typo:?}");
    assert!(
        lost(
            &json!({ "affinity": expression("NotIn", &json!(["typo"])) }),
            &facts
        )
        .is_empty()
    );
}

#[test]
fn a_wider_scope_is_obeyed() {
    let facts =
        serving(&json!({ "nodeScope": "WorkersOnly", "nodeSelector": { "zone": "a" }, "tolerations": [] }));
    assert!(lost(&json!({}), &facts).is_empty());
    assert!(lost(&json!({ "nodeScope": "WorkersOnly" }), &facts).is_empty());
}

#[test]
fn a_node_that_leaves_by_its_labels_is_no_edit() {
    let mut facts = serving(&json!({ "nodeSelector": { "zone": "b" } }));
    facts.nodes = vec![Arc::new(worker("w1"))];
    // Nothing of the scope has changed, and another edit of it takes nothing more.
    assert!(lost(&json!({ "nodeSelector": { "zone": "b" } }), &facts).is_empty());
    assert!(lost(&json!({ "nodeSelector": { "zone": "c" } }), &facts).is_empty());
}

#[test]
fn nodes_without_a_proxy_lose_none() {
    let mut facts = serving(&json!({}));
    facts.in_place.nodes = Some(BTreeSet::new());
    assert!(lost(&json!({ "nodeSelector": { "zone": "typo" } }), &facts).is_empty());
    facts.in_place.nodes = Some(["w1".to_owned()].into());
    assert_eq!(
        lost(&json!({ "nodeSelector": { "zone": "typo" } }), &facts),
        ["w1"]
    );
}

#[test]
fn pods_that_are_not_read_are_where_their_daemon_set_puts_them() {
    let mut facts = serving(&json!({ "nodeScope": "WorkersOnly" }));
    facts.in_place.nodes = None;
    assert_eq!(
        lost(&json!({ "nodeSelector": { "zone": "typo" } }), &facts),
        ["w1", "w2"]
    );
}

#[test]
fn pods_that_have_lost_their_daemon_set_stay() {
    let mut facts = serving(&json!({}));
    facts.in_place.scope = None;
    assert_eq!(lost(&json!({ "nodeScope": "WorkersOnly" }), &facts).len(), 3);
    assert!(lost(&json!({}), &facts).is_empty());
    facts.in_place.nodes = Some(BTreeSet::new());
    assert!(lost(&json!({ "nodeScope": "WorkersOnly" }), &facts).is_empty());
}

#[test]
fn pods_that_are_not_read_and_have_lost_their_daemon_set_may_be_anywhere() {
    let mut facts = serving(&json!({}));
    facts.in_place = InPlace::default();
    let narrower = pool(&json!({ "nodeScope": "WorkersOnly" }));
    assert!(check(&narrower, &facts).is_ok(), "a new pool");
    facts.current.version = Some("7".to_owned());
    assert_eq!(check(&narrower, &facts), Err(Rejection::NodesUnknown));
    assert!(
        lost(&json!({}), &facts).is_empty(),
        "every node keeps what it may have"
    );
}

#[test]
fn without_the_nodes_an_edit_of_the_scope_waits_and_every_other_one_does_not() {
    let mut facts = serving(&json!({}));
    facts.nodes.clear();
    let rejection = check(&pool(&json!({ "nodeScope": "WorkersOnly" })), &facts).unwrap_err();
    assert_eq!(rejection, Rejection::NodesUnknown);
    assert!(check(&pool(&json!({ "logLevel": "debug" })), &facts).is_ok());
    facts.in_place = InPlace::default();
    assert!(
        check(&pool(&json!({ "nodeScope": "WorkersOnly" })), &facts).is_ok(),
        "a new pool"
    );
}

#[test]
fn a_release_that_leaves_out_virtual_nodes_is_no_edit() {
    let mut facts = serving(&json!({}));
    facts.nodes.clear();
    // As releases render it that know nothing of virtual nodes.
    facts.in_place.scope.as_mut().unwrap().required = None;
    assert!(check(&pool(&json!({})), &facts).is_ok());
}

#[test]
fn a_rejected_edit_keeps_everything_and_the_next_operator_too() {
    let mut facts = serving(&json!({}));
    facts.discovered = crate::plan::facts::Discovered::Unknown;
    let mut edited = pool(&json!({ "nodeSelector": { "zone": "typo" }, "logLevel": "debug" }));
    edited.spec.members =
        serde_json::from_value(json!([{ "name": "cp1", "addresses": ["10.0.0.1"] }])).unwrap();
    // The scope in force is the DaemonSet's, so that nothing is lost with the operator's memory.
    for _ in 0..2 {
        let plan = crate::plan::plan(&edited, &facts).unwrap();
        let crate::plan::Verdict::Rejected { rejection, .. } = &plan.verdict else {
            panic!("{plan:?}");
        };
        assert_eq!(rejection.reason(), "ScopeWouldShrink");
        assert!(plan.rollout.is_none());
        facts.memory = crate::plan::Memory::default();
    }
    edited.spec.proxy.node_selector.clear();
    let plan = crate::plan::plan(&edited, &facts).unwrap();
    assert!(plan.rollout.is_some(), "{plan:?}");
}

fn any_scope() -> impl Strategy<Value = Value> {
    let selector = prop_oneof![
        Just(json!({})),
        Just(json!({ "zone": "a" })),
        Just(json!({ "zone": "b" })),
        Just(json!({ "zone": "a", "disk": "ssd" })),
    ];
    let scope = prop_oneof![Just("AllNodes"), Just("WorkersOnly")];
    let tolerations = prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!([{ "key": "own", "operator": "Exists" }])),
        Just(json!([{ "key": "own", "operator": "Exists", "effect": "NoSchedule" }])),
    ];
    let affinity = prop_oneof![
        Just(json!({})),
        Just(affinity(
            &json!([{ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }])
        )),
        Just(affinity(
            &json!([{ "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["n0"] }] }])
        )),
    ];
    (selector, scope, tolerations, affinity).prop_map(|(selector, scope, tolerations, affinity)| {
        json!({ "nodeSelector": selector, "nodeScope": scope, "tolerations": tolerations, "affinity": affinity })
    })
}

fn any_node() -> impl Strategy<Value = (Value, Value)> {
    let zone = prop_oneof![
        Just(json!({})),
        Just(json!({ "zone": "a" })),
        Just(json!({ "zone": "b" }))
    ];
    let taints = prop_oneof![
        Just(json!([])),
        Just(json!([{ "key": "own", "effect": "NoSchedule" }])),
        Just(json!([{ "key": "own", "effect": "NoExecute" }])),
    ];
    (zone, any::<bool>(), any::<bool>(), taints).prop_map(|(mut labels, is_master, has_ssd, taints)| {
        if is_master {
            labels[CONTROL_PLANE_LABELS[0]] = json!("");
        }
        if has_ssd {
            labels["disk"] = json!("ssd");
        }
        (labels, taints)
    })
}

proptest! {
    /// Whatever is edited on whichever cluster: an edit that is obeyed leaves each proxy its place, and one that takes no
    /// place away is obeyed.
    #[test]
    fn an_edit_is_obeyed_if_and_only_if_no_proxy_loses_its_place(
        before in any_scope(),
        after in any_scope(),
        nodes in proptest::collection::vec((any_node(), any::<bool>()), 1..8),
    ) {
        let mut facts = serving(&before);
        let with_proxies = nodes.iter().enumerate().filter(|(_, (_, has_proxy))| *has_proxy);
        let with_proxies: BTreeSet<_> = with_proxies.map(|(index, _)| format!("n{index}")).collect();
        let nodes = nodes.iter().enumerate().map(|(index, ((labels, taints), _))| {
            Arc::new(node(&format!("n{index}"), labels, taints))
        });
        facts.nodes = nodes.collect();
        facts.in_place.nodes = Some(with_proxies.clone());
        let (old, new) = (Scope::wanted(&proxy(&before)), Scope::wanted(&proxy(&after)));
        let mut losing = facts.nodes.iter().filter(|node| with_proxies.contains(&node.name_any()));
        let loses_one = losing.any(|node| new.placement(node) < old.placement(node));
        prop_assert_eq!(check(&pool(&after), &facts).is_err(), loses_one);
    }

    /// A further requirement never adds a node, and a further toleration never takes one.
    #[test]
    fn requirements_narrow_and_tolerations_widen((labels, taints) in any_node(), template in any_scope()) {
        let node = node("n", &labels, &taints);
        let scope = Scope::wanted(&proxy(&template));
        let mut narrower = scope.clone();
        narrower.node_selector.insert("disk".to_owned(), "ssd".to_owned());
        prop_assert!(narrower.placement(&node) <= scope.placement(&node));
        let mut wider = scope.clone();
        wider.tolerations.push(tolerate_everything());
        prop_assert!(wider.placement(&node) >= scope.placement(&node));
    }
}
