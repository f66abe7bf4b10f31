//! What a killed proxy costs its node where no standby is there: told, and not promised.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::sleep;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::Installation;
use trivet_tests::say::say;
use trivet_tests::serving::daemon_set_serves;

/// New connections a second.
const RATE: u32 = 50;

/// What begins after the proxy is back is judged for this long.
const AFTERWARDS: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_standby_a_killed_proxy_costs_connections_until_kubelet_starts_it() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let worker = installation.workers().into_iter().next();
    let worker = worker.context("there is no worker")?;
    let clients = attempts::start(&worker, &installation.client()?, LOOPBACKS[0], RATE);
    let pid = daemon_set_serves(&worker).await?;
    worker.signal(pid, Signal::SIGKILL)?;
    daemon_set_serves(&worker).await?;
    sleep(AFTERWARDS).await;
    let record = clients.finish().await?;
    say(format!(
        "{}, without a standby: a killed proxy costs {} of {} new connections, none was served for {:.1} s",
        worker.name(),
        record.failed().len(),
        record.attempts().len(),
        record.longest_gap().as_secs_f32()
    ));
    ensure!(
        !record.failed().is_empty(),
        "nothing was lost: was the proxy killed?"
    );
    Ok(())
}
