//! The demo's edit: a member comes, drains and goes, and no connection fails.

use std::time::Duration;

use anyhow::Result;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use trivet_crds::wire::{Document, MemberState};

use crate::attempts::{self, LOOPBACKS};
use crate::documents::Documents;
use crate::installation::{Installation, POOL};
use crate::proxies::all_follow;
use crate::say::{chapter, say, shell};

/// Several times the promised bound, so that a slow machine shows its number instead of an error.
const LIMIT: Duration = Duration::from_secs(30);

/// New connections a second from each worker, as in the tests.
const RATE: u32 = 50;

/// Adds a member, drains it, removes it.
pub(super) async fn members(installation: &Installation) -> Result<()> {
    chapter("Edit the pool while 100 connections a second come in");
    say(
        "A fourth member comes, drains and goes (cp2 by its IPv6 address). The proxies follow; none restarts.",
    );
    let client = installation.client()?;
    let workers = installation.workers().into_iter().zip(LOOPBACKS);
    let attempts: Vec<_> = workers
        .map(|(worker, to)| attempts::start(&worker, &client, to, RATE))
        .collect();
    let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
    let address = installation.cluster().host("cp2")?.ipv6();
    let entry = |state: &str| json!([{ "name": "master-4", "addresses": [address], "state": state }]);
    for (members, state) in [
        (entry("Active"), Some(MemberState::Active)),
        (entry("Draining"), Some(MemberState::Draining)),
        (json!([]), None),
    ] {
        edit(installation, &mut documents, members, state).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let (mut made, mut failed) = (0, 0);
    for attempts in attempts {
        let record = attempts.finish().await?;
        made += record.attempts().len();
        failed += record.failed().len();
    }
    say(format!("→ {failed} of {made} new connections failed"));
    Ok(())
}

async fn edit(
    installation: &Installation,
    documents: &mut Documents,
    members: Value,
    state: Option<MemberState>,
) -> Result<()> {
    let patch = json!({ "spec": { "members": members } });
    shell(format!("kubectl patch asp {POOL} --type merge --patch '{patch}'"));
    let pools = installation.pools("cp1").await?;
    pools
        .patch(POOL, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let shown = |document: &Document| {
        document
            .members
            .iter()
            .find(|member| member.name == "master-4")
            .map(|member| member.state)
            == state
    };
    let published = documents.until(LIMIT, shown).await?;
    let revision = published.document.revision;
    let hosts = installation.hosts();
    let last = all_follow(&hosts, revision, LIMIT).await?;
    let lag = Duration::try_from(last.duration_since(published.at)).unwrap_or_default();
    say(format!(
        "→ revision {revision}: on all {} proxies {} ms after it was written",
        hosts.len(),
        lag.as_millis()
    ));
    Ok(())
}
