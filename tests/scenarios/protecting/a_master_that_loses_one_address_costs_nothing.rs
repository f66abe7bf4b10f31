//! Masters with an IPv4 and an IPv6 address, and IPv4 of one of them is lost: that path alone is silent. What uses it is
//! cut, new connections take the other one, and the master stays Up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;
use trivet_crds::wire::Document;
use trivet_testbed::{Family, Fault};
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, POOL};
use trivet_tests::observe::{History, Observer};
use trivet_tests::proxies::all_follow;
use trivet_tests::say::say;
use trivet_tests::silence::{Witness, publish, silence};

/// docs/testbed.md, F22: as F2, with what it takes to measure it.
const CUT: Duration = Duration::from_secs(3);

/// A kubelet renews every 10 s; one whose connection is cut, within 3 s more.
const LEASE: Duration = Duration::from_secs(13);

/// Every Lease is due once at least.
const LASTS: Duration = Duration::from_secs(12);

/// From an edit to every proxy; no promise, only the limit of this test.
const FOLLOWED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_dual_stack_master_that_loses_ipv4_stays_up_by_ipv6() -> Result<()> {
    let installation = Installation::protecting().await?;
    let masters = installation.other_masters();
    let master = masters.first().context("there is only one master")?;
    let measured = measure(&installation, master).await;
    // Whatever was seen: the next scenario needs the pool.
    installation.reset_pool().await?;
    let (witnesses, history) = measured?;

    publish(&witnesses);
    for witness in &witnesses {
        witness.lost_one_address_within(CUT)?;
        witness.lost_no_new_connection()?;
        witness.spared_the_others()?;
        let gap = history.worst_lease_gap(&witness.worker);
        say(format!(
            "{}: oldest Lease {:.1} s",
            witness.worker,
            gap.as_secs_f32()
        ));
        ensure!(
            gap <= LEASE,
            "{} did not renew its Lease for {gap:?}",
            witness.worker
        );
        ensure!(
            history.left_ready(&witness.worker).is_none(),
            "{} left Ready",
            witness.worker
        );
    }
    installation.nodes_ready().await
}

async fn measure(installation: &Installation, master: &str) -> Result<(Vec<Witness>, History)> {
    give_both_addresses(installation).await?;
    let observer = Observer::start(installation.kubernetes("cp1").await?).await?;
    let faults = vec![(master.to_owned(), Fault::BlackholeFamily(Family::Ipv4))];
    let witnesses = silence(installation, master, faults, async {
        sleep(LASTS).await;
        Ok(())
    })
    .await?;
    Ok((witnesses, observer.finish()))
}

/// Lists every master with both of its addresses, IPv4 first, and waits until every proxy has proven them.
async fn give_both_addresses(installation: &Installation) -> Result<()> {
    let mut documents = Documents::watch(installation.kubernetes("cp1").await?);
    let masters = installation.cluster().masters();
    let members = masters.iter().map(|master| {
        json!({ "name": master.name().to_string(), "addresses": [master.ipv4().to_string(), master.ipv6().to_string()] })
    });
    let patch = Patch::Merge(json!({ "spec": { "members": members.collect::<Vec<_>>() } }));
    let pools = installation.pools("cp1").await?;
    pools.patch(POOL, &PatchParams::default(), &patch).await?;
    let both = |document: &Document| document.members.iter().all(|member| member.addresses.len() == 2);
    let published = documents.until(FOLLOWED, both).await?;
    all_follow(&installation.hosts(), published.document.revision, FOLLOWED).await?;
    installation.proxies_settled().await
}
