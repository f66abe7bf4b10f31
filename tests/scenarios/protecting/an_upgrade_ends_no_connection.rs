//! All proxies are upgraded three times in a row while downloads, uploads, watches, `kubectl exec`, `logs` and
//! `port-forward` go on through those of the workers: each goes on, and none of them notices.

use anyhow::Result;
use trivet_tests::upgrades::end_no_connection;

/// With bytes at full speed each takes half a minute.
const UPGRADES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn three_upgrades_end_no_connection() -> Result<()> {
    end_no_connection(UPGRADES).await
}
