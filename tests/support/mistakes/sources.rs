//! Mistakes in what tells of masters: their labels, the selector, the authorities.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::eventually;

use super::{Mistakes, OBEYED, REMOVAL_DELAY};
use crate::installation::NAMESPACE;
use crate::say::say;

/// The bundle of authorities that Kubernetes gives to every pod.
const AUTHORITIES: &str = "kube-root-ca.crt";

impl Mistakes<'_> {
    /// The label of two masters goes, then that of all three. Apiservers that answer stay members.
    pub(super) async fn labels_wiped(&mut self) -> Result<()> {
        let before = self.in_force().await?;
        let masters = self.installation.masters();
        let (first, others) = masters.split_first().context("there is no master")?;
        let stays: Vec<_> = others.iter().map(|master| format!("{master} stays")).collect();
        let words: Vec<_> = stays.iter().map(String::as_str).collect();
        let (since, refused) = (Timestamp::now(), self.refusals("RefusedShrink").await?);
        for master in others {
            self.label(master, false).await?;
        }
        let told = self.told(0, ("True", "RefusedShrink"), &words).await?;
        let words = words.first().context("there is one master only")?;
        self.installation
            .told_by_event("RefusedShrink", words, since)
            .await?;
        let counted = self.refusals("RefusedShrink").await?;
        ensure!(counted > refused, "the metric is still {counted}");
        self.still(&before).await?;
        self.print("the label of two masters wiped", told).await?;
        ensure!(
            told >= Duration::from_secs(REMOVAL_DELAY.into()),
            "told before removalDelaySeconds: {told:?}"
        );

        self.label(first, false).await?;
        let stays = format!("{first} stays");
        let words = [stays.as_str(), "no control-plane node at all"];
        let told = self.told(0, ("True", "RefusedShrink"), &words).await?;
        self.still(&before).await?;
        self.print("the label of all masters wiped", told).await?;
        for master in &masters {
            self.label(master, true).await?;
        }
        self.told(0, ("True", "Accepted"), &[]).await?;
        self.still(&before).await
    }

    /// A selector that no node has: discovery finds nothing.
    pub(super) async fn selector_without_nodes(&mut self) -> Result<()> {
        let before = self.in_force().await?;
        let typo = json!({ "discovery": { "nodeSelector": { "example.com/role": "master" } } });
        let generation = self.edit(typo).await?;
        let words = ["no control-plane node at all"];
        let told = self.told(generation, ("True", "RefusedShrink"), &words).await?;
        self.still(&before).await?;
        self.print("a selector that no node has", told).await?;
        let generation = self
            .edit(json!({ "discovery": { "nodeSelector": null } }))
            .await?;
        self.told(generation, ("True", "Accepted"), &[]).await?;
        self.still(&before).await
    }

    /// Somebody replaces the authorities that pods get. kube-controller-manager puts them back before kubelet has mounted them.
    pub(super) async fn wrong_authorities(&mut self) -> Result<()> {
        let before = self.in_force().await?;
        let maps = Api::<ConfigMap>::namespaced(self.installation.kubernetes("cp1").await?, NAMESPACE);
        let right = maps.get(AUTHORITIES).await?.data;
        let wrong = Patch::Merge(json!({ "data": { "ca.crt": "no authority" } }));
        let begun = Instant::now();
        maps.patch(AUTHORITIES, &PatchParams::default(), &wrong).await?;
        eventually(OBEYED, "the authorities as they were", async || {
            let now = maps.get(AUTHORITIES).await?.data;
            ensure!(now == right, "they are {now:?}");
            Ok(())
        })
        .await?;
        self.still(&before).await?;
        say(format!(
            "{AUTHORITIES} of {NAMESPACE} replaced: Kubernetes has put it back after {:.1} s, and no document has had it",
            begun.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    /// Says how many members stay, and when the operator has told it.
    async fn print(&mut self, what: &str, told: Duration) -> Result<()> {
        let status = self.installation.pool_status().await?;
        let members = self.in_force().await?.document.members.len();
        ensure!(
            members == self.installation.masters().len(),
            "{members} members stay"
        );
        say(format!(
            "{what}: told after {:.1} s; {members} members stay, {} Up",
            told.as_secs_f32(),
            status.members_summary
        ));
        Ok(())
    }
}
