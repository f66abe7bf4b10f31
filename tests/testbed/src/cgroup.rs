//! The cgroups of the hosts, on machines with cgroup v1 as well as v2.
//!
//! Each host has one child of `trivet-testbed` in every hierarchy, which is the root of its cgroup namespace. The members
//! of this cgroup are the host's processes, so there are no pid files that could be out of date.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::address::HostName;
use crate::wait;

/// The testbed's cgroup in each hierarchy. It contains all processes of the testbed and no others.
const NAME: &str = "trivet-testbed";

/// On v2 processes live in leaves only, so a host's init, and commands that run in the host, have a separate one.
const LEAF: &str = "init";

/// The share of the CPU of all hosts together, as a multiple of the usual one, which the clients of a scenario have. Clients
/// at full speed took half of the machine from three apiservers, and starved them for seconds.
const SHARE: u64 = 4;

/// What kubelet and runc need of v2. Others are passed on where the machine has them.
const V2_NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// The controllers of v1 as mount options name them.
const V1_CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// How the machine's cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One hierarchy per controller, or per group of them.
    V1(Vec<Hierarchy>),
    /// One tree, mounted here.
    V2(PathBuf),
}

/// A mounted hierarchy of cgroup v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The mount options that name it: `cpu,cpuacct`, or `name=systemd`.
    options: String,
    mountpoint: PathBuf,
}

impl Layout {
    /// Reads the machine's mounts.
    pub(crate) fn read() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
        Self::parse(&mounts).context(
            "no cgroups are mounted under /sys/fs/cgroup, and kubelet and runc need them: \
             boot with them, or run in a container that has them (docker: --privileged --cgroupns=host)",
        )
    }

    /// v1 wins on hybrid machines: there the v2 tree has no controllers.
    fn parse(mounts: &str) -> Option<Self> {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let mut fields = line.split_whitespace().skip(1);
            let (Some(at), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            match kind {
                "cgroup" => v1.push(Hierarchy {
                    options: naming(options),
                    mountpoint: at.into(),
                }),
                "cgroup2" => v2 = Some(PathBuf::from(at)),
                _ => {}
            }
        }
        let controllers = |hierarchy: &Hierarchy| !hierarchy.options.starts_with("name=");
        match (v1.iter().any(controllers), v2) {
            (true, _) => Some(Self::V1(v1)),
            (false, v2) => v2.map(Self::V2),
        }
    }

    /// Makes a host's cgroups, ready to be joined.
    pub(crate) fn create(&self, host: HostName) -> Result<()> {
        match self {
            Self::V1(hierarchies) => {
                for hierarchy in hierarchies {
                    let ours = hierarchy.mountpoint.join(NAME);
                    let cgroup = ours.join(host.to_string());
                    make(&cgroup)?;
                    if hierarchy.options.split(',').any(|option| option == "cpuset") {
                        // A new cpuset is empty, and nothing can run in it.
                        inherit_cpuset(&hierarchy.mountpoint, &ours)?;
                        inherit_cpuset(&ours, &cgroup)?;
                    }
                    if hierarchy.options.split(',').any(|option| option == "cpu") {
                        write(&ours.join("cpu.shares"), &(1024 * SHARE).to_string())?;
                    }
                }
            }
            Self::V2(root) => {
                let ours = root.join(NAME);
                make(&ours.join(host.to_string()))?;
                delegate(root)?;
                delegate(&ours)?;
                write(&ours.join("cpu.weight"), &(100 * SHARE).to_string())?;
            }
        }
        Ok(())
    }

    /// After a host has booted on v2: moves the launching process to the leaf, then delegates the controllers.
    pub(crate) fn settle(&self, host: HostName) -> Result<()> {
        if let Self::V2(root) = self {
            let cgroup = root.join(NAME).join(host.to_string());
            let leaf = cgroup.join(LEAF).join("cgroup.procs");
            for pid in read_pids(&cgroup)? {
                write(&leaf, &pid.to_string())?;
            }
            delegate(&cgroup)?;
        }
        Ok(())
    }

    /// The files a process writes its pid to in order to launch a host's init.
    pub(crate) fn launch_files(&self, host: HostName) -> Vec<PathBuf> {
        self.directories(Some(host))
            .into_iter()
            .map(|directory| directory.join("cgroup.procs"))
            .collect()
    }

    /// The files a process writes its pid to before it enters a running host.
    pub(crate) fn join_files(&self, host: HostName) -> Vec<PathBuf> {
        match self {
            Self::V1(_) => self.launch_files(host),
            Self::V2(root) => {
                vec![
                    root.join(NAME)
                        .join(host.to_string())
                        .join(LEAF)
                        .join("cgroup.procs"),
                ]
            }
        }
    }

    /// What a host's boot script mounts: `v2`, or a list of `directory:options`.
    pub(crate) fn mounts(&self) -> String {
        match self {
            Self::V1(hierarchies) => hierarchies
                .iter()
                .map(|hierarchy| format!("{}:{}", hierarchy.mountpoint.display(), hierarchy.options))
                .collect::<Vec<_>>()
                .join(" "),
            Self::V2(_) => "v2".to_owned(),
        }
    }

    /// Every process in the cgroups of a host, or of all hosts; pids as the machine sees them.
    pub(crate) fn pids(&self, host: Option<HostName>) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in self.directories(host) {
            collect_pids(&directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the cgroups of a host, or all of the testbed's. Their processes must have ended.
    pub(crate) fn remove(&self, host: Option<HostName>) -> Result<()> {
        for directory in self.directories(host) {
            // A process that has just died holds its cgroup for a moment longer.
            wait::until(Duration::from_secs(10), "removing cgroups", || {
                remove_tree(&directory)
            })?;
        }
        Ok(())
    }

    /// Whether a cgroup of the testbed is left.
    pub(crate) fn exists(&self) -> bool {
        self.directories(None).iter().any(|directory| directory.exists())
    }

    /// The memory of the hosts that cannot be reclaimed without writing, in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        let (directory, usage, inactive) = match self {
            Self::V1(hierarchies) => (
                hierarchies
                    .iter()
                    .find(|hierarchy| hierarchy.options.split(',').any(|option| option == "memory"))?
                    .mountpoint
                    .join(NAME),
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            Self::V2(root) => (root.join(NAME), "memory.current", "inactive_file"),
        };
        let usage: u64 = fs::read_to_string(directory.join(usage))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        Some(usage.saturating_sub(stat_value(&stat, inactive).unwrap_or(0)))
    }

    fn directories(&self, host: Option<HostName>) -> Vec<PathBuf> {
        let ours = |root: &Path| match host {
            Some(host) => root.join(NAME).join(host.to_string()),
            None => root.join(NAME),
        };
        match self {
            Self::V1(hierarchies) => hierarchies
                .iter()
                .map(|hierarchy| ours(&hierarchy.mountpoint))
                .collect(),
            Self::V2(root) => vec![ours(root)],
        }
    }
}

