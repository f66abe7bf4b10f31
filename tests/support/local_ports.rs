//! The local ports of a program's connections to the proxy of its node: as long as they are the same, so are the connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use trivet_testbed::Host;

use crate::serving::own_sockets;

/// 127.0.0.1:7443, which kubeconfigs name, as /proc/net/tcp has it on a little-endian machine.
const PROXY: &str = "0100007F:1D13";

/// The state of an established connection in /proc/net/tcp (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// The local ports of the kubelet of each host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletPorts(BTreeMap<String, BTreeSet<u16>>);

impl KubeletPorts {
    /// Reads them now. Fails if a kubelet is not connected to its node's proxy.
    pub fn read(hosts: &[Host]) -> Result<Self> {
        let of_hosts = hosts.iter().map(|host| {
            let ports = ports(host, "kubelet")?;
            ensure!(
                !ports.is_empty(),
                "{}'s kubelet is not connected to its proxy",
                host.name()
            );
            Ok((host.name().to_string(), ports))
        });
        Ok(Self(of_hosts.collect::<Result<_>>()?))
    }

    /// Fails unless each of these connections is still there. A kubelet may have made others.
    pub fn are_still_in(&self, now: &Self) -> Result<()> {
        for (host, before) in &self.0 {
            let now = now.0.get(host);
            ensure!(
                now.is_some_and(|now| before.is_subset(now)),
                "{host}'s kubelet had local ports {before:?} and has {now:?}"
            );
        }
        Ok(())
    }
}

impl fmt::Display for KubeletPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_hosts = self.0.iter().map(|(host, ports)| format!("{host} {ports:?}"));
        f.write_str(&of_hosts.collect::<Vec<_>>().join(", "))
    }
}

/// The local ports of the connections of a host's program to its node's proxy.
fn ports(host: &Host, program: &str) -> Result<BTreeSet<u16>> {
    let pid = host.pid(program)?;
    let pid = pid.with_context(|| format!("{} runs no {program}", host.name()))?;
    let process = Path::new("/proc").join(pid.to_string());
    let table = fs::read_to_string(process.join("net/tcp"))?;
    let own = own_sockets(&process)?;
    let established = connections(&table);
    let own = established.filter(|(inode, _)| own.iter().any(|own| own == inode));
    Ok(own.map(|(_, port)| port).collect())
}

/// The inode and the local port of each established connection to the proxy, of /proc/net/tcp.
fn connections(table: &str) -> impl Iterator<Item = (&str, u16)> {
    table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, local, PROXY, ESTABLISHED, _, _, _, _, _, inode, ..] => {
                let (_, port) = local.rsplit_once(':')?;
                Some((*inode, u16::from_str_radix(port, 16).ok()?))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_established_connections_to_the_proxy_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1D13 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000 100 0 0 10 0
   1: 0100007F:C350 0100007F:1D13 01 00000000:00000000 02:0000067C 00000000     0        0 12 2 0000 20 4 30 10 -1
   2: 0100007F:1D13 0100007F:C350 01 00000000:00000000 02:0000067C 00000000     0        0 13 2 0000 20 4 30 10 -1
   3: 0100007F:C351 0100007F:1D13 06 00000000:00000000 03:0000067C 00000000     0        0 0 3 0000
   4: 0B00000A:C352 0C00000A:192B 01 00000000:00000000 02:0000067C 00000000     0        0 15 2 0000 20 4 30 10 -1
";
        let found: Vec<_> = connections(table).collect();
        assert_eq!(found, [("12", 50000)]);
    }
}
