//! Where kubelet's directory of static pods is missing or read-only, the writer of the standby's manifest stops, and nothing
//! else does: the pool names the nodes and what to do, and once that is done the manifests are there by themselves.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use trivet_crds::BOOTSTRAP_LABEL;
use trivet_instruments::eventually;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::node_fault::{NodeFault, lift_all};
use trivet_tests::say::say;
use trivet_tests::steady_clients::SteadyClients;

/// What is wrong with kubelet's directory of static pods, with words by which the pool names it.
const FAULTS: [(&str, NodeFault, &str); 2] = [
    (
        "w1",
        NodeFault::NoManifests,
        "/etc/kubernetes/manifests is not a directory",
    ),
    (
        "w2",
        NodeFault::ManifestsReadOnly,
        "its file system must be writable",
    ),
];

/// A pod starts, and kubelet says why it cannot.
const TOLD: Duration = Duration::from_secs(60);

/// Kubelet starts a container that has failed a few times again after 40 s at most.
const WRITTEN: Duration = Duration::from_secs(90);

/// What a new connection may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_cannot_be_written_is_named() -> Result<()> {
    let installation = Installation::standing_by().await?;
    let clients = SteadyClients::start(&installation)?;
    let outcome = failing_writers_are_named(&installation).await;
    installation
        .disturb(|cluster| cluster.hosts().iter().try_for_each(lift_all))
        .await?;
    outcome?;
    writers_succeed(&installation).await?;
    installation.warm_standbys().await?;
    clients
        .none_was_refused("manifests that cannot be written", LIMIT)
        .await
}

/// Lets two writers write where they cannot.
async fn failing_writers_are_named(installation: &Installation) -> Result<()> {
    installation
        .disturb(|cluster| {
            FAULTS
                .iter()
                .try_for_each(|(node, fault, _)| fault.inject(&cluster.host(node)?))
        })
        .await?;
    let tools = installation.tools();
    let write_again = |(node, ..): (&str, NodeFault, &str)| {
        let delete = format!(
            "delete pods --namespace {NAMESPACE} --selector {BOOTSTRAP_LABEL}={POOL} \
             --field-selector spec.nodeName={node} --grace-period=1"
        );
        let tools = &tools;
        async move { tools.kubectl(&delete).await }
    };
    try_join_all(FAULTS.map(write_again)).await?;
    let told = eventually(TOLD, "the failing writers named", async || {
        let (progressing, available) = told(installation).await?;
        for message in [&progressing, &available] {
            for (node, _, words) in FAULTS {
                ensure!(
                    message.contains(&format!("{node}: ")),
                    "{node} is not in {message}"
                );
                ensure!(message.contains(words), "{words:?} is not in {message}");
            }
        }
        ensure!(progressing.starts_with("False WriterFailing"), "{progressing}");
        ensure!(available.starts_with("True"), "{available}");
        Ok(progressing)
    })
    .await?;
    say(format!("Progressing={told}"));
    Ok(())
}

/// Waits until every manifest is written, and the pool names no node.
async fn writers_succeed(installation: &Installation) -> Result<()> {
    eventually(WRITTEN, "the manifests written", async || {
        let (progressing, available) = told(installation).await?;
        ensure!(progressing.starts_with("True Complete"), "{progressing}");
        for (node, ..) in FAULTS {
            ensure!(!available.contains(node), "{available}");
        }
        Ok(())
    })
    .await
}

/// What the pool says about progress, and about its proxies: status, reason and message.
async fn told(installation: &Installation) -> Result<(String, String)> {
    let status = installation.pool_status().await?;
    let words = |type_| {
        let found = condition(&status, type_)?;
        anyhow::Ok(format!("{} {}: {}", found.status, found.reason, found.message))
    };
    Ok((words("Progressing")?, words("ProxiesAvailable")?))
}
