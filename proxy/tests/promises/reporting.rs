//! The proxy that serves a node writes its report through its own upstreams; a standby writes none.

use std::fs;

use trivet_proxy::handover::rank::Class;

use crate::support::{
    apiserver::{Apiserver, Applied},
    authority::Authority,
    eventually,
    node::Node,
};

/// The standby in the report that was written last.
fn standby_in(apiserver: &Apiserver) -> Option<String> {
    let last = apiserver.applied().pop()?;
    last.object["standby"].as_str().map(str::to_owned)
}

fn is_from(applied: &Applied, token: &str) -> bool {
    applied.authorization == format!("Bearer {token}")
}

#[tokio::test]
async fn a_report_is_applied_on_a_change_of_the_standby_and_none_by_a_standby() {
    let mut node = Node::new().of_generation(1);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let authorities = node.authority.bundle.clone();
    node.write(&node.pool().member(&apiserver));
    node.use_the_api("of the proxy", &authorities);
    node.start().await;
    eventually("it reports", async || {
        standby_in(&apiserver).as_deref() == Some("Absent")
    })
    .await;
    let first = apiserver.applied().remove(0);
    assert_eq!(
        first.uri,
        "/apis/trivet.dev/v1alpha1/proxyreports/default.w1?fieldManager=trivet-proxy&force=true"
    );
    assert_eq!(first.content_type, "application/apply-patch+yaml");
    assert_eq!(first.object["metadata"]["name"], "default.w1");
    assert_eq!(
        [
            &first.object["poolName"],
            &first.object["nodeName"],
            &first.object["role"]
        ],
        ["default", "w1", "Serving"]
    );
    assert_eq!(first.object["revision"], 1);
    assert_eq!(first.object["members"][0]["name"], "cp1");

    let mut standby = node.successor();
    let handover = standby.handover.as_mut().unwrap();
    (handover.class, handover.generation) = (Class::Static, 0);
    standby.use_the_api("of the standby", &authorities);
    standby.start().await;
    eventually("the report names the standby", async || {
        standby_in(&apiserver).as_deref() == Some("Ready")
    })
    .await;
    for applied in apiserver.applied() {
        assert!(is_from(&applied, "of the proxy"), "{applied:?}");
    }

    // The standby reports once it serves, so it could have before.
    node.stop().await;
    eventually("the report is that of the process that serves", async || {
        let last = apiserver.applied().pop();
        last.is_some_and(|last| is_from(&last, "of the standby") && last.object["standby"] == "Absent")
    })
    .await;
}

/// Otherwise the operator would number its next document above that of another cluster, and every proxy would follow it though
/// nobody has looked at the authority.
#[tokio::test]
async fn the_revision_of_another_clusters_document_is_never_reported() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let authorities = node.authority.bundle.clone();
    let other = node
        .pool()
        .with_authorities(&Authority::new().bundle)
        .revision(20);
    fs::create_dir(node.path("cache")).unwrap();
    let file = node.path(&format!("cache/document-{:020}.json", 20));
    fs::write(file, other.member(&apiserver).text()).unwrap();
    // This apiserver answers no list: the watch tells nothing.
    node.use_the_api("of the proxy", &authorities);
    node.start().await;
    let told = || {
        let revision = |applied: &Applied| applied.object["revision"].as_u64();
        apiserver.applied().iter().map(revision).collect::<Vec<_>>()
    };
    eventually("it reports", async || !told().is_empty()).await;
    node.follows(20).await;
    node.write(&node.pool().revision(7).member(&apiserver));
    eventually("it reports what it follows then", async || {
        told().last() == Some(&Some(7))
    })
    .await;
    let others = told()
        .into_iter()
        .filter(|told| *told != Some(0) && *told != Some(7));
    assert_eq!(others.count(), 0, "{:?}", told());
}

/// Otherwise a member might be called safe to switch off while a proxy that hands over still serves clients by it.
#[tokio::test]
async fn connections_that_another_process_of_the_node_has_are_in_the_report() {
    let mut node = Node::new().of_generation(1);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let authorities = node.authority.bundle.clone();
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    eventually("it serves", async || node.ready().await).await;
    let mut client = node.client_on(&apiserver).await;

    let mut next = node.successor().of_generation(2);
    next.use_the_api("of the next", &authorities);
    next.start().await;
    eventually("the report has the connection of the one before", async || {
        let last = apiserver.applied().pop();
        let own = next
            .status()
            .await
            .upstreams
            .pop()
            .map(|upstream| upstream.connections);
        last.is_some_and(|last| {
            let told = last.object["members"][0]["connections"].as_u64();
            is_from(&last, "of the next") && told.is_some_and(|told| Some(told) > own)
        })
    })
    .await;
    assert_eq!(client.who().await.unwrap(), "cp1", "it goes on meanwhile");
}
