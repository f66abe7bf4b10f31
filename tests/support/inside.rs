//! Runs a client inside a host, on a thread in the host's network namespace, or a script as a process of the host.

use std::path::Path;

use anyhow::{Context, Result, ensure};
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

/// Runs a script in a host, stopping at the first command that fails.
pub fn script(host: &Host, script: &str) -> Result<()> {
    let output = host.exec(["sh", "-euc", script])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {} of: {script}: {said}",
        host.name(),
        output.status
    );
    Ok(())
}
