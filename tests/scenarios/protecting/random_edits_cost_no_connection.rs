//! Random edits, right and wrong, follow each other as fast as they settle while clients of two nodes connect: none of them
//! costs a connection, and after each of them every node has a member to use.

use anyhow::Result;
use trivet_tests::edits::cost_no_connection;

/// Each kind of edit is among them several times. They take three quarters of a minute.
const EDITS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_random_edits_cost_no_connection() -> Result<()> {
    cost_no_connection(EDITS).await
}
