//! The names of a pool in DNS have the apiservers that answer: one that hangs leaves the headless Service within seconds of its
//! Down and the records of external-dns after their damping, both come back, and no answer is ever empty.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};
use trivet_crds::pool::MemberHealth;
use trivet_instruments::eventually;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, condition};
use trivet_tests::names::{TOLD, policies, resolve, targets, until};
use trivet_tests::say::say;

/// The master that hangs. The others answer those who look.
const MASTER: &str = "cp2";

/// A hung apiserver must have left the Service so long after the status says Down.
const LEAVES: Duration = Duration::from_secs(5);

/// The proxies find a hung apiserver Down within three seconds, and the operator hears of it in three more.
const DOWN: Duration = Duration::from_secs(30);

/// The damping of ten seconds, and that of thirty, on a busy machine.
const OUT: Duration = Duration::from_secs(25);
const BACK: Duration = Duration::from_secs(60);

/// How long no apiserver answers.
const NONE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn names_tell_the_truth_and_are_never_empty() -> Result<()> {
    let installation = Installation::serving().await?;
    installation.remove_dns_endpoints().await?;
    let seen = tell_the_truth(&installation).await;
    // Whatever was seen: the masters go on.
    for master in installation.masters() {
        installation
            .disturb(move |cluster| Fault::Stop.undo(cluster, &master))
            .await?;
    }
    installation.withdraw_names(seen).await
}

async fn tell_the_truth(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    let all = addresses(installation, |_| true).await?;
    let others = addresses(installation, |name| name != MASTER).await?;
    ensure!(
        !others.is_empty() && others.len() < all.len(),
        "{others:?} of {all:?}"
    );
    installation.edit_pool(policies("Enabled")).await?;
    until(TOLD, &all, async || resolve(&tools).await).await?;
    published_is(installation, "DNSEndpointAbsent").await?;

    installation.install_dns_endpoints().await?;
    let noticed = until(TOLD, &all, async || targets(&tools).await).await?;
    say(format!("the CRD of external-dns is noticed after {noticed:.1?}"));
    published_is(installation, "Published").await?;

    one_hangs(installation, &all, &others).await?;
    all_hang(installation, &all).await
}

async fn one_hangs(
    installation: &Installation,
    all: &BTreeSet<String>,
    others: &BTreeSet<String>,
) -> Result<()> {
    let tools = installation.tools();
    installation
        .disturb(|cluster| Fault::Stop.inject(cluster, MASTER))
        .await?;
    eventually(DOWN, "the hung member Down in the status", async || {
        let status = installation.pool_status().await?;
        let mut members = status.members.iter();
        let member = members
            .find(|member| member.name == MASTER)
            .context("it is no member")?;
        ensure!(member.health == MemberHealth::Down, "{member:?}");
        Ok(())
    })
    .await?;
    let (left, out) = tokio::try_join!(
        until(LEAVES, others, async || resolve(&tools).await),
        until(OUT, others, async || targets(&tools).await)
    )?;
    say(format!(
        "{MASTER} left the Service {left:.1?} after it was Down, and the records after {out:.1?}"
    ));

    installation
        .disturb(|cluster| Fault::Stop.undo(cluster, MASTER))
        .await?;
    installation.masters_ready().await?;
    let (back, into) = tokio::try_join!(
        until(TOLD, all, async || resolve(&tools).await),
        until(BACK, all, async || targets(&tools).await)
    )?;
    say(format!(
        "it came back to the Service after {back:.1?}, and to the records after {into:.1?}"
    ));
    Ok(())
}

/// While no apiserver answers nobody reads a name; when they answer again, none is empty at any time.
async fn all_hang(installation: &Installation, all: &BTreeSet<String>) -> Result<()> {
    let tools = installation.tools();
    let masters = installation.masters();
    let stopped = masters.clone();
    installation
        .disturb(move |cluster| {
            stopped
                .iter()
                .try_for_each(|master| Fault::Stop.inject(cluster, master))
        })
        .await?;
    sleep(NONE).await;
    installation
        .disturb(move |cluster| {
            masters
                .iter()
                .try_for_each(|master| Fault::Stop.undo(cluster, master))
        })
        .await?;
    let begun = Instant::now();
    tokio::try_join!(
        until(BACK, all, async || resolve(&tools).await),
        until(2 * BACK, all, async || targets(&tools).await)
    )?;
    say(format!(
        "after {NONE:?} without an apiserver both names have all of them again within {:.1?}, and neither was ever empty",
        begun.elapsed()
    ));
    Ok(())
}

/// The addresses of the members that are wanted.
async fn addresses(
    installation: &Installation,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeSet<String>> {
    let members = installation.pool_status().await?.members;
    let wanted = members.into_iter().filter(|member| is_wanted(&member.name));
    Ok(wanted.flat_map(|member| member.addresses).collect())
}

async fn published_is(installation: &Installation, reason: &str) -> Result<()> {
    eventually(TOLD, "DNSPublished with the reason", async || {
        let status = installation.pool_status().await?;
        let published = condition(&status, "DNSPublished")?;
        ensure!(published.reason == reason, "{published:?}");
        Ok(())
    })
    .await
}
