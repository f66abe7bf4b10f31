//! The apiservers of all members in force are dead, and one that drains, or one that was taken out of the pool, still
//! answers: it is the last resort, and no client is refused. One that was disabled serves nobody, whatever address an earlier
//! document has of it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use trivet_crds::wire::{Document, MemberState};
use trivet_instruments::{Attempt, Record, eventually};
use trivet_testbed::Component;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::documents::Documents;
use trivet_tests::edits;
use trivet_tests::installation::{Installation, POOL};
use trivet_tests::proxies::{all_follow, metrics};
use trivet_tests::say::say;

/// The master that drains, and then is no member.
const SPARE: &str = "cp1";

/// New connections a second from each worker.
const RATE: u32 = 20;

/// From an edit to every proxy; no promise, only the limit of this test.
const FOLLOWED: Duration = Duration::from_secs(30);

/// Connections before the fault: none of them goes to the spare.
const WARM_UP: Duration = Duration::from_secs(1);

/// Long enough for several probes, and for a hundred connections.
const LASTS: Duration = Duration::from_secs(5);

/// Two good probes, one a second; an apiserver that starts has to get ready first.
const BACK: Duration = Duration::from_secs(60);

/// What the pool's owner wants of the spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    Drains,
    WasRemoved,
    IsDisabled,
}

impl Spare {
    /// Whether a document says so.
    fn is_in(self, document: &Document) -> bool {
        let member = document.members.iter().find(|member| member.name == SPARE);
        let state = member.map(|member| member.state);
        let mut disabled = document.disabled_members.iter();
        let is_disabled = disabled.any(|member| member.name == SPARE);
        match self {
            Self::Drains => state == Some(MemberState::Draining),
            Self::WasRemoved => state.is_none() && !is_disabled,
            Self::IsDisabled => state.is_none() && is_disabled,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_drains_and_one_that_was_removed_serve_while_no_other_answers() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    let mut documents = Documents::watch(installation.kubernetes(SPARE).await?);
    // An earlier document for the cases below: it has an address of the spare that none of them has.
    let by_ipv6 = installation.cluster().host(SPARE)?.ipv6();
    let moved = json!({ "members": [{ "name": SPARE, "addresses": [by_ipv6] }] });
    let is_moved = |document: &Document| {
        let mut members = document.members.iter();
        members.any(|member| member.name == SPARE && member.addresses == [IpAddr::from(by_ipv6)])
    };
    edit(&installation, &mut documents, &moved, is_moved).await?;
    let draining = json!({ "members": [{ "name": SPARE, "state": "Draining" }] });
    let others = installation.other_masters();
    let listed: Vec<_> = others
        .iter()
        .map(|name| Ok(json!({ "name": name, "addresses": [installation.cluster().host(name)?.ipv4()] })))
        .collect::<Result<_>>()?;
    let removed = json!({ "discovery": { "policy": "None" }, "members": listed });
    // Proxies may keep documents of random edits, which list the apiserver as a further member too.
    let names = [SPARE.to_owned(), edits::by_ipv6(SPARE)];
    let disabled = json!({ "members": names.map(|name| json!({ "name": name, "state": "Disabled" })) });
    let cases = [
        (Spare::Drains, draining),
        // In this order, because a list in the spec replaces the one before.
        (Spare::IsDisabled, disabled),
        (Spare::WasRemoved, removed),
    ];
    let mut outcome = Ok(());
    for (spare, spec) in cases {
        edit(&installation, &mut documents, &spec, |document| {
            spare.is_in(document)
        })
        .await?;
        outcome = serves_alone(&installation, spare, &others).await;
        if outcome.is_err() {
            break;
        }
    }
    // Whatever was seen: the next scenario needs the pool.
    installation.reset_pool().await?;
    installation.masters_ready().await?;
    outcome?;
    installation.nodes_ready().await
}

/// Edits the pool, and waits until every proxy follows.
async fn edit(
    installation: &Installation,
    documents: &mut Documents,
    spec: &Value,
    is_made: impl Fn(&Document) -> bool,
) -> Result<()> {
    let pools = installation.pools(SPARE).await?;
    let patch = Patch::Merge(json!({ "spec": spec }));
    pools.patch(POOL, &PatchParams::default(), &patch).await?;
    let published = documents.until(FOLLOWED, is_made).await?;
    all_follow(&installation.hosts(), published.document.revision, FOLLOWED)
        .await
        .map(drop)
}

/// Kills the apiservers of all members that are in use while clients of every worker connect, and starts them again.
async fn serves_alone(installation: &Installation, spare: Spare, others: &[String]) -> Result<()> {
    let (workers, client) = (installation.workers(), installation.client()?);
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, to)| attempts::start(worker, &client, to, RATE))
        .collect();
    sleep(WARM_UP).await;
    let begun = Timestamp::now();
    let killed = try_join_all(others.iter().map(|master| kill(installation, master))).await;
    let complete = Timestamp::now();
    sleep(LASTS).await;
    let undone = Timestamp::now();
    let mut records = Vec::new();
    for (worker, attempts) in workers.iter().zip(attempts) {
        records.push((worker.name().to_string(), attempts.finish().await?));
    }
    try_join_all(others.iter().map(|master| start(installation, master))).await?;
    killed?;

