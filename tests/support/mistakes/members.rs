//! Mistakes in what the pool asks for: a port, a member, a name, a listener that another pool has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, MemberHealth, MemberStatus};
use trivet_crds::wire::Document;
use trivet_instruments::eventually;

use super::Mistakes;
use crate::proxies::metrics;
use crate::say::say;

/// Where an apiserver does not listen, and where etcd does, whose certificate is of another authority.
const NOBODY: u16 = 6444;
const ETCD: u16 = 2379;

/// The members that are no apiservers of this cluster.
const MISTYPED: &str = "mistyped";
const STRANGER: &str = "stranger";

/// The nodes probe, and report within five seconds.
const REPORTED: Duration = Duration::from_secs(20);

/// The pool that wants another pool's port.
const OTHER: &str = "rival";

impl Mistakes<'_> {
    /// The port of all discovered members: the edit would leave none that answers.
    pub(super) async fn wrong_port_of_discovery(&mut self) -> Result<()> {
        let port = json!({ "discovery": { "port": NOBODY } });
        let right = json!({ "discovery": { "port": null } });
        self.rejected("discovery.port 6444", port, right, ("NoHealthyMember", "cp1"))
            .await
    }

    /// A name that no certificate has. Proxies that verified by it could neither prove a member nor read the correction.
    pub(super) async fn wrong_server_name(&mut self) -> Result<()> {
        let name = json!({ "healthCheck": { "tlsServerName": "kubernetse" } });
        let right = json!({ "healthCheck": { "tlsServerName": null } });
        self.rejected(
            "healthCheck.tlsServerName kubernetse",
            name,
            right,
            ("Untrusted", "\"kubernetse\" verifies no member"),
        )
        .await
    }

    /// An edit that must change nothing, and its correction.
    async fn rejected(
        &mut self,
        what: &str,
        wrong: serde_json::Value,
        right: serde_json::Value,
        (reason, words): (&str, &str),
    ) -> Result<()> {
        let (before, since) = (self.in_force().await?, Timestamp::now());
        let generation = self.edit(wrong).await?;
        let told = self.told(generation, ("False", reason), &[words]).await?;
        self.installation.told_by_event(reason, words, since).await?;
        self.still(&before).await?;
        say(format!(
            "{what}: Accepted=False ({reason}) after {:.1} s, and the document is the same",
            told.as_secs_f32()
        ));
        let generation = self.edit(right).await?;
        self.told(generation, ("True", "Accepted"), &[]).await?;
        self.still(&before).await
    }

    /// A member with a wrong port, and one whose certificate is of another authority. No node uses them, and the status says why.
    pub(super) async fn wrong_members(&mut self) -> Result<()> {
        let since = Timestamp::now();
        let address = self.installation.cluster().host("cp1")?.ipv4();
        let members = json!([
            { "name": MISTYPED, "addresses": [address], "port": NOBODY },
            { "name": STRANGER, "addresses": [address], "port": ETCD },
        ]);
        let has = |document: &Document| document.members.iter().any(|member| member.name == STRANGER);
        let begun = Instant::now();
        self.obeyed(json!({ "members": members }), has).await?;
        let nodes = self.installation.hosts().len();
        let told = eventually(REPORTED, "all nodes say why", async || {
            let status = self.installation.pool_status().await?;
            let mut messages = Vec::new();
            for (name, why) in [(MISTYPED, "refused"), (STRANGER, "certificate")] {
                let found = status.members.iter().find(|member| member.name == name);
                let found = found.with_context(|| format!("the status lacks {name}"))?;
                is_unproven(found, nodes, why)?;
                messages.push(format!("{name}: {}", found.message));
            }
            Ok(messages)
        })
        .await?;
        let took = begun.elapsed();
        for name in [MISTYPED, STRANGER] {
            self.installation
                .told_by_event("MemberUnproven", &format!("of the new member {name}, "), since)
                .await?;
        }
        for host in self.installation.hosts() {
            let metrics = metrics(&host).await?;
            let (served, open) = (metrics.served(), metrics.connections());
            for name in [MISTYPED, STRANGER] {
                let used = [&served, &open].map(|of| of.get(name).copied().unwrap_or_default());
                ensure!(used == [0, 0], "{} has used {name}: {used:?}", host.name());
            }
        }
        say(format!(
            "two members that are no apiservers of the cluster: told after {:.1} s, and 0 connections from {nodes} nodes",
            took.as_secs_f32()
        ));
        told.iter().for_each(say);
        self.obeyed(json!({ "members": null }), |document| !has(document))
            .await
            .map(drop)
    }

    /// A second pool that wants the port of the first one: the older one has it.
    pub(super) async fn another_pool_on_the_port(&mut self) -> Result<()> {
        let before = self.in_force().await?;
        // The metrics' port is not what it is about.
        let spec = json!({ "proxy": { "metrics": { "port": 7555 } } });
        let spec: ApiserverPoolSpec = serde_json::from_value(spec)?;
        let pool = ApiserverPool::new(OTHER, spec);
        self.pools.create(&PostParams::default(), &pool).await?;
        let words = ["port 7443 is already used by pool default"];
        let told = self
            .told_of(OTHER, 1, ("False", "ListenerConflict"), &words)
            .await?;
        self.told(0, ("True", "Accepted"), &[]).await?;
        self.still(&before).await?;
        say(format!(
            "a second pool on port 7443: Accepted=False (ListenerConflict) after {:.1} s, and the first one is as it was",
            told.as_secs_f32()
        ));
        self.remove_other_pool().await
    }

    pub(super) async fn remove_other_pool(&self) -> Result<()> {
        match self.pools.delete(OTHER, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).context("failed to delete the second pool"),
        }
    }
}

/// Whether every node reports this member, none has had an answer from it, and the message says why.
fn is_unproven(member: &MemberStatus, nodes: usize, why: &str) -> Result<()> {
    ensure!(
        usize::try_from(member.reporting_nodes)? == nodes
            && member.reachable_nodes == 0
            && member.health != MemberHealth::Up
            && member.message.contains(why),
        "{member:?}"
    );
    Ok(())
}
