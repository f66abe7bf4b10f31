//! Holds a pod's namespaces: waits for SIGTERM, and reaps the orphaned processes of the pod's containers.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> Result<(), Errno> {
    // Blocked and received by sigwait: PID 1 does not get signals without a handler.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD]);
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGCHLD {
        reap();
    }
    Ok(())
}

/// Reaps all children that have ended: one SIGCHLD may stand for several.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
