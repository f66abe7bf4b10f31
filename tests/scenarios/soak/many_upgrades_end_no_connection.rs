//! The same connections go on through ten upgrades in a row.

use anyhow::Result;
use trivet_tests::upgrades::end_no_connection;

const UPGRADES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "six minutes; `cargo xtask soak` runs it"]
async fn ten_upgrades_end_no_connection() -> Result<()> {
    end_no_connection(UPGRADES).await
}
