//! An upgrade of the proxies refuses no client, whatever comes between: a kubelet and a containerd that restart, a third
//! template while the second one's proxies take over, a roll-back after they have.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use trivet_testbed::Component;
use trivet_tests::installation::Installation;
use trivet_tests::rollout::{ProxyPod, is_of};
use trivet_tests::say::say;
use trivet_tests::steady_clients::SteadyClients;

/// No client waits longer: a machine that starts ten proxies at once is busy.
const LIMIT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_a_third_template_and_a_roll_back_refuse_nobody() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    // All nodes at once.
    installation
        .edit_pool(json!({ "rollout": { "maxParallel": "100%" } }))
        .await?;
    installation.pool_ready().await?;
    upgrades(&installation).await
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
    let clients = SteadyClients::start(installation)?;
    let second = edit(installation, "debug", &first).await?;
    for (component, host) in [(Component::Kubelet, "w1"), (Component::Containerd, "w2")] {
        installation
            .disturb(move |cluster| cluster.restart(host, component, &[]))
            .await?;
    }
    took(installation, &workers, &second).await?;
    let third = edit(installation, "warn", &second).await?;
    took(installation, &workers, &third).await?;
    // The default, with which the next scenario begins.
    let back = edit(installation, "info", &third).await?;
    ensure!(
        back == first,
        "the roll-back has template {back}, and it was {first}"
    );
    installation.rolled_out(&nodes, is_of(&first)).await?;
    clients
        .none_was_refused(
            "an upgrade, w1's kubelet and w2's containerd restarted, a third template, a roll-back",
            LIMIT,
        )
        .await
}

/// Returns the template that follows from another level of the log.
async fn edit(installation: &Installation, level: &str, before: &str) -> Result<String> {
    installation
        .edit_pool(json!({ "proxy": { "logLevel": level } }))
        .await?;
    installation.other_template(before).await
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
