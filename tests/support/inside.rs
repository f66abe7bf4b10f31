//! Running a client inside a host: on a thread of its own, whose sockets are those of the host's network namespace.
//!
//! A network namespace belongs to a thread, so neither a child process nor a program of ours in the host is needed,
//! and an attempt costs no fork.

use std::fs::File;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;
use trivet_testbed::Host;

/// Runs what `work` returns inside `host` and gives back its answer.
///
/// The work goes on if the caller stops waiting; work without an end must be told to stop by other means.
pub async fn inside<T, F>(host: &Host, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let name = host.name();
    let init = host.init()?.with_context(|| format!("{name} is not up"))?;
    let path = format!("/proc/{init}/ns/net");
    let network =
        File::open(&path).with_context(|| format!("failed to open {path}, the network of {name}"))?;
    let (done, answer) = oneshot::channel();
    let body = move || {
        let outcome = enter(&network).map(|runtime| runtime.block_on(work()));
        // Whoever asked may have gone; then nobody misses the answer.
        drop(done.send(outcome));
    };
    thread::Builder::new()
        .name(format!("in {name}"))
        .spawn(body)
        .with_context(|| format!("failed to start a thread for {name}"))?;
    answer
        .await
        .with_context(|| format!("the work inside {name} panicked"))?
}

/// Moves the calling thread, and with it all sockets it will make, to another network.
fn enter(network: &File) -> Result<tokio::runtime::Runtime> {
    setns(network, CloneFlags::CLONE_NEWNET).context("failed to enter a host's network: are you root?")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime inside a host")
}
