//! `helm install` and a pool of `spec: {}`: every node's loopback is an apiserver endpoint, and it is the proxy that
//! makes it one.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use trivet_instruments::Client;
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS, once};
use trivet_tests::installation::{CHART, EMPTY_POOL, Installation, NAMESPACE, RELEASE};
use trivet_tests::say::say;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_makes_every_nodes_loopback_an_apiserver_endpoint() -> Result<()> {
    let installation = Installation::bare().await?;
    let tools = installation.tools();
    tools
        .helm(&format!(
            "install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace"
        ))
        .await?;
    tools.apply(EMPTY_POOL).await?;

    let start = tokio::time::Instant::now();
    tools
        .kubectl("wait --for=condition=Ready asp/default --timeout=60s")
        .await?;
    say(format!(
        "the pool was Ready after {:.1} s",
        start.elapsed().as_secs_f32()
    ));

    let row = tools.kubectl("get asp default --no-headers").await?;
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells[..4],
        ["default", "True", "3/3", "5/5"],
        "kubectl get asp says {row}"
    );

    let client = installation.client()?;
    try_join_all(
        installation
            .hosts()
            .iter()
            .map(|host| serves_both_loopbacks(host, &client)),
    )
    .await?;
    try_join_all(
        installation
            .hosts()
            .iter()
            .map(|host| needs_its_proxy(&installation, host, &client)),
    )
    .await?;
    Ok(())
}

async fn serves_both_loopbacks(host: &Host, client: &Client) -> Result<()> {
    for loopback in LOOPBACKS {
        let attempts = attempts::start(host, client, loopback, 20);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let record = attempts.finish().await?;
        let (name, servers) = (host.name(), record.servers());
        record.all_succeeded(&format!("{name}, {loopback}"))?;
        ensure!(
            servers.len() >= 2,
            "{name}, {loopback}: only {servers:?} answered {} requests",
            record.attempts().len()
        );
        say(format!(
            "{name}, {loopback}: {} answers by {servers:?}",
            record.attempts().len()
        ));
    }
    Ok(())
}

async fn needs_its_proxy(installation: &Installation, host: &Host, client: &Client) -> Result<()> {
    let name = host.name().to_string();
    let (stopped, continued) = (name.clone(), name.clone());
    installation
        .disturb(move |cluster| cluster.stop(&stopped, "trivet-proxy"))
        .await?;
    let without = futures::future::join_all(LOOPBACKS.map(|loopback| once(host, client, loopback))).await;
    installation
        .disturb(move |cluster| cluster.cont(&continued, "trivet-proxy"))
        .await?;
    for attempt in without {
        let attempt = attempt?;
        ensure!(
            !attempt.succeeded(),
            "{name}: somebody else answers while its proxy is stopped: {attempt}"
        );
    }
    for loopback in LOOPBACKS {
        let attempt = once(host, client, loopback).await?;
        ensure!(attempt.succeeded(), "{name}: its proxy continues, but {attempt}");
    }
    Ok(())
}
