//! A power cut: every host reboots at once, and nobody helps.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::Instant;
use trivet_instruments::eventually;

use crate::attempts::{LOOPBACKS, once};
use crate::installation::Installation;

/// The master that other nodes are watched through.
pub const WATCHED_THROUGH: &str = "cp1";

/// Reboots all hosts at once, and waits until every node is Ready and its proxy answers. Returns how long that took after the
/// hosts have booted.
pub async fn power_cut(installation: &Installation, limit: Duration) -> Result<Duration> {
    let nodes = Api::<Node>::all(installation.kubernetes(WATCHED_THROUGH).await?);
    let client = &installation.client()?;
    let hosts = installation.hosts();
    let names: Vec<_> = hosts.iter().map(|host| host.name().to_string()).collect();
    let all = names.clone();
    let cut = Timestamp::now();
    installation
        .disturb(move |cluster| cluster.reboot(&all.iter().map(String::as_str).collect::<Vec<_>>()))
        .await?;
    let begun = Instant::now();
    let left = || limit.saturating_sub(begun.elapsed());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    ready_since(&nodes, &names, cut, left()).await?;
    installation.masters_ready().await?;
    let answers = hosts.iter().map(|host| async move {
        eventually(left(), &format!("{}'s proxy answers", host.name()), async || {
            let attempt = once(host, client, LOOPBACKS[0]).await?;
            ensure!(attempt.succeeded(), "{attempt}");
            Ok(())
        })
        .await
    });
    try_join_all(answers).await?;
    ensure!(
        begun.elapsed() < limit,
        "whole again only after {:?}",
        begun.elapsed()
    );
    Ok(begun.elapsed())
}

/// Waits until these nodes are Ready by what their kubelets have reported since this moment.
pub async fn ready_since(
    nodes: &Api<Node>,
    names: &[&str],
    since: Timestamp,
    within: Duration,
) -> Result<()> {
    eventually(within, &format!("{names:?} Ready"), async || {
        for name in names {
            let node = nodes.get(name).await?;
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            let ready = ready.with_context(|| format!("{name} has no condition Ready"))?;
            let reported = ready.last_heartbeat_time.as_ref().map(|time| time.0);
            // The API's times have whole seconds.
            ensure!(
                ready.status == "True"
                    && reported.is_some_and(|reported| reported.as_second() > since.as_second()),
                "{name} is {} by its report of {reported:?}",
                ready.status
            );
        }
        Ok(())
    })
    .await
}
