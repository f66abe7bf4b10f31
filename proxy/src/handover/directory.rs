//! The directory in which the proxies of a pool on a node meet. It holds the lock and the socket on which the lock's holder
//! serves its peers.
//!
//! Only the directory's owner may use it, because a process that reaches the socket can take the lock. A name in it never
//! depends on the process id, which is 1 in every pod.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use rustix::fs::OFlags;

use super::{
    channel::{self, Channel, PeerSocket},
    lock::{self, Lock, identity},
};

/// The name of the socket.
const SOCKET: &str = "socket";

/// The name of the lock.
const LOCK: &str = "lock";

/// How the name of a socket begins that is not in its place yet.
const TEMPORARY: &str = ".socket.";

/// A failure with the directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made, opened or changed.
    #[error("failed to use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another user owns it.
    #[error("the directory {} belongs to uid {owner}, and this process is uid {own}", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        own: u32,
    },
    /// It was removed and is still mounted here, so that nothing can be made in it.
    #[error("the directory {} was removed from the node and is still mounted here", path.display())]
    Removed {
        /// The directory.
        path: PathBuf,
    },
    /// The socket in it cannot be used.
    #[error("failed to use the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: channel::Error,
    },
}

/// Whether the directory is still the one at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Current,
    /// Another one is there, which other processes may use.
    Replaced,
    /// It was removed. A process that has it as a mount cannot make it anew.
    Removed,
}

/// The directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    opened: File,
}

impl Directory {
    /// Opens the directory, which is made if there is none, with its parents. Nobody else may use it afterwards.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failure = |source| Error::Directory {
            path: path.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(failure)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let opened = options.open(path).map_err(failure)?;
        let directory = opened.metadata().map_err(failure)?;
        let own = geteuid().as_raw();
        if directory.uid() != own {
            return Err(Error::ForeignOwner {
                path: path.to_owned(),
                owner: directory.uid(),
                own,
            });
        }
        if directory.nlink() == 0 {
            return Err(Error::Removed {
                path: path.to_owned(),
            });
        }
        // Kubelet makes a hostPath for everybody to read.
        if directory.mode() & 0o777 != 0o700 {
            opened
                .set_permissions(Permissions::from_mode(0o700))
                .map_err(failure)?;
        }
        Ok(Self {
            path: path.to_owned(),
            opened,
        })
    }

    /// Whether the path still names this directory.
    pub fn presence(&self) -> Result<Presence, Error> {
        let failure = |source| self.failure(source);
        let opened = self.opened.metadata().map_err(failure)?;
        match self.path.metadata() {
            Ok(named) if identity(&named) != identity(&opened) => Ok(Presence::Replaced),
            Ok(_same) if opened.nlink() > 0 => Ok(Presence::Current),
            Ok(_mounted) => Ok(Presence::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Presence::Removed),
            Err(error) => Err(failure(error)),
        }
    }

    /// The path of the lock, for [`Lock::receive`].
    pub fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// Takes the lock; none if another process holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, lock::Error> {
        Lock::try_take(&self.lock_path())
    }

    /// Listens on the socket, in place of one that is there: only who has the lock may do so, so that one is of a process
    /// that has ended or given. There is no moment without a socket, because the new one is bound to a name of its own and
    /// renamed.
    pub fn bind(&self) -> Result<BoundSocket, Error> {
        let socket = self.path.join(SOCKET);
        let temporary = self
            .path
            .join(format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
        let peers = PeerSocket::bind(&temporary).map_err(|source| Error::Socket {
            path: socket.clone(),
            source,
        })?;
        let named = fs::symlink_metadata(&temporary).and_then(|file| {
            fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
            fs::rename(&temporary, &socket)?;
            Ok(identity(&file))
        });
        // What a process left here that ended before its rename.
        self.remove_temporaries();
        Ok(BoundSocket {
            peers,
            identity: named.map_err(|source| self.failure(source))?,
            path: socket,
        })
    }

    /// Connects to the holder of the lock; none if nobody listens on the socket.
    pub fn connect(&self) -> Result<Option<Channel>, Error> {
        connect(&self.path)
    }

    fn remove_temporaries(&self) {
        let names = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in names {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes())
            {
                // A name that stays costs an inode, until the next bind.
                let _removed = fs::remove_file(entry.path());
            }
        }
    }

    fn failure(&self, source: io::Error) -> Error {
        Error::Directory {
            path: self.path.clone(),
            source,
        }
    }
}

/// Connects to the holder of the lock in a directory, which is neither made nor changed; none if nobody listens there.
pub fn connect(directory: &Path) -> Result<Option<Channel>, Error> {
    let path = directory.join(SOCKET);
    Channel::connect(&path).map_err(|source| Error::Socket { path, source })
}

/// The socket in its place. Its drop leaves the name: the next holder renames its own socket onto it, and removing it
/// could hit that one.
#[derive(Debug)]
pub struct BoundSocket {
    peers: PeerSocket,
    path: PathBuf,
    identity: (u64, u64),
}

impl BoundSocket {
    /// Waits for the next peer.
    pub async fn accept(&self) -> Result<Channel, Error> {
        self.peers.accept().await.map_err(|source| Error::Socket {
            path: self.path.clone(),
            source,
        })
    }

