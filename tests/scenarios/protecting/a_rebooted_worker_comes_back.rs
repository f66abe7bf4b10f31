//! A worker whose kubelet has no way to the API but its node's proxy, and that loses power.

use anyhow::Result;
use trivet_tests::installation::Installation;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not yet: after a reboot kubelet learns of its proxy's pod only from the API, which it can only reach \
            through that pod; nodeBootstrap.policy StaticPod will close this gap"]
async fn a_worker_that_reboots_is_ready_again_by_itself() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.disturb(|cluster| cluster.reboot(&["w1"])).await?;
    installation.nodes_ready().await
}
