//! Holds a pod's namespaces: waits until it is told to end, and reaps what the pod's containers leave behind.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> Result<(), Errno> {
    // Blocked and waited for: as PID 1 we would otherwise not even get them.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD]);
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGCHLD {
        reap();
    }
    Ok(())
}

/// One signal may stand for many children.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