/// The options that say which hierarchy it is, without `rw`, `relatime` and the like.
fn naming(options: &str) -> String {
    let names = |option: &&str| option.starts_with("name=") || V1_CONTROLLERS.contains(option);
    options.split(',').filter(names).collect::<Vec<_>>().join(",")
}

fn stat_value(stat: &str, key: &str) -> Option<u64> {
    stat.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.parse().ok())
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("failed to make cgroup {}", directory.display()))
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("failed to write {value:?} to {}", file.display()))
}

fn inherit_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(from.join(file))
            .with_context(|| format!("failed to read {}", from.join(file).display()))?;
        write(&to.join(file), value.trim())?;
    }
    Ok(())
}

/// Delegates every controller of a v2 cgroup to its children.
fn delegate(cgroup: &Path) -> Result<()> {
    let have = fs::read_to_string(cgroup.join("cgroup.controllers"))
        .with_context(|| format!("failed to read the controllers of {}", cgroup.display()))?;
    for needed in V2_NEEDED {
        if !have.split_whitespace().any(|controller| controller == needed) {
            bail!(
                "cgroup {} has no {needed} controller: enable it in its parent's cgroup.subtree_control",
                cgroup.display()
            );
        }
    }
    for controller in have.split_whitespace() {
        let handed = write(&cgroup.join("cgroup.subtree_control"), &format!("+{controller}"));
        // Some (misc, rdma, a cpu with real-time tasks) refuse on some machines; kubelet lives without.
        if V2_NEEDED.contains(&controller) {
            handed?;
        }
    }
    Ok(())
}

fn read_pids(cgroup: &Path) -> Result<Vec<i32>> {
    match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(pids) => Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect()),
        // It, or its kernel object, went away while we looked.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound)
                || error.raw_os_error() == Some(nix::libc::ENODEV) =>
        {
            Ok(Vec::new())
        }
        Err(error) => {
            Err(error).with_context(|| format!("failed to read the processes of {}", cgroup.display()))
        }
    }
}

fn collect_pids(cgroup: &Path, pids: &mut Vec<i32>) -> Result<()> {
    pids.extend(read_pids(cgroup)?);
    for child in children(cgroup)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

fn remove_tree(cgroup: &Path) -> Result<()> {
    for child in children(cgroup)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove cgroup {}", cgroup.display()))
        }
        _ => Ok(()),
    }
}

fn children(cgroup: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("failed to list {}", cgroup.display())),
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
proc /proc proc rw 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn a_hybrid_machine_is_one_of_v1() {
        let layout = Layout::parse(HYBRID).unwrap();
        assert_eq!(
            layout.mounts(),
            "/sys/fs/cgroup/cpu,cpuacct:cpu,cpuacct /sys/fs/cgroup/memory:memory /sys/fs/cgroup/systemd:name=systemd"
        );
        let files = layout.join_files("w1".parse().unwrap());
        assert_eq!(
            files[1],
            Path::new("/sys/fs/cgroup/memory/trivet-testbed/w1/cgroup.procs")
        );
    }

    #[test]
    fn a_unified_machine_is_one_of_v2_also_with_a_named_v1_hierarchy() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let named = "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n";
        for mounts in [unified.to_owned(), format!("{unified}{named}")] {
            let layout = Layout::parse(&mounts).unwrap();
            assert_eq!(layout, Layout::V2("/sys/fs/cgroup".into()));
            let host = "cp1".parse().unwrap();
            assert_eq!(
                layout.launch_files(host),
                [Path::new("/sys/fs/cgroup/trivet-testbed/cp1/cgroup.procs")]
            );
            assert_eq!(
                layout.join_files(host),
                [Path::new("/sys/fs/cgroup/trivet-testbed/cp1/init/cgroup.procs")]
            );
        }
    }

    #[test]
    fn a_machine_without_cgroups_has_no_layout() {
        assert_eq!(Layout::parse("proc /proc proc rw 0 0\n"), None);
        assert_eq!(Layout::parse(""), None);
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let stat = "inactive_file 1\ntotal_inactive_file 4096\n";
        assert_eq!(stat_value(stat, "total_inactive_file"), Some(4096));
        assert_eq!(stat_value(stat, "total_rss"), None);
    }
}
