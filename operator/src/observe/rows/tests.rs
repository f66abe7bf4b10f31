//! Rows that are kept are those that would be made anew.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(name: u8, node: Option<u8>, ready: bool, template: &str) -> Arc<Pod> {
    let node = node.map(|node| format!("w{node}"));
    let ready = if ready { "True" } else { "False" };
    let pod = json!({
        "metadata": { "name": format!("p{name}"), "labels": { TEMPLATE_LABEL: template } },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn node(name: &str, os: &str, ready: &str) -> Arc<Node> {
    let node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/os": os } },
        "status": { "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn scope(os: &str) -> Scope {
    Scope {
        node_selector: [("kubernetes.io/os".to_owned(), os.to_owned())].into(),
        ..Scope::default()
    }
}

proptest! {
    #[test]
    fn rows_are_those_of_the_objects_there_are_whatever_there_was_before(
        history in prop::collection::vec(
            prop::collection::btree_map(0..6_u8, (prop::option::of(0..4_u8), any::<bool>(), 0..2_u8), 0..6), 1..8,
        ),
        is_shared in any::<bool>(),
    ) {
        let mut kept = PodRows::default();
        let mut cache = BTreeMap::<u8, ((Option<u8>, bool, u8), Arc<Pod>)>::new();
        for wanted in history {
            cache.retain(|name, _| wanted.contains_key(name));
            for (name, seen) in wanted {
                // A cache that is filled anew has an equal object at another place.
                let is_same = is_shared && cache.get(&name).is_some_and(|(before, _)| *before == seen);
                if !is_same {
                    let (node, ready, template) = seen;
                    cache.insert(name, (seen, pod(name, node, ready, &template.to_string())));
                }
            }
            // Caches have no order.
            let objects: Vec<_> = cache.values().rev().map(|(_, pod)| Arc::clone(pod)).collect();
            kept = kept.next(objects.clone());
            prop_assert_eq!(&kept, &PodRows::default().next(objects.clone()));
            prop_assert_eq!(kept.len(), objects.len());
            for object in &objects {
                prop_assert!(Arc::ptr_eq(&kept.of(&object.name_any()).unwrap().pod, object));
            }
            prop_assert!(kept.iter().is_sorted_by_key(PodRow::key));
        }
    }
}

#[test]
fn only_what_has_changed_is_found_out_anew() {
    let (a, b) = (pod(1, Some(1), true, "x"), pod(2, Some(2), true, "x"));
    let first = PodRows::default().next(vec![Arc::clone(&b), Arc::clone(&a)]);
    let same = first.next(vec![Arc::clone(&a), Arc::clone(&b)]);
    assert!(first.is_same(&same));
    let changed = pod(2, Some(2), false, "x");
    let next = same.next(vec![Arc::clone(&a), changed]);
    let row = |rows: &PodRows, name: &str| std::ptr::from_ref(rows.of(name).unwrap());
    assert_eq!(row(&next, "p1"), row(&first, "p1"));
    assert!(!next.of("p2").unwrap().is_ready);
    let gone = next.next(vec![a]);
    assert!(gone.of("p2").is_none());
    assert!(gone.next(Vec::new()).is_empty());
}

#[test]
fn the_nodes_in_a_scope_follow_the_scope_and_the_nodes() {
    let ready = |rows: &Rows| {
        rows.scoped
            .as_ref()
            .map(|scoped| scoped.ready.iter().cloned().collect::<Vec<_>>())
    };
    let nodes = vec![
        node("w1", "linux", "True"),
        node("w2", "windows", "True"),
        node("w3", "linux", "False"),
    ];
    let rows = Rows::default().next(nodes.clone(), Vec::new(), None);
    assert_eq!(ready(&rows), None);
    let rows = rows.next(nodes.clone(), Vec::new(), Some(&scope("linux")));
    assert_eq!(ready(&rows), Some(vec!["w1".to_owned()]));
    assert_eq!(rows.scoped.as_ref().unwrap().placed, 2);
    let rows = rows.next(nodes.clone(), Vec::new(), Some(&scope("windows")));
    assert_eq!(ready(&rows), Some(vec!["w2".to_owned()]));
    let lost = vec![node("w2", "windows", "Unknown")];
    let rows = rows.next(lost, Vec::new(), Some(&scope("windows")));
    assert_eq!(ready(&rows), Some(Vec::new()));
    assert_eq!(ready(&rows.next(nodes, Vec::new(), None)), None);
}
