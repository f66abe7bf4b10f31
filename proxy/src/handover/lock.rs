//! The lock of a pool on a node: who holds it accepts.
//!
//! It is a `flock(2)`, which belongs to the open file and not to a process. A duplicate that another process has received
//! holds the same lock, and so does one that is still in the queue of a unix socket. The kernel releases the lock when
//! the last duplicate is closed, at the latest when its process ends. Nothing here calls `LOCK_UN`: it would release the
//! lock under every other duplicate, which is why `nix::fcntl::Flock` is not used.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::net::spare;

/// A failure with the lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, locked or looked at.
    #[error("failed to use the lock {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A received descriptor is another file than the one at the path, because the directory was replaced.
    #[error("received another file than the lock {}", path.display())]
    OtherFile {
        /// The path of the lock.
        path: PathBuf,
    },
    /// A received descriptor is the right file, and another open file holds the lock.
    #[error("received a descriptor that does not hold the lock {}", path.display())]
    NotHeld {
        /// The path of the lock.
        path: PathBuf,
    },
}

/// The lock, held. Its drop closes this duplicate only.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of this file, which is made if there is none; none if another process holds it.
    pub fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(path).map_err(|error| failure(path, error))?;
        let lock = Self {
            file,
            path: path.to_owned(),
        };
        // Between the two calls the file may have been replaced: a process that opens the path now locks another file.
        Ok((lock.lock()? && lock.is_current()?).then_some(lock))
    }

    /// The lock of a descriptor that its giver sent.
    pub fn receive(descriptor: OwnedFd, path: &Path) -> Result<Self, Error> {
        let lock = Self {
            file: descriptor.into(),
            path: path.to_owned(),
        };
        let path = || path.to_owned();
        if !lock.is_current()? {
            return Err(Error::OtherFile { path: path() });
        }
        // The kernel grants the lock again to an open file that holds it, and refuses it to every other one.
        if lock.lock()? {
            Ok(lock)
        } else {
            Err(Error::NotHeld { path: path() })
        }
    }

    /// A descriptor that holds the same lock, to be sent.
    pub fn duplicate(&self) -> Result<OwnedFd, Error> {
        let duplicate = spare::with(|| self.file.try_clone()).map_err(|error| self.failure(error))?;
        Ok(duplicate.into())
    }

    /// Whether the path still names the locked file. If not, another process can take the lock that is there now.
    pub fn is_current(&self) -> Result<bool, Error> {
        let held = self.file.metadata().map_err(|error| self.failure(error))?;
        match self.path.metadata() {
            Ok(named) => Ok(identity(&held) == identity(&named)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn lock(&self) -> Result<bool, Error> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(self.failure(error.into())),
        }
    }

    fn failure(&self, source: io::Error) -> Error {
        failure(&self.path, source)
    }
}

