//! Connections of this node that another process than the one that reports has: one that hands them over, that ends, or that
//! hangs.
//!
//! Each process of a node and pool tells its connections in a file of its own in the directory in which they meet, and holds
//! the lock of that file for as long as it lives. The one that serves reads the files of the living ones, and removes those
//! of the dead. A file and no message, because a process that drains has left the hand-over.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::listener::Listeners;

/// How the names of the files begin.
const PREFIX: &str = "connections-";

/// How the name of one begins that is not locked yet.
const TEMPORARY: &str = ".connections-";

/// The pause between two looks at this process's connections. A report looks as often, so it is at most two seconds behind.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest file that is read: more paths than a process ever has.
const LONGEST: u64 = 256 * 1024;

/// Connections over one path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    /// The member.
    pub(super) member: String,
    /// IP and port.
    pub(super) address: String,
    /// How many.
    pub(super) connections: u64,
    /// Whether they are those of an extra listener, to another port than the apiserver's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_of_extra: bool,
}

/// The connections of this process, with those of extra listeners or only those.
pub(super) fn held(listeners: &Listeners, of_apiservers: bool) -> Vec<Held> {
    let all = listeners.all_upstreams().into_iter();
    let told = all.filter(|upstreams| of_apiservers || upstreams.listener_name().is_some());
    let held: BTreeSet<_> = told
        .flat_map(|upstreams| {
            let is_of_extra = upstreams.listener_name().is_some();
            let views = upstreams.view().into_iter();
            views.filter(|view| view.connections > 0).map(move |view| Held {
                member: view.key.member,
                address: view.key.address.to_string(),
                connections: u64::try_from(view.connections).unwrap_or(u64::MAX),
                is_of_extra,
            })
        })
        .collect();
    held.into_iter().collect()
}

/// What this process tells. The file goes with it.
#[derive(Debug)]
struct Told {
    path: PathBuf,
    file: File,
    last: String,
}

impl Told {
    /// A file that no other process takes for one of a dead process.
    fn open(directory: &Path, name: &str) -> io::Result<Self> {
        let temporary = directory.join(format!("{TEMPORARY}{name}"));
        let path = directory.join(format!("{PREFIX}{name}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&temporary)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&temporary, &path)?;
        Ok(Self {
            path,
            file,
            last: String::new(),
        })
    }

    fn tell(&mut self, held: &[Held]) -> io::Result<()> {
        let text = serde_json::to_string(held)? + "\n";
        if text != self.last {
            // One write, so that a reader sees this line or the one before; what is left of that one is behind the line's end.
            self.file.write_all_at(text.as_bytes(), 0)?;
            self.last = text;
        }
        Ok(())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // The one that serves removes what stays.
        let _removed = fs::remove_file(&self.path);
    }
}

/// The name of this process among those of its node.
pub fn own_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Tells the connections of this process, without end.
pub async fn tell(directory: PathBuf, name: String, listeners: Arc<Listeners>) {
    let mut told = None;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // Another process may have replaced the directory, and nobody reads a file that is in none.
        if told.as_ref().is_some_and(|told: &Told| !told.path.exists()) {
            told = None;
        }
        if told.is_none() {
            told = Told::open(&directory, &name)
                .inspect_err(|error| debug!(%error, "failed to tell the connections of this process"))
                .ok();
        }
        let held = held(&listeners, true);
        if let Some(Err(error)) = told.as_mut().map(|told| told.tell(&held)) {
            debug!(%error, "failed to tell the connections of this process");
            told = None;
        }
    }
}

/// What the other living processes tell. Removes the files of dead ones.
pub(super) fn read(directory: &Path, own: &str) -> io::Result<Vec<Held>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(directory) {
        // No process of this node has been able to make it: none hands anything over.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if process != own {
            all.extend(told_in(&entry.path())?);
        }
    }
    Ok(all)
}

fn told_in(path: &Path) -> io::Result<Vec<Held>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        // Its process has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            fs::remove_file(path)?;
            Ok(Vec::new())
        }
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.take(LONGEST).read_to_string(&mut text)?;
            let line = text.lines().next().unwrap_or("[]");
            Ok(serde_json::from_str(line)?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(member: &str, connections: u64) -> Held {
        Held {
            is_of_extra: false,
            member: member.to_owned(),
            address: "10.0.0.1:6443".to_owned(),
            connections,
        }
    }

    #[test]
    fn the_living_ones_are_read_and_the_dead_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let read = || read(directory.path(), "own").unwrap();
        let mut own = Told::open(directory.path(), "own").unwrap();
        own.tell(&[held("cp9", 1)]).unwrap();
        assert_eq!(read(), []);

        let mut other = Told::open(directory.path(), "other").unwrap();
        assert_eq!(read(), [], "it has told nothing yet");
        other.tell(&[held("cp1", 12_345), held("cp2", 1)]).unwrap();
        assert_eq!(read(), [held("cp1", 12_345), held("cp2", 1)]);
        other.tell(&[held("cp1", 1)]).unwrap();
        assert_eq!(read(), [held("cp1", 1)], "a shorter line replaces a longer one");
        other.tell(&[]).unwrap();
        assert_eq!(read(), []);

        // One that was killed: the kernel closes its file, and nobody removes it.
        other.tell(&[held("cp1", 7)]).unwrap();
        let (path, lock) = (other.path.clone(), other.file.try_clone().unwrap());
        std::mem::forget(other);
        assert_eq!(read(), [held("cp1", 7)]);
        flock(&lock, FlockOperation::Unlock).unwrap();
        assert_eq!(read(), []);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_ends_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        drop(Told::open(directory.path(), "one").unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_no_process_could_make_the_directory_none_is_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(&directory.path().join("none"), "own").unwrap(), []);
    }
}
