//! Install, upgrade, uninstall and install again, with the CRD from the chart and with one's own: each ends with a
//! pool that serves every node.

use anyhow::{Result, ensure};
use trivet_tests::installation::{CHART, CRDS, EMPTY_POOL, Installation, NAMESPACE, RELEASE};
use trivet_tests::pods::assert_untouched;
use trivet_tests::say::say;

/// The examples that are pools.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

const POOL_VERSION: &str = "get asp default --output jsonpath={.metadata.resourceVersion}";

const CRD_UID: &str = "get crd apiserverpools.trivet.dev --output jsonpath={.metadata.uid}";

#[tokio::test(flavor = "multi_thread")]
async fn helm_alone_installs_upgrades_and_installs_again() -> Result<()> {
    let installation = Installation::bare().await?;
    let tools = installation.tools();
    tools
        .helm(&format!(
            "install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace"
        ))
        .await?;
    serves(&installation, "helm install").await?;
    let before = installation.proxies("cp1").await?;

    tools
        .helm(&format!("upgrade {RELEASE} {CHART} --namespace {NAMESPACE} --set operator.logLevel=debug --wait --timeout 60s"))
        .await?;
    let operator = tools
        .kubectl(&format!(
            "get deployment trivet-operator --namespace {NAMESPACE} --output yaml"
        ))
        .await?;
    ensure!(
        operator.contains("debug"),
        "the changed value is not in the operator's Deployment:\n{operator}"
    );
    serves(&installation, "helm upgrade with a changed value").await?;

    tools
        .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE} --wait"))
        .await?;
    let kept = tools.kubectl("get asp default --output name").await?;
    ensure!(
        kept.contains("default"),
        "uninstalling the release took the pool along: {kept}"
    );
    tools
        .helm(&format!("install {RELEASE} {CHART} --namespace {NAMESPACE}"))
        .await?;
    serves(&installation, "helm install after uninstall").await?;

    // The release once owned a CRD and then meets one of the user's own: helm alone would delete it, as one that the
    // chart no longer has.
    tools
        .kubectl("delete crd apiserverpools.trivet.dev --timeout=60s")
        .await?;
    tools.kubectl(&format!("apply --filename {CRDS}")).await?;
    let own = tools.kubectl(CRD_UID).await?;
    tools
        .helm(&format!(
            "upgrade {RELEASE} {CHART} --namespace {NAMESPACE} --wait --timeout 60s"
        ))
        .await?;
    ensure!(
        tools.kubectl(CRD_UID).await? == own,
        "the upgrade took or replaced the user's own CRD"
    );
    serves(&installation, "helm upgrade over a CRD of one's own").await?;

    assert_untouched(&before, &installation.proxies("cp1").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crd_of_ones_own_is_left_alone_by_the_chart() -> Result<()> {
    let installation = Installation::bare().await?;
    let tools = installation.tools();
    tools.kubectl(&format!("apply --filename {CRDS}")).await?;
    let own = tools.kubectl(CRD_UID).await?;

    tools
        .helm(&format!(
            "install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace"
        ))
        .await?;
    serves(&installation, "kubectl apply -f crds/, then helm install").await?;
    tools
        .helm(&format!("uninstall {RELEASE} --namespace {NAMESPACE} --wait"))
        .await?;

    ensure!(
        tools.kubectl(CRD_UID).await? == own,
        "the release took or replaced a CRD that it does not own"
    );
    Ok(())
}

/// A user and a GitOps tool compare what they wrote with what the API server has: a default that it adds inside of a list
/// would be a difference for ever. No operator runs here, because none is needed.
#[tokio::test(flavor = "multi_thread")]
async fn an_example_that_is_applied_twice_changes_nothing() -> Result<()> {
    let installation = Installation::bare().await?;
    let tools = installation.tools();
    tools.kubectl(&format!("apply --filename {CRDS}")).await?;
    tools
        .kubectl("wait --for=condition=Established crd apiserverpools.trivet.dev --timeout=30s")
        .await?;
    for example in [
        "pool-default",
        "pool-every-field",
        "pool-extra-listeners",
        "pool-members",
        "pool-zones",
    ] {
        let file = format!("{EXAMPLES}/{example}.yaml");
        for mode in ["", "--server-side"] {
            let apply = format!("apply {mode} --filename {file}");
            tools.kubectl(&apply).await?;
            let before = tools.kubectl(POOL_VERSION).await?;
            let said = tools.kubectl(&apply).await?;
            let after = tools.kubectl(POOL_VERSION).await?;
            ensure!(
                before == after && (!mode.is_empty() || said.contains("unchanged")),
                "`kubectl {apply}` changed {example} the second time, from {before} to {after}: {said}"
            );
            // It fails where there is a difference.
            tools.kubectl(&format!("diff {mode} --filename {file}")).await?;
            tools.kubectl("delete asp default --timeout=30s").await?;
        }
        say(format!(
            "{example}: the second apply changes nothing, client-side and server-side"
        ));
    }
    Ok(())
}

async fn serves(installation: &Installation, way: &str) -> Result<()> {
    installation.tools().apply(EMPTY_POOL).await?;
    installation.pool_ready().await?;
    installation.proxies_settled().await?;
    say(format!("{way}: the pool is Ready and every node served"));
    Ok(())
}