    /// Whether a peer that connects comes here. If not, somebody has removed or replaced the name.
    pub fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|named| identity(&named) == self.identity)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::AsRawFd,
            unix::fs::{FileTypeExt, chown, symlink},
        },
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;
    use crate::handover::{channel::Received, record::Message};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Sends a message over a new connection to the directory's socket, and receives it there.
    async fn reaches(directory: &Directory, socket: &BoundSocket) {
        let client = directory.connect().unwrap().unwrap();
        client.send(&Message::Leaving, &[]).unwrap();
        let received = socket.accept().await.unwrap().receive().await.unwrap();
        assert!(matches!(received, Received::Record(_)), "{received:?}");
    }

    #[test]
    fn it_is_made_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run/pool");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(directory.presence().unwrap(), Presence::Current);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Directory::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn one_of_another_user_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("pool");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        chown(&path, Some(65534), None).unwrap();
        let refused = Directory::open(&path).unwrap_err();
        assert!(
            matches!(refused, Error::ForeignOwner { owner: 65534, .. }),
            "{refused:?}"
        );
        assert_eq!(mode(&path), 0o777);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let link = parent.path().join("link");
        symlink(parent.path(), &link).unwrap();
        for path in [file.join("below"), file, link] {
            let refused = Directory::open(&path).unwrap_err();
            assert!(matches!(refused, Error::Directory { .. }), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_of_a_dead_process_is_replaced() {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::open(path.path()).unwrap();
        assert!(directory.connect().unwrap().is_none());
        drop(directory.bind().unwrap());
        assert_eq!(names(path.path()), ["socket"]);
        assert!(directory.connect().unwrap().is_none());
        // A process that ended before its rename.
        fs::write(path.path().join(".socket.0123456789abcdef"), "").unwrap();
        let socket = directory.bind().unwrap();
        reaches(&directory, &socket).await;
        assert_eq!(names(path.path()), ["socket"]);
        let file = fs::metadata(path.path().join(SOCKET)).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_next_holder_takes_the_name_and_the_end_of_the_former_does_not_remove_it() {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::open(path.path()).unwrap();
        let giver = directory.bind().unwrap();
        assert!(giver.is_current());
        let taker = directory.bind().unwrap();
        assert!(!giver.is_current());
        drop(giver);
        assert!(taker.is_current());
        reaches(&directory, &taker).await;
    }

    #[tokio::test]
    async fn there_is_no_moment_without_a_socket_while_it_is_replaced() {
        let path = tempfile::tempdir().unwrap();
        let mut holders = vec![Directory::open(path.path()).unwrap().bind().unwrap()];
        let is_done = Arc::new(AtomicBool::new(false));
        let (peers, until) = (Directory::open(path.path()).unwrap(), Arc::clone(&is_done));
        let connecting = tokio::task::spawn_blocking(move || {
            while !until.load(Ordering::Relaxed) {
                match peers.connect() {
                    Ok(Some(_peer)) => {}
                    // Nobody accepts here, and the queue of connections may be full.
                    Err(Error::Socket {
                        source: channel::Error::NotAccepting,
                        ..
                    }) => {}
                    missed => panic!("{missed:?}"),
                }
            }
        });
        for _holder in 0..100 {
            holders.push(Directory::open(path.path()).unwrap().bind().unwrap());
            tokio::task::yield_now().await;
        }
        is_done.store(true, Ordering::Relaxed);
        connecting.await.unwrap();
    }

    #[tokio::test]
    async fn a_removed_name_is_noticed_and_can_be_made_again() {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::open(path.path()).unwrap();
        let socket = directory.bind().unwrap();
        fs::remove_file(path.path().join(SOCKET)).unwrap();
        assert!(!socket.is_current());
        assert!(directory.connect().unwrap().is_none());
        assert_eq!(directory.presence().unwrap(), Presence::Current);
        reaches(&directory, &directory.bind().unwrap()).await;
    }

    #[tokio::test]
    async fn a_directory_that_was_removed_or_replaced_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("pool");
        let removed = Directory::open(&path).unwrap();
        let lock = removed.try_lock().unwrap().unwrap();
        let socket = removed.bind().unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(removed.presence().unwrap(), Presence::Removed);
        let new = Directory::open(&path).unwrap();
        assert_eq!(removed.presence().unwrap(), Presence::Replaced);
        assert_eq!(new.presence().unwrap(), Presence::Current);
        assert!(!lock.is_current().unwrap() && !socket.is_current());
        assert!(new.connect().unwrap().is_none());
        assert!(
            new.try_lock().unwrap().is_some(),
            "another lock than the removed one"
        );
    }

    /// A mount keeps a removed directory in place. So does the link to an open file in /proc, without the right to mount.
    #[test]
    fn a_removed_directory_that_is_still_mounted_is_told_from_one_that_is_there() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("pool");
        Directory::open(&path).unwrap();
        let mount = File::open(&path).unwrap();
        let mounted = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
        let directory = Directory::open(&mounted).unwrap();
        assert_eq!(directory.presence().unwrap(), Presence::Current);
        fs::remove_dir(&path).unwrap();
        assert_eq!(directory.presence().unwrap(), Presence::Removed);
        let refused = Directory::open(&mounted).unwrap_err();
        assert!(matches!(refused, Error::Removed { .. }), "{refused:?}");
    }

    #[test]
    fn one_process_has_its_lock() {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::open(path.path()).unwrap();
        let lock = directory.try_lock().unwrap().unwrap();
        assert!(directory.try_lock().unwrap().is_none());
        Lock::receive(lock.duplicate().unwrap(), &directory.lock_path()).unwrap();
        assert_eq!(names(path.path()), ["lock"]);
        assert_eq!(mode(&directory.lock_path()), 0o600);
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("x".repeat(120));
        let directory = Directory::open(&path).unwrap();
        assert!(matches!(directory.connect().unwrap_err(), Error::Socket { .. }));
    }
}
