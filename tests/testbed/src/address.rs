//! The address plan: every address follows from the host's name, so none is stored.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | the machine | 10.213.0.1 | `fd74:7269:7665::1` |
//! | master `cpN` | 10.213.0.(10+N) | `fd74:7269:7665::(10+N)`, in decimal digits |
//! | worker `wN` | 10.213.0.(100+N) | `fd74:7269:7665::(100+N)` |
//! | pods of a host | 10.214.(last byte of its IPv4).0/24 | none |
//! | Services | 10.96.0.0/12, as kubeadm | none |

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Hosts and the machine.
pub const HOST_NETWORK: &str = "10.213.0.0/24";
/// Hosts and the machine; the digits spell "trive".
pub const HOST_NETWORK_V6: &str = "fd74:7269:7665::/64";
/// All pods.
pub const POD_NETWORK: &str = "10.214.0.0/16";
/// All Services, kubeadm's default.
pub const SERVICE_NETWORK: &str = "10.96.0.0/12";
/// The machine's address among the hosts, and their default route.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// The machine's IPv6 address among the hosts.
pub const MACHINE_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x7269, 0x7665, 0, 0, 0, 0, 1);

/// More than etcd needs, and few enough that `cpN` stays below the workers' addresses.
const MAX_MASTERS: u8 = 9;
const MAX_WORKERS: u8 = 99;

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs etcd and the control plane, and is a node too.
    Master,
    /// A node and nothing else.
    Worker,
}

/// A host's name, valid by construction: `cp1` to `cp9` and `w1` to `w99`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName {
    role: Role,
    number: u8,
}

impl HostName {
    /// The master with this number, from 1.
    pub fn master(number: u8) -> Result<Self> {
        ensure!(
            (1..=MAX_MASTERS).contains(&number),
            "there is no master number {number}: masters are cp1 to cp{MAX_MASTERS}, workers w1 to w{MAX_WORKERS}"
        );
        Ok(Self {
            role: Role::Master,
            number,
        })
    }

    /// The worker with this number, from 1.
    pub fn worker(number: u8) -> Result<Self> {
        ensure!(
            (1..=MAX_WORKERS).contains(&number),
            "there is no worker number {number}: masters are cp1 to cp{MAX_MASTERS}, workers w1 to w{MAX_WORKERS}"
        );
        Ok(Self {
            role: Role::Worker,
            number,
        })
    }

    /// Master or worker, as the name says.
    pub fn role(self) -> Role {
        self.role
    }

    /// Whether it is a master.
    pub fn is_master(self) -> bool {
        self.role == Role::Master
    }

    /// Its IPv4 address, the one its Node reports.
    pub fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, 0, self.last_byte())
    }

    /// Its IPv6 address. It ends with the decimal digits of the IPv4 address's last byte, so that people recognise the pair.
    pub fn ipv6(self) -> Ipv6Addr {
        let byte = u16::from(self.last_byte());
        let digits = (byte / 100) * 0x100 + (byte / 10 % 10) * 0x10 + byte % 10;
        Ipv6Addr::new(0xfd74, 0x7269, 0x7665, 0, 0, 0, 0, digits)
    }

    /// The addresses of its pods.
    pub fn pod_network(self) -> String {
        format!("10.214.{}.0/24", self.last_byte())
    }

    /// The URL of the apiserver on this host.
    pub fn apiserver(self) -> String {
        format!("https://{}:6443", self.ipv4())
    }

    /// Where this host's etcd talks to the others.
    pub fn etcd_peer(self) -> String {
        format!("https://{}:2380", self.ipv4())
    }

    fn last_byte(self) -> u8 {
        match self.role {
            Role::Master => 10 + self.number,
            Role::Worker => 100 + self.number,
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Master => f.pad(&format!("cp{}", self.number)),
            Role::Worker => f.pad(&format!("w{}", self.number)),
        }
    }
}

impl FromStr for HostName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let parsed = match (name.strip_prefix("cp"), name.strip_prefix('w')) {
            (Some(number), _) => number.parse().ok().map(Self::master),
            (_, Some(number)) => number.parse().ok().map(Self::worker),
            (None, None) => None,
        };
        match parsed {
            // `cp01` and `w+1` parse as numbers, but differ from the names that are printed.
            Some(host) if host.as_ref().is_ok_and(|host| host.to_string() != name) => {}
            Some(host) => return host,
            None => {}
        }
        bail!(
            "{name:?} is no host of a testbed: masters are cp1 to cp{MAX_MASTERS}, workers w1 to w{MAX_WORKERS}"
        )
    }
}

impl TryFrom<String> for HostName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> Self {
        host.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[test]
    fn addresses_follow_from_the_name() {
        assert_eq!(host("cp1").ipv4().to_string(), "10.213.0.11");
        assert_eq!(host("cp1").ipv6().to_string(), "fd74:7269:7665::11");
        assert_eq!(host("w12").ipv4().to_string(), "10.213.0.112");
        assert_eq!(host("w12").ipv6().to_string(), "fd74:7269:7665::112");
        assert_eq!(host("w2").pod_network(), "10.214.102.0/24");
        assert_eq!(host("cp3").apiserver(), "https://10.213.0.13:6443");
    }

    #[test]
    fn no_two_hosts_share_an_address() {
        let masters = (1..=MAX_MASTERS).map(|n| HostName::master(n).unwrap());
        let workers = (1..=MAX_WORKERS).map(|n| HostName::worker(n).unwrap());
        let hosts: Vec<_> = masters.chain(workers).collect();
        let v4: BTreeSet<_> = hosts.iter().map(|host| host.ipv4()).collect();
        let v6: BTreeSet<_> = hosts.iter().map(|host| host.ipv6()).collect();
        assert_eq!(v4.len(), hosts.len());
        assert_eq!(v6.len(), hosts.len());
        assert!(!v4.contains(&MACHINE) && !v6.contains(&MACHINE_V6));
    }

    #[test]
    fn a_name_reads_back_as_itself() {
        for name in ["cp1", "cp9", "w1", "w99"] {
            assert_eq!(host(name).to_string(), name);
            let json = serde_json::to_string(&host(name)).unwrap();
            assert_eq!(serde_json::from_str::<HostName>(&json).unwrap(), host(name));
        }
    }

    #[test]
    fn a_name_outside_the_plan_is_refused_with_the_names_there_are() {
        for name in [
            "", "cp", "cp0", "cp10", "w0", "w100", "cp01", "w+1", "node1", "../x", "cp-1", "cp999",
        ] {
            let refusal = name.parse::<HostName>().unwrap_err().to_string();
            assert!(refusal.contains("cp1 to cp9"), "{name}: {refusal}");
        }
    }
}
