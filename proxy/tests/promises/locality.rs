//! Who is near gets the connections, as far as the pool's owner asks for it and while it is well.

use std::collections::BTreeMap;

use trivet_crds::wire::Locality;

use crate::support::{
    apiserver::{Apiserver, Mode},
    eventually,
    node::{Node, Pool, node_with},
};

/// cp1 is in another zone, cp2 in this node's, cp3 on this very node, which is `w1` in zone `a`.
fn pool(node: &Node, apiservers: &[Apiserver], revision: u64, locality: Locality) -> Pool {
    let pool = node.pool().revision(revision).locality(locality);
    let pool = pool.member(&apiservers[0]).at("m1", "b");
    let pool = pool.member(&apiservers[1]).at("m2", "a");
    pool.member(&apiservers[2]).at("w1", "a")
}

/// Who serves thirty connections that come one after another.
async fn servers(node: &Node) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        *counts.entry(node.who().await.unwrap()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn each_locality_is_obeyed_and_an_edit_of_it_closes_nothing() {
    let (node, apiservers) = node_with(3).await;
    // One on each, so that all have as many.
    let mut held = Vec::new();
    for apiserver in &apiservers {
        held.push(node.client_on(apiserver).await);
    }
    for (revision, locality, expected) in [
        (2, Locality::PreferLocal, &["cp3"][..]),
        (3, Locality::PreferSameZone, &["cp2", "cp3"]),
        (4, Locality::Any, &["cp1", "cp2", "cp3"]),
    ] {
        node.write(&pool(&node, &apiservers, revision, locality));
        node.follows(revision).await;
        let counts = servers(&node).await;
        assert_eq!(counts.keys().collect::<Vec<_>>(), expected, "{counts:?}");
    }
    for (client, apiserver) in held.iter_mut().zip(&apiservers) {
        assert_eq!(client.who().await.unwrap(), apiserver.name);
    }
}

#[tokio::test]
async fn the_nearest_that_is_not_well_is_left_for_the_next_and_taken_up_again() {
    let (node, apiservers) = node_with(3).await;
    node.write(&pool(&node, &apiservers, 2, Locality::PreferLocal));
    node.follows(2).await;
    apiservers[2].set(Mode::NotReady);
    node.sees(&apiservers[2], "Unready").await;
    assert_eq!(servers(&node).await.into_keys().collect::<Vec<_>>(), ["cp2"]);
    apiservers[1].set(Mode::Killed);
    node.sees(&apiservers[1], "Unready").await;
    assert_eq!(servers(&node).await.into_keys().collect::<Vec<_>>(), ["cp1"]);
    apiservers[2].set(Mode::Ready);
    node.sees(&apiservers[2], "Up").await;
    assert_eq!(servers(&node).await.into_keys().collect::<Vec<_>>(), ["cp3"]);
}

#[tokio::test]
async fn where_the_node_and_how_far_each_member_is_are_told() {
    let (node, apiservers) = node_with(3).await;
    node.write(&pool(&node, &apiservers, 2, Locality::PreferSameZone));
    node.follows(2).await;
    eventually("every distance is told", async || {
        let status = node.status().await;
        let distances: Vec<_> = status
            .upstreams
            .iter()
            .map(|upstream| upstream.distance.as_str())
            .collect();
        distances == ["Elsewhere", "SameZone", "Local"]
    })
    .await;
    let status = node.status().await;
    assert_eq!((status.node.as_str(), status.zone.as_str()), ("w1", "a"));
    assert_eq!(status.document.unwrap().locality, "PreferSameZone");
}
