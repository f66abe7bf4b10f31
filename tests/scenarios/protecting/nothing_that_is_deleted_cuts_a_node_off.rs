//! The operator, the pool, the CRD, the release: whatever goes, the proxies go on, and what comes back adopts them.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use trivet_instruments::Attempts;
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::{CRDS, EMPTY_POOL, Installation, NAMESPACE, RELEASE};
use trivet_tests::observe::Observer;
use trivet_tests::pods::{Proxies, assert_untouched};
use trivet_tests::say::say;

/// Longer than a Lease's period, so that a node that was cut off is late.
const PAUSE: Duration = Duration::from_secs(16);

/// What watches over the workers while something is deleted.
struct Vigil {
    observer: Observer,
    attempts: Vec<(Host, Attempts)>,
    proxies: Proxies,
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_crd_and_release_may_be_deleted_and_what_comes_back_adopts_the_proxies() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let vigil = Vigil::start(&installation).await?;
    let tools = installation.tools();

    tools.kubectl("delete asp default --wait").await?;
    say("the pool is deleted");
    sleep(PAUSE).await;
    tools.apply(EMPTY_POOL).await?;
    installation.pool_ready().await?;
    assert_untouched(&vigil.proxies, &installation.proxies("cp1").await?)?;

    tools
        .kubectl("delete crd apiserverpools.trivet.dev --wait")
        .await?;
    say("the CRD is deleted, and the pool with it");
    sleep(PAUSE).await;
    tools.kubectl(&format!("apply --filename {CRDS}")).await?;
    tools
        .kubectl("wait --for=condition=Established crd/apiserverpools.trivet.dev --timeout=30s")
        .await?;
    tools.apply(EMPTY_POOL).await?;
    installation.pool_ready().await?;
    assert_untouched(&vigil.proxies, &installation.proxies("cp1").await?)?;

    tools
        .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE} --wait"))
        .await?;
    say("the release is uninstalled: there is no operator");
    sleep(PAUSE).await;
    tools.kubectl("delete asp default --wait").await?;
    installation.install().await?;
    tools.apply(EMPTY_POOL).await?;
    installation.pool_ready().await?;

    vigil.nothing_happened(&installation).await
}

impl Vigil {
    async fn start(installation: &Installation) -> Result<Self> {
        let client = installation.client()?;
        let workers = installation.workers().into_iter().zip(LOOPBACKS);
        Ok(Self {
            observer: Observer::start(installation.kubernetes("cp1").await?).await?,
            attempts: workers
                .map(|(worker, to)| (worker.clone(), attempts::start(&worker, &client, to, 20)))
                .collect(),
            proxies: installation.proxies("cp1").await?,
        })
    }

    async fn nothing_happened(self, installation: &Installation) -> Result<()> {
        let history = self.observer.finish();
        for (worker, attempts) in self.attempts {
            let (name, record) = (worker.name().to_string(), attempts.finish().await?);
            let (failed, gap) = (record.failed(), history.worst_lease_gap(&name));
            say(format!(
                "{name}: {} of {} connections failed, oldest Lease {:.1} s in {:.0} s",
                failed.len(),
                record.attempts().len(),
                gap.as_secs_f32(),
                history.length().as_secs_f32()
            ));
            record.all_succeeded(&name)?;
            ensure!(
                gap <= Duration::from_secs(15),
                "{name} did not renew its Lease for {gap:?}"
            );
            ensure!(history.left_ready(&name).is_none(), "{name} left Ready");
        }
        assert_untouched(&self.proxies, &installation.proxies("cp1").await?)
    }
}
