//! External-dns takes the DNSEndpoint of a pool, observes each of its generations, and its zone has the apiservers that answer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trivet_instruments::eventually;
use trivet_tests::fault::Fault;
use trivet_tests::installation::{Installation, condition};
use trivet_tests::names::{ExternalDns, TOLD, policies};
use trivet_tests::say::say;

const MASTER: &str = "cp2";

/// Down within six seconds, the damping of ten, and five until external-dns synchronises after an event.
const OUT: Duration = Duration::from_secs(40);

/// An apiserver that is ready again within half a minute, the damping of thirty seconds, and external-dns.
const BACK: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it builds external-dns for three minutes; `cargo xtask soak` runs it"]
async fn external_dns_follows_the_names_of_a_pool() -> Result<()> {
    let installation = Installation::serving().await?;
    installation.install_dns_endpoints().await?;
    installation.edit_pool(policies("Enabled")).await?;
    let seen = follows(&installation).await;
    installation
        .disturb(|cluster| Fault::Stop.undo(cluster, MASTER))
        .await?;
    installation.withdraw_names(seen).await
}

async fn follows(installation: &Installation) -> Result<()> {
    let members = installation.pool_status().await?.members;
    let of = |is_wanted: &dyn Fn(&str) -> bool| {
        let wanted = members.iter().filter(|member| is_wanted(&member.name));
        wanted
            .flat_map(|member| member.addresses.clone())
            .collect::<BTreeSet<_>>()
    };
    let (all, others) = (of(&|_| true), of(&|name| name != MASTER));
    let mut external_dns = ExternalDns::start(installation).await?;
    external_dns.has(&all, TOLD).await?;
    eventually(TOLD, "the word that external-dns has observed it", async || {
        let status = installation.pool_status().await?;
        let message = &condition(&status, "DNSPublished")?.message;
        ensure!(message.contains("which external-dns has observed"), "{message}");
        ensure!(!message.contains("not observed"), "{message}");
        let targets = status.dns.context("the status has no dns")?.targets;
        ensure!(
            targets.into_iter().collect::<BTreeSet<_>>() == all,
            "not all are published"
        );
        Ok(())
    })
    .await?;

    installation
        .disturb(|cluster| Fault::Stop.inject(cluster, MASTER))
        .await?;
    let out = external_dns.has(&others, OUT).await?;
    installation
        .disturb(|cluster| Fault::Stop.undo(cluster, MASTER))
        .await?;
    let back = external_dns.has(&all, BACK).await?;
    say(format!(
        "{MASTER} left the zone {out:.1?} after it hung, and came back {back:.1?} after it went on"
    ));
    Ok(())
}
