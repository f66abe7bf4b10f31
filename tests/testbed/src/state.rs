//! The state file of a testbed: which hosts it has, where its programs are, and whether it was ever complete.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::address::HostName;
use crate::binaries::Binaries;
use crate::progress::Progress;

/// Everything that the testbed keeps on disk; `down` removes it whole.
pub(crate) const DIRECTORY: &str = "/var/lib/trivet-testbed";

const FILE: &str = "/var/lib/trivet-testbed/testbed.json";

/// The lock file, outside of the directory that it guards.
const LOCK: &str = "/run/trivet-testbed.lock";

/// The description of a testbed on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) hosts: Vec<HostName>,
    /// The masters whose etcds have formed the cluster. One that joins later starts its etcd with other flags.
    pub(crate) founders: Vec<HostName>,
    pub(crate) programs: Programs,
    /// As `v1.34.4`.
    pub(crate) kubernetes_version: String,
    /// Whether all hosts have been ready once. Such a testbed is repaired, and any other is started again from nothing.
    pub(crate) complete: bool,
    /// Directories of the machine that the testbed has created as mount points.
    pub(crate) mount_points: Vec<PathBuf>,
}

/// The directories of the programs that the cluster was started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Programs {
    pub(crate) kubernetes: PathBuf,
    pub(crate) etcd: PathBuf,
    pub(crate) helm: PathBuf,
}

impl From<Binaries> for Programs {
    fn from(binaries: Binaries) -> Self {
        let Binaries {
            kubernetes,
            etcd,
            helm,
        } = binaries;
        Self {
            kubernetes,
            etcd,
            helm,
        }
    }
}

impl State {
    /// Reads the state, if there is a testbed.
    pub(crate) fn find() -> Result<Option<Self>> {
        match fs::read_to_string(FILE) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("failed to understand {FILE}: `down` starts afresh")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {FILE}")),
        }
    }

    /// Writes the state atomically.
    pub(crate) fn save(&self) -> Result<()> {
        let failed = || format!("failed to write {FILE}");
        let partial = format!("{FILE}.new");
        fs::create_dir_all(DIRECTORY).with_context(failed)?;
        fs::write(&partial, serde_json::to_vec_pretty(self)?).with_context(failed)?;
        fs::rename(&partial, FILE).with_context(failed)
    }

    pub(crate) fn masters(&self) -> impl Iterator<Item = HostName> {
        self.hosts.iter().copied().filter(|host| host.is_master())
    }
}

/// The directory with a host's own files, laid out as the host sees them.
pub(crate) fn files(host: HostName) -> PathBuf {
    Path::new(DIRECTORY).join("hosts").join(host.to_string())
}

/// Held by a command that changes which hosts there are or what they run.
pub(crate) struct Lock {
    file: Flock<File>,
}

impl Lock {
    /// Waits until the commands that hold the lock end.
    pub(crate) fn take(progress: &Progress) -> Result<Self> {
        loop {
            let open = || {
                File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(LOCK)
            };
            let file = open().with_context(|| format!("failed to open {LOCK}: are you root?"))?;
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                    progress.step("waiting for another testbed command to end");
                    match Flock::lock(file, FlockArg::LockExclusive) {
                        Ok(file) => file,
                        Err((_, error)) => bail!("failed to lock {LOCK}: {error}"),
                    }
                }
                Err((_, error)) => bail!("failed to lock {LOCK}: {error}"),
            };
            let lock = Self { file };
            if lock.is_current() {
                return Ok(lock);
            }
        }
    }

    /// Releases the lock and removes its file.
    pub(crate) fn remove(self) -> Result<()> {
        let removed = fs::remove_file(LOCK).with_context(|| format!("failed to remove {LOCK}"));
        // Unlocked only now: a process that waits for the lock sees that the file is gone, and creates a new one.
        drop(self.file);
        removed
    }

    /// Whether the locked file is still the one at its path: the process that held the lock before may have removed it.
    fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::metadata(LOCK)) {
            (Ok(ours), Ok(current)) => ours.ino() == current.ino() && ours.dev() == current.dev(),
            (_, _) => false,
        }
    }
}
