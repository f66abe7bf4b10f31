//! Runs a client inside a host: on a thread in the host's network namespace.

use std::path::Path;

use anyhow::{Context, Result};
use trivet_testbed::Host;

/// Runs what `work` returns inside `host` and gives back its answer.
pub async fn inside<T, F>(host: &Host, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let name = host.name().to_string();
    let init = host.init()?.with_context(|| format!("{name} is not up"))?;
    let network = Path::new("/proc").join(init.to_string()).join("ns/net");
    trivet_instruments::inside(&network, &name, work).await
}
