//! Removes every process, cgroup, link, namespace, mount and file of the testbed from the machine.
//!
//! It looks for what exists and not for what the state file says, so that it also cleans up after a crash.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cgroup::Layout;
use crate::host;
use crate::network;
use crate::preflight;
use crate::progress::{Progress, Stopwatch};
use crate::state::{self, Lock, State};

/// Ends the testbed, in any state. No error if there is none.
pub fn down(progress: &Progress) -> Result<()> {
    preflight::root()?;
    let lock = Lock::take(progress)?;
    let watch = Stopwatch::start();
    if leftovers()?.is_empty() {
        progress.step("there is no testbed");
    } else {
        remove_everything(progress)?;
        progress.done("the testbed is gone", &watch);
    }
    lock.remove()
}

/// Everything of the testbed that is on the machine, for people.
pub(crate) fn leftovers() -> Result<Vec<String>> {
    let mut left = network::leftovers()?;
    if Layout::read()?.exists() {
        left.push("cgroups".to_owned());
    }
    if Path::new(state::DIRECTORY).exists() {
        left.push(state::DIRECTORY.to_owned());
    }
    Ok(left)
}

/// Removes it all. The caller holds the lock.
pub(crate) fn remove_everything(progress: &Progress) -> Result<()> {
    let layout = Layout::read()?;
    progress.step("killing the hosts");
    // The mounts and namespaces of a host go with its last process.
    host::kill_all(&layout, None)?;
    layout.remove(None)?;
    network::remove_all()?;
    // If the state cannot be read, only some empty directories are left.
    let mount_points = State::find()
        .ok()
        .flatten()
        .map(|state| state.mount_points)
        .unwrap_or_default();
    match fs::remove_dir_all(state::DIRECTORY) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to remove {}", state::DIRECTORY));
        }
        _ => {}
    }
    for directory in mount_points.iter().rev() {
        // A directory that is no longer empty stays, because another program uses it.
        drop(fs::remove_dir(directory));
    }
    Ok(())
}
