//! An upgrade of the proxies refuses no client, whatever comes between: a kubelet and a containerd that restart, a third
//! template while the second one's proxies take over, a roll-back after they have.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::Attempts;
use trivet_testbed::Component;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::Installation;
use trivet_tests::rollout::ProxyPod;
use trivet_tests::say::say;

/// New connections a second on each worker.
const RATE: u32 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_a_third_template_and_a_roll_back_refuse_nobody() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    // All nodes at once, and little time to drain what is established: this is about clients that connect.
    installation
        .edit_pool(
            json!({ "rollout": { "maxParallel": "100%" }, "connection": { "drainTimeoutSeconds": 5 } }),
        )
        .await?;
    installation.pool_ready().await?;
    let outcome = upgrades(&installation).await;
    installation.reset_pool().await?;
    installation.pool_ready().await?;
    outcome
}

async fn upgrades(installation: &Installation) -> Result<()> {
    let workers: Vec<String> = installation
        .workers()
        .iter()
        .map(|host| host.name().to_string())
        .collect();
    let nodes: Vec<String> = installation
        .hosts()
        .iter()
        .map(|host| host.name().to_string())
        .collect();

    let first = installation.template().await?;
    let clients = clients(installation)?;
    let begun = Instant::now();
    installation
        .edit_pool(json!({ "proxy": { "logLevel": "debug" } }))
        .await?;
    let second = installation.other_template(&first).await?;
    for (component, host) in [(Component::Kubelet, "w1"), (Component::Containerd, "w2")] {
        installation
            .disturb(move |cluster| cluster.restart(host, component, &[]))
            .await?;
    }
    installation.rolled_out(&nodes, is_of(&second)).await?;
    nobody_was_refused(
        "an upgrade, w1's kubelet and w2's containerd restarted",
        begun,
        clients,
    )
    .await?;

    let clients = self::clients(installation)?;
    let begun = Instant::now();
    installation
        .edit_pool(json!({ "proxy": { "logLevel": "warn" } }))
        .await?;
    let third = installation.other_template(&second).await?;
    took(installation, &workers, &third).await?;
    installation
        .edit_pool(json!({ "proxy": { "logLevel": "error" } }))
        .await?;
    let fourth = installation.other_template(&third).await?;
    installation.rolled_out(&nodes, is_of(&fourth)).await?;
    nobody_was_refused(
        "a third template while the second one's proxies take over",
        begun,
        clients,
    )
    .await?;

    let clients = self::clients(installation)?;
    let begun = Instant::now();
    installation
        .edit_pool(json!({ "proxy": { "logLevel": "info" } }))
        .await?;
    let fifth = installation.other_template(&fourth).await?;
    took(installation, &workers, &fifth).await?;
    installation
        .edit_pool(json!({ "proxy": { "logLevel": "error" } }))
        .await?;
    let back = installation.other_template(&fifth).await?;
    ensure!(
        back == fourth,
        "the roll-back has template {back}, and it was {fourth}"
    );
    installation.rolled_out(&nodes, is_of(&fourth)).await?;
    nobody_was_refused("a roll-back after the take", begun, clients).await
}

/// Waits until the new proxy of each node is Ready, which it is once it has taken over, while the old one is still there.
async fn took(installation: &Installation, nodes: &[String], template: &str) -> Result<()> {
    let is_new = is_of(template);
    let took = |pods: &[ProxyPod]| pods.iter().any(|pod| is_new(pod) && pod.is_ready);
    installation
        .pods_of_nodes(nodes, "a new proxy that serves", took)
        .await?;
    let pods = installation.proxy_pods().await?;
    let old = pods
        .iter()
        .filter(|pod| nodes.contains(&pod.node) && !is_new(pod) && !pod.is_leaving);
    say(format!(
        "the new proxies serve; {} old ones are still there",
        old.count()
    ));
    Ok(())
}

fn is_of(template: &str) -> impl Fn(&ProxyPod) -> bool {
    move |pod| pod.template.as_deref() == Some(template)
}

/// New connections on both workers, one by IPv4 and one by IPv6.
fn clients(installation: &Installation) -> Result<Vec<(String, Attempts)>> {
    let client = installation.client()?;
    let workers = installation.workers();
    let started = workers.iter().zip(LOOPBACKS).map(|(host, to)| {
        let attempts = attempts::start(host, &client, to, RATE);
        (format!("{}, {to}", host.name()), attempts)
    });
    Ok(started.collect())
}

async fn nobody_was_refused(what: &str, begun: Instant, clients: Vec<(String, Attempts)>) -> Result<()> {
    let took = begun.elapsed();
    for (client, attempts) in clients {
        let record = attempts.finish().await?;
        say(format!(
            "{what} ({:.0} s): {client}: {} of {} new connections failed, slowest {:.2} s",
            took.as_secs_f32(),
            record.failed().len(),
            record.attempts().len(),
            record.slowest().as_secs_f32()
        ));
        record.all_succeeded(&client)?;
    }
    Ok(())
}
