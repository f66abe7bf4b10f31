//! Checks that a machine meets the testbed's requirements; every error names the remedy.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Layout;
use crate::network;

/// The measured memory of the default cluster, images and page tables included, and a reserve for tests.
const NEEDED_MEMORY: u64 = 3 << 30;

/// Fails with the first thing that is missing. Changes nothing.
pub(crate) fn check(hosts: usize) -> Result<()> {
    Layout::read()?;
    memory()?;
    overlay()?;
    inotify(hosts)?;
    network::check_free()
}

/// Fails unless we are root.
pub(crate) fn root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the testbed makes namespaces, mounts and cgroups and must run as root: try again with sudo"
    );
    Ok(())
}

fn memory() -> Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?;
    let available = available(&meminfo).context("/proc/meminfo does not say how much memory is available")?;
    if available < NEEDED_MEMORY {
        bail!(
            "{} MiB of memory are available, and a cluster takes up to {} MiB: stop other programs, or ask for \
             fewer hosts (`--masters 1 --workers 1`) on a machine with more memory",
            available >> 20,
            NEEDED_MEMORY >> 20
        );
    }
    Ok(())
}

/// The programs of a host watch their files; the limit counts for all hosts together, who are all root.
fn inotify(hosts: usize) -> Result<()> {
    const PER_HOST: usize = 16;
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    let limit = fs::read_to_string(LIMIT).with_context(|| format!("failed to read {LIMIT}"))?;
    let limit: usize = limit
        .trim()
        .parse()
        .with_context(|| format!("failed to understand {LIMIT}"))?;
    ensure!(
        limit >= hosts * PER_HOST,
        "this machine lets root watch files {limit} times, and {hosts} hosts do so up to {0} times: \
         `sysctl fs.inotify.max_user_instances={0}`, or ask for fewer hosts",
        hosts * PER_HOST
    );
    Ok(())
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// Containers live on overlayfs on the disk of /var/lib, which can itself not be an overlay.
fn overlay() -> Result<()> {
    let filesystems = fs::read_to_string("/proc/filesystems").context("failed to read /proc/filesystems")?;
    // A module that is not loaded yet is not listed; mounting loads it.
    if !filesystems.contains("overlay") && !Path::new("/lib/modules").exists() {
        bail!("this kernel has no overlayfs, and containers need it");
    }
    let kind = nix::sys::statfs::statfs("/var/lib")
        .context("failed to look at /var/lib")?
        .filesystem_type();
    ensure!(
        kind != nix::sys::statfs::OVERLAYFS_SUPER_MAGIC,
        "/var/lib is on an overlay, and containers cannot be stacked on one: mount a volume on /var/lib"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
