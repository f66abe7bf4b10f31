//! Running a client in a network namespace: on a thread of its own, whose sockets are those of the namespace.
//!
//! A network namespace belongs to a thread, so neither a child process nor a program of ours in it is needed, and an
//! attempt costs no fork.

use std::fs::File;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Runs what `work` returns in the network namespace at `path`, that of `name`, and gives back its answer.
///
/// The work goes on if the caller stops waiting; work without an end must be told to stop by other means.
pub async fn inside<T, F>(path: &Path, name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let network = File::open(path)
        .with_context(|| format!("failed to open {}, the network of {name}", path.display()))?;
    let (done, answer) = oneshot::channel();
    let body = move || {
        let outcome = enter(&network).map(|runtime| runtime.block_on(work()));
        // The caller may have stopped waiting; then the answer is not needed.
        drop(done.send(outcome));
    };
    thread::Builder::new()
        .name(format!("in {name}"))
        .spawn(body)
        .with_context(|| format!("failed to start a thread for {name}"))?;
    answer
        .await
        .with_context(|| format!("the work in the network of {name} panicked"))?
}

/// Moves the calling thread, and with it all sockets it will make, to another network.
fn enter(network: &File) -> Result<Runtime> {
    setns(network, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace: are you root?")?;
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime in a network namespace")
}
