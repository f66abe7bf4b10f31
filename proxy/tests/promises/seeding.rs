//! A proxy on a new node starts from its seed, and forgets it once it has a document of the cluster.

use trivet_proxy::document::cache::Cache;

use crate::support::{
    apiserver::Apiserver,
    authority::Authority,
    eventually,
    node::{Node, Pool, node_with},
};

async fn source(node: &Node) -> Option<(u64, String)> {
    let document = node.status().await.document?;
    Some((document.revision, document.source))
}

async fn follows(node: &Node, revision: u64, from: &str) {
    let wanted = Some((revision, from.to_owned()));
    eventually("the document", async || source(node).await == wanted).await;
}

#[tokio::test]
async fn a_node_without_a_disk_starts_from_the_seed_and_goes_over_to_the_document_of_the_cluster() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.seed = Some(node.pool().member(&apiserver).text());
    node.start().await;
    follows(&node, 1, "Seed").await;
    node.sees(&apiserver, "Up").await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    // With the revision of the seed, and another content.
    node.write(&node.pool().member(&apiserver).drain_within(2));
    follows(&node, 1, "File").await;
    node.stop().await;
}

#[tokio::test]
async fn a_seed_is_not_kept_on_the_disk_so_that_a_corrected_one_is_used() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.seed = Some(node.pool().member(&apiserver).text());
    node.start().await;
    node.sees(&apiserver, "Up").await;
    node.stop().await;
    let cache = Cache::new(node.path("cache"));
    assert_eq!(cache.texts().unwrap(), Vec::<String>::new());
    assert!(!cache.proven().is_empty(), "the proofs are kept");
}

#[tokio::test]
async fn a_document_on_the_disk_comes_before_a_seed_with_a_higher_revision() {
    let (mut node, apiservers) = node_with(1).await;
    node.stop().await;
    std::fs::remove_file(node.path("pool.json")).unwrap();
    node.seed = Some(node.pool().member(&apiservers[0]).revision(7).text());
    node.start().await;
    node.sees(&apiservers[0], "Up").await;
    assert_eq!(source(&node).await, Some((1, "Cache".to_owned())));
    let status = node.status().await;
    assert!(status.warnings.is_empty(), "{status:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_host_with_the_disk_of_another_cluster_goes_over_to_the_seed() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let old = Pool::new(&Authority::new(), node.proxy.port()).revision(99);
    Cache::new(node.path("cache"))
        .store(99, &old.member(&apiserver).text())
        .unwrap();
    node.seed = Some(node.pool().member(&apiserver).text());
    node.start().await;
    follows(&node, 1, "Seed").await;
    eventually("ready", async || node.ready().await).await;
    node.stop().await;
}

#[tokio::test]
async fn a_seed_that_cannot_be_followed_keeps_no_proxy_from_its_disk() {
    let (mut node, apiservers) = node_with(1).await;
    node.stop().await;
    std::fs::remove_file(node.path("pool.json")).unwrap();
    node.seed = Some("{".to_owned());
    node.start().await;
    node.sees(&apiservers[0], "Up").await;
    assert_eq!(source(&node).await, Some((1, "Cache".to_owned())));
    node.stop().await;
}
