//! A release of the proxy whose program runs and does nothing is taken back as any broken one is.

use anyhow::Result;
use trivet_testbed::images::Broken;
use trivet_tests::broken_releases::{are_taken_back, edit_of_none};
use trivet_tests::installation::Installation;

use crate::FAULTY;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute and more; `cargo xtask soak` runs it"]
async fn a_proxy_that_does_nothing_is_taken_back_from_its_first_node() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let outcome = are_taken_back(&installation, &[Broken::Idles], FAULTY.as_ref()).await;
    installation.edit_pool(edit_of_none()).await?;
    outcome
}
