//! If no member of the document answers, members of earlier documents are tried, then further endpoints, and otherwise
//! clients are reset at once.

use std::{io, time::Duration};

use tokio::time::{Instant, timeout};
use trivet_proxy::balance::last_resort::FURTHER_AFTER;

use crate::support::{
    apiserver::{Apiserver, Mode},
    authority::Authority,
    eventually,
    node::{all, node_with},
};

/// Far beyond the two seconds after which a client is reset.
const FOR_EVER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_client_of_members_that_all_hang_is_reset_and_not_held() {
    let (node, apiservers) = node_with(2).await;
    all(&apiservers, Mode::Hung);
    for apiserver in &apiservers {
        node.sees(apiserver, "Down").await;
    }
    let told = timeout(FOR_EVER, node.who()).await.expect("held for ever");
    assert_eq!(told.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    all(&apiservers, Mode::Ready);
    eventually("served again", async || node.who().await.is_ok()).await;
}

#[tokio::test]
async fn a_node_whose_members_were_all_replaced_finds_one_of_an_earlier_document() {
    let (mut node, apiservers) = node_with(1).await;
    let replacement = Apiserver::start("cp2", node.authority.server());
    node.write(&node.pool().revision(2).member(&replacement));
    node.follows(2).await;
    node.sees(&replacement, "Up").await;
    eventually("cp2 serves", async || {
        node.who().await.is_ok_and(|who| who == replacement.name)
    })
    .await;

    node.stop().await;
    replacement.set(Mode::Killed);
    node.start().await;
    eventually("cp1 serves, of the document before", async || {
        node.who().await.is_ok_and(|who| who == apiservers[0].name)
    })
    .await;

    replacement.set(Mode::Ready);
    eventually("cp1 is left again", async || {
        let line = "trivet_proxy_upstream_state{member=\"cp1\",state=\"Up\"}";
        node.metric(line).await.is_none()
    })
    .await;
    assert_eq!(node.who().await.unwrap(), replacement.name);
}

#[tokio::test]
async fn a_member_that_drains_serves_once_all_others_are_gone() {
    let (node, apiservers) = node_with(2).await;
    node.write(
        &node
            .pool()
            .revision(2)
            .draining(&apiservers[0])
            .member(&apiservers[1]),
    );
    node.follows(2).await;
    assert_eq!(node.who().await.unwrap(), apiservers[1].name);
    apiservers[1].set(Mode::Killed);
    for _ in 0..20 {
        assert_eq!(node.who().await.unwrap(), apiservers[0].name);
    }
    apiservers[1].set(Mode::Ready);
    node.sees(&apiservers[1], "Up").await;
    assert_eq!(node.who().await.unwrap(), apiservers[1].name);
}

#[tokio::test]
async fn a_removed_member_serves_the_first_client_after_all_others_are_gone() {
    let (node, apiservers) = node_with(2).await;
    node.write(&node.pool().revision(2).member(&apiservers[1]));
    node.follows(2).await;
    let line = format!(
        "trivet_proxy_upstream_state{{member=\"{}\",state=\"Up\"}}",
        apiservers[0].name
    );
    eventually("forgotten", async || node.metric(&line).await.is_none()).await;
    apiservers[1].set(Mode::Killed);
    for _ in 0..20 {
        assert_eq!(node.who().await.unwrap(), apiservers[0].name);
    }
}

#[tokio::test]
async fn a_disabled_member_serves_nobody_even_if_all_others_are_gone() {
    let (node, apiservers) = node_with(2).await;
    let held = node.client_on(&apiservers[0]).await;
    let pool = node.pool().revision(2).member(&apiservers[1]);
    node.write(&pool.disabled(&apiservers[0]));
    node.follows(2).await;
    apiservers[1].set(Mode::Killed);
    for _ in 0..20 {
        assert!(node.who().await.is_err(), "an apiserver serves");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(held);
}

#[tokio::test]
async fn a_disabled_member_serves_nobody_by_an_address_that_only_an_earlier_document_has() {
    let (mut node, apiservers) = node_with(2).await;
    // The document that disables it has another address of it, as after an edit.
    let edited = Apiserver::start(&apiservers[0].name, node.authority.server());
    node.write(&node.pool().revision(2).member(&apiservers[1]).disabled(&edited));
    node.follows(2).await;
    node.stop().await;
    apiservers[1].set(Mode::Killed);
    let accepted = apiservers[0].accepted();

    node.start().await;
    node.sees(&apiservers[1], "Unready").await;
    for _ in 0..20 {
        assert!(node.who().await.is_err(), "an apiserver serves");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(apiservers[0].accepted(), accepted, "it is not even probed");

    node.write(&node.pool().revision(3).member(&apiservers[1]));
    eventually("cp1 serves once it is not disabled", async || {
        node.who().await.is_ok_and(|who| who == apiservers[0].name)
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_serves_once_nothing_else_has_answered_for_five_seconds() {
    let (node, apiservers) = node_with(1).await;
    let other = Apiserver::start("cp2", node.authority.server());
    let stranger = Apiserver::start("stranger", Authority::new().server());
    let pool = node.pool().revision(2).member(&apiservers[0]);
    node.write(&pool.endpoint(&stranger).endpoint(&other));
    node.follows(2).await;
    assert_eq!(other.accepted(), 0);

    let gone = Instant::now();
    apiservers[0].set(Mode::Killed);
    eventually("cp2 serves", async || {
        node.who().await.is_ok_and(|who| who == other.name)
    })
    .await;
    assert!(gone.elapsed() >= FURTHER_AFTER, "after {:?}", gone.elapsed());
    for _ in 0..20 {
        assert_eq!(node.who().await.unwrap(), other.name);
    }
    assert_eq!(stranger.served(), 0, "a client was sent to a stranger");

    apiservers[0].set(Mode::Ready);
    node.sees(&apiservers[0], "Up").await;
    assert_eq!(node.who().await.unwrap(), apiservers[0].name);
    let line = format!(
        "trivet_proxy_upstream_state{{member=\"endpoint-{}\"",
        other.address.ip()
    );
    eventually("the endpoints are left again", async || {
        !node.metrics().await.contains(&line)
    })
    .await;
}

#[tokio::test]
async fn a_member_of_the_seed_serves_when_those_of_newer_documents_are_gone() {
    let (mut node, apiservers) = node_with(1).await;
    node.write(&node.pool().revision(2).member(&apiservers[0]));
    node.follows(2).await;
    let other = Apiserver::start("cp2", node.authority.server());
    node.stop().await;
    apiservers[0].set(Mode::Killed);
    node.seed = Some(node.pool().member(&other).text());
    node.start().await;
    node.follows(2).await;
    eventually("cp2 serves", async || {
        node.who().await.is_ok_and(|who| who == other.name)
    })
    .await;
}

#[tokio::test]
async fn that_no_member_answers_is_a_warning_until_one_does() {
    let (node, apiservers) = node_with(1).await;
    apiservers[0].set(Mode::Killed);
    let line = "trivet_proxy_warning{reason=\"NoMemberAnswers\"}";
    eventually("it is told", async || node.metric(line).await == Some(1)).await;
    let warnings = node.status().await.warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.message.contains("cp1 Unready Refused")
                && warning.message.contains("point its kubelet at one of them")),
        "{warnings:?}"
    );
    apiservers[0].set(Mode::Ready);
    eventually("it is over", async || node.metric(line).await != Some(1)).await;
}