    for (worker, record) in &records {
        let meanwhile = by_spare(record, complete, undone);
        let failed = record.failed_since(complete);
        say(format!(
            "{SPARE} {spare:?}, the others are dead: {} of {worker}'s {} connections failed, {} of them after the deaths; {} \
             were answered by {SPARE}, {} before",
            record.failed().len(),
            record.attempts().len(),
            failed.len(),
            meanwhile.len(),
            by_spare(record, Timestamp::MIN, begun).len(),
        ));
    }
    for (worker, record) in &records {
        let early = by_spare(record, Timestamp::MIN, begun);
        ensure!(
            early.is_empty(),
            "{worker} used {SPARE}, which {spare:?}, while others answered: {:?}",
            early.first()
        );
        let meanwhile = by_spare(record, complete, undone);
        if spare == Spare::IsDisabled {
            ensure!(
                meanwhile.is_empty(),
                "{worker} used {SPARE}, which {spare:?}: {:?}",
                meanwhile.first()
            );
            continue;
        }
        let failed = record.failed_since(complete);
        ensure!(
            failed.is_empty(),
            "{worker}: {} connections failed though {SPARE}, which {spare:?}, answers; the first: {:?}",
            failed.len(),
            failed.first()
        );
        ensure!(
            !meanwhile.is_empty(),
            "{worker}: no connection was made while the others were dead"
        );
    }
    all_back(installation, others).await
}

/// The connections from one moment to another that the spare answered.
fn by_spare(record: &Record, from: Timestamp, until: Timestamp) -> Vec<&Attempt> {
    let by = |attempt: &&Attempt| {
        attempt.succeeded() && attempt.server.as_deref() == Some(SPARE) && (from..until).contains(&attempt.at)
    };
    record.attempts().iter().filter(by).collect()
}

async fn kill(installation: &Installation, master: &str) -> Result<()> {
    let name = master.to_owned();
    installation
        .disturb(move |cluster| cluster.kill(&name, Component::KubeApiserver.program()))
        .await
}

async fn start(installation: &Installation, master: &str) -> Result<()> {
    let name = master.to_owned();
    installation
        .disturb(move |cluster| cluster.start_component(&name, Component::KubeApiserver))
        .await
}

/// Waits until every proxy finds these masters Up again.
async fn all_back(installation: &Installation, masters: &[String]) -> Result<()> {
    for host in installation.hosts() {
        eventually(BACK, &format!("all Up on {}", host.name()), async || {
            let states = metrics(&host).await?.states();
            let up = |master: &String| states.get(master).is_some_and(|state| state == "Up");
            ensure!(masters.iter().all(up), "{states:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
