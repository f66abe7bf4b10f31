//! The events of pools, which `kubectl describe asp` shows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use trivet_instruments::eventually;

use crate::installation::Installation;

/// An operator publishes them at the end of a pass.
const TOLD: Duration = Duration::from_secs(15);

impl Installation {
    /// Waits for an event of a pool with this reason and these words that is no older than `since`.
    pub async fn told_by_event(&self, reason: &str, words: &str, since: Timestamp) -> Result<()> {
        let events = Api::<Event>::namespaced(self.kubernetes("cp1").await?, "default");
        let of_reason = ListParams::default().fields(&format!("reason={reason}"));
        eventually(TOLD, &format!("an event {reason}"), async || {
            let events = events.list(&of_reason).await?;
            let mut notes = events.iter().filter(|event| last(event) >= Some(since));
            let is_it = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(words));
            ensure!(notes.any(is_it), "none with {words:?}");
            Ok(())
        })
        .await
    }

    /// What `kubectl describe` shows of the events of a pool.
    pub async fn described_events(&self, pool: &str) -> Result<String> {
        let described = self.tools().kubectl(&format!("describe asp {pool}")).await?;
        let (_, events) = described.split_once("\nEvents:").context("no events")?;
        Ok(events.to_owned())
    }
}

/// When an event was last published.
fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    series.max(event.event_time.as_ref().map(|time| time.0))
}
