//! A thief of the operator's token can place no other pod in kubelet's directory: the API server takes the writer of
//! manifests as the operator renders it, once the chart allows it, and refuses it with each change that matters.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trivet_instruments::eventually;
use trivet_tests::installation::{CHART, Installation, NAMESPACE, RELEASE};
use trivet_tests::tools::Tools;

/// The user of the operator.
const OPERATOR: &str = "system:serviceaccount:trivet-system:trivet-operator";

/// The writer as the operator renders it: the golden files of its tests.
const WRITES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../operator/src/render/snapshots/trivet_operator__render__tests__writer.snap"
));
const REMOVES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../operator/src/render/snapshots/trivet_operator__render__tests__writer_removes.snap"
));
const RESTS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../operator/src/render/snapshots/trivet_operator__render__tests__writer_rests.snap"
));

/// An apiserver enforces a changed policy within a few seconds.
const ENFORCED: Duration = Duration::from_secs(30);

const SHAPE: &str = "only write-manifest or remove-manifest";
const PLACE: &str = "written only into";

/// What is replaced in the writer, by what, and the words of the refusal.
const CHANGES: &[(&str, &str, &str)] = &[
    ("path: /etc/kubernetes/manifests", "path: /etc", PLACE),
    ("type: Directory\n", "type: DirectoryOrCreate\n", PLACE),
    ("--image=trivet.dev", "--image=example.com", SHAPE),
    ("- write-manifest", "- run", SHAPE),
    ("- /trivet-proxy", "- /bin/sh", SHAPE),
    ("- hold", "- run", SHAPE),
    // The program writes into the one file and reads the other.
    (
        "--log-format=text",
        "--termination-log=/manifests/etcd.yaml",
        SHAPE,
    ),
    ("--log-format=text", "--document=/manifests/etcd.yaml", SHAPE),
    ("name: NODE_ZONE", "name: TRIVET_SEED", SHAPE),
    (
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
        SHAPE,
    ),
    ("name: trivet-default-bootstrap", "name: trivet-default", SHAPE),
    ("mountPath: /etc/trivet", "mountPath: /", SHAPE),
    (
        "mountPath: /etc/trivet",
        "mountPath: /etc/trivet\n              subPath: pool.json",
        SHAPE,
    ),
    (
        "trivet.dev/component: bootstrap",
        "trivet.dev/component: other",
        "a proxy mounts only",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn only_the_writer_comes_near_kubelets_directory() -> Result<()> {
    let installation = Installation::serving().await?;
    let tools = installation.tools();
    let refusal = refusal(&tools, WRITES).await?;
    ensure!(refusal.contains("nodeBootstrap.enabled"), "{refusal}");

    let enable = format!(
        "upgrade {RELEASE} {CHART} --namespace {NAMESPACE} --reuse-values --set nodeBootstrap.enabled=true --wait \
         --timeout 120s"
    );
    tools.helm(&enable).await?;
    for writer in [WRITES, REMOVES, RESTS] {
        eventually(ENFORCED, "the writer taken", async || {
            tools.create_as(OPERATOR, object(writer)?).await.map(drop)
        })
        .await?;
    }
    for (from, to, words) in CHANGES {
        let changed = object(WRITES)?.replace(from, to);
        ensure!(changed != object(WRITES)?, "the writer has no {from:?}");
        let refusal = self::refusal(&tools, &changed)
            .await
            .with_context(|| format!("{to:?} instead of {from:?}"))?;
        ensure!(
            refusal.contains(words),
            "{to:?} is refused without {words:?}: {refusal}"
        );
    }
    installation.install().await.map(drop)
}

/// The API server's refusal to let the operator create this.
async fn refusal(tools: &Tools, writer: &str) -> Result<String> {
    let refusal = tools.create_as(OPERATOR, object(writer)?).await.err();
    Ok(format!("{:#}", refusal.context("it is not refused")?))
}

/// The object of a golden file, without what the test's tool writes before it.
fn object(file: &str) -> Result<&str> {
    match file.strip_prefix("---\n") {
        Some(rest) => Ok(rest
            .split_once("\n---\n")
            .context("a golden file without an object")?
            .1),
        None => Ok(file),
    }
}
