//! What goes wrong at the work of the hand-over, and what may succeed at the next attempt.

use std::{io, net::SocketAddr};

use nix::errno::Errno;

use crate::handover::{channel, directory, lent, lock, snapshot};

/// What the kernel says when it or this process has too little of something.
const EXHAUSTED: [Errno; 5] = [
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::ENOBUFS,
    Errno::EAGAIN,
];

/// What goes wrong at work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Lent(#[from] lent::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error("failed to duplicate a descriptor")]
    Duplicate(#[from] io::Error),
    #[error("this process has no lock to give")]
    NoLock,
    #[error("this process does not hold listener {0}")]
    NoListener(SocketAddr),
}

impl Error {
    /// Whether another attempt may succeed: this process has no file or memory left, or the holder is stopped.
    pub(super) fn passes(&self) -> bool {
        if let Self::Directory(directory::Error::Socket { source, .. }) = self
            && matches!(source, channel::Error::NotAccepting)
        {
            return true;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let errno = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            if errno.is_some_and(|errno| EXHAUSTED.contains(&Errno::from_raw(errno))) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}
