//! Which of a node's proxies serves: the one that listens for the others on the socket by which they hand over.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trivet_instruments::eventually;
use trivet_testbed::Host;

use crate::installation::is_standby;

/// The proxy's program.
const PROGRAM: &str = "trivet-proxy";

/// Where the containers have the directory in which the proxies of a node meet.
const DIRECTORY: &str = "/run/trivet-handover/";

/// `__SO_ACCEPTCON` in /proc/net/unix: the socket listens (net/unix/af_unix.c).
const LISTENS: &str = "00010000";

/// A new proxy proves itself within seconds of its start.
const TAKES: Duration = Duration::from_secs(40);

/// A process that serves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// As the machine sees it.
    pub pid: i32,
    /// Whether it is the standby, and not the DaemonSet's.
    pub is_standby: bool,
}

/// The process that serves a node; none at a moment when nobody does, or where the proxies cannot meet.
pub fn serving(host: &Host) -> Result<Option<Serving>> {
    for pid in host.pids(PROGRAM)? {
        let process = Path::new("/proc").join(pid.to_string());
        // A process that ends meanwhile serves nobody.
        let Ok(sockets) = own_sockets(&process) else {
            continue;
        };
        let Ok(table) = fs::read_to_string(process.join("net/unix")) else {
            continue;
        };
        if listening(&table).any(|inode| sockets.iter().any(|own| own == inode)) {
            let is_standby = is_standby(pid);
            return Ok(Some(Serving { pid, is_standby }));
        }
    }
    Ok(None)
}

/// Waits until the DaemonSet's proxy serves a node; returns its pid.
pub async fn daemon_set_serves(host: &Host) -> Result<i32> {
    eventually(TAKES, "the DaemonSet's proxy that serves", async || {
        let serving = serving(host)?.with_context(|| format!("nobody serves {}", host.name()))?;
        ensure!(!serving.is_standby, "the standby serves {}", host.name());
        Ok(serving.pid)
    })
    .await
}

/// The inodes of the listening sockets in which the proxies meet, of /proc/net/unix.
fn listening(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, _, _, flags, _, _, inode, path] if *flags == LISTENS && path.starts_with(DIRECTORY) => {
                Some(*inode)
            }
            _ => None,
        }
    })
}

/// The inodes of a process's sockets.
pub(crate) fn own_sockets(process: &Path) -> Result<Vec<String>> {
    let descriptors = fs::read_dir(process.join("fd"))?;
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(targets
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_listens_where_proxies_meet_counts() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0005 01 23 /run/trivet-handover/.new-1f
0000000000000000: 00000003 00000000 00000000 0005 03 24 /run/trivet-handover/.new-1f
0000000000000000: 00000002 00000000 00010000 0001 01 25 /run/trivet/proxy.sock
0000000000000000: 00000003 00000000 00000000 0001 03 26
";
        assert_eq!(listening(table).collect::<Vec<_>>(), ["23"]);
    }
}
