//! Apiservers that misbehave on command, a proxy before them, and clients.

pub(crate) mod apiserver;
pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod node;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Far beyond what a loaded machine needs, so that only a broken promise fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `check` holds.
pub(crate) async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