fn failure(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

/// What two names of one file have in common.
pub(super) fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd, process::Stdio, thread, time::Duration};

    use rustix::io::{FdFlags, fcntl_getfd};
    use tokio::time::Instant;

    use super::*;
    use crate::handover::{
        channel::{
            Received, Record,
            tests::{own_directory, own_process, pair},
        },
        record::Message,
    };

    /// Takes the lock once it is free. A process that another test starts may hold a duplicate for a moment: until it
    /// runs its program it has all files of this one.
    fn once_free(path: &Path) -> Lock {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(lock) = Lock::try_take(path).unwrap() {
                return lock;
            }
            assert!(Instant::now() < deadline, "still locked");
            thread::yield_now();
        }
    }

    fn is_held(path: &Path) -> bool {
        Lock::try_take(path).unwrap().is_none()
    }

    const COMMIT: Message = Message::Commit { take: 1 };

    #[test]
    fn one_holds_it_and_its_end_frees_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(is_held(&path));
        drop(lock);
        once_free(&path);
    }

    #[tokio::test]
    async fn a_lock_on_its_way_outlives_its_sender_and_ends_with_the_receivers_end_unread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let (giver, taker) = pair();
        let lock = Lock::try_take(&path).unwrap().unwrap();
        giver.send(&COMMIT, &[lock.duplicate().unwrap().as_fd()]).unwrap();
        drop(lock);
        assert!(is_held(&path));
        drop(giver);
        assert!(is_held(&path));
        drop(taker);
        once_free(&path);
    }

    #[tokio::test]
    async fn a_received_lock_is_the_same_and_stays_when_the_giver_closes_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let (giver, taker) = pair();
        let lock = Lock::try_take(&path).unwrap().unwrap();
        giver.send(&COMMIT, &[lock.duplicate().unwrap().as_fd()]).unwrap();
        let Received::Record(Record { mut descriptors, .. }) = taker.receive().await.unwrap() else {
            panic!("no record");
        };
        let received = Lock::receive(descriptors.pop().unwrap(), &path).unwrap();
        drop((lock, giver));
        assert!(is_held(&path));
        assert!(fcntl_getfd(&received.file).unwrap().contains(FdFlags::CLOEXEC));
        // It can be given on.
        let given_on = Lock::receive(received.duplicate().unwrap(), &path).unwrap();
        drop(received);
        assert!(is_held(&path));
        drop(given_on);
        once_free(&path);
    }

    #[test]
    fn a_descriptor_that_does_not_hold_the_lock_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        let another = File::open(&path).unwrap();
        let refused = Lock::receive(another.into(), &path).unwrap_err();
        assert!(matches!(refused, Error::NotHeld { .. }), "{refused:?}");
        let other = tempfile::tempfile().unwrap();
        let refused = Lock::receive(other.into(), &path).unwrap_err();
        assert!(matches!(refused, Error::OtherFile { .. }), "{refused:?}");
        assert!(is_held(&path));
        drop(lock);
        once_free(&path);
    }

    #[test]
    fn a_lock_that_was_removed_or_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let removed = Lock::try_take(&path).unwrap().unwrap();
        assert!(removed.is_current().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!removed.is_current().unwrap());
        let new = Lock::try_take(&path).unwrap().unwrap();
        assert!(new.is_current().unwrap());
        assert!(!removed.is_current().unwrap());
        let refused = Lock::receive(removed.duplicate().unwrap(), &path).unwrap_err();
        assert!(matches!(refused, Error::OtherFile { .. }), "{refused:?}");
        fs::remove_dir_all(directory.path()).unwrap();
        assert!(!new.is_current().unwrap());
        assert!(Lock::try_take(&path).is_err());
    }

    #[test]
    fn of_two_processes_one_has_it_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("count"), "0").unwrap();
        let test = "handover::lock::tests::count_with_the_lock";
        let processes = [(); 2].map(|()| own_process(test, directory.path()).spawn().unwrap());
        for mut process in processes {
            assert!(process.wait().unwrap().success());
        }
        let count = fs::read_to_string(directory.path().join("count")).unwrap();
        assert_eq!(count, (2 * ROUNDS).to_string());
    }

    const ROUNDS: u32 = 200;

    #[test]
    #[ignore = "contends with another process: another test starts both"]
    fn count_with_the_lock() {
        let count = own_directory().join("count");
        for _round in 0..ROUNDS {
            let _lock = once_free(&own_directory().join("lock"));
            let counted: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
            thread::yield_now();
            fs::write(&count, (counted + 1).to_string()).unwrap();
        }
    }

    #[test]
    fn a_process_that_is_killed_leaves_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let test = "handover::lock::tests::hold_the_lock";
        let mut command = own_process(test, directory.path());
        let mut holder = command.stdin(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_held(&path) {
            assert!(Instant::now() < deadline, "the other process takes no lock");
            thread::sleep(Duration::from_millis(5));
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        once_free(&path);
    }

    #[test]
    #[ignore = "holds the lock until it is killed: another test starts it in a process of its own"]
    fn hold_the_lock() {
        let _lock = once_free(&own_directory().join("lock"));
        io::stdin().read_line(&mut String::new()).unwrap();
    }
}
