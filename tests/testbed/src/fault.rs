//! Faults of the wire: packets dropped where a host's cable ends, so that neither side is told.
//!
//! They act on `eth0` alone. What a host says to itself still arrives, as on a machine with a broken cable.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::host::Host;
use crate::output;

/// The nftables table of our faults; the boot script of a host knows it by name too.
const TABLE: &str = "trivet-testbed-faults";

/// The port of every apiserver.
const APISERVER: &str = "6443";
/// In bytes: below it pass handshakes of TCP, most requests, and no server's certificate.
const LARGE: u32 = 1000;
/// Clients and peers of etcd.
const ETCD: &str = "2379, 2380";

/// A way in which packets of a host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every packet of port 6443 is lost, both ways.
    Blackhole,
    /// Packets of port 6443 are lost in one direction, as the host sees it.
    Cut(Direction),
    /// Every packet of etcd's ports is lost, both ways: this host's etcd has no leader.
    Isolate,
    /// Large packets of port 6443 are lost, both ways: small ones tell nothing of it.
    DropLarge,
}

/// A direction, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// What comes to the host.
    In,
    /// What the host sends.
    Out,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: [Self; 5] = [
        Self::Blackhole,
        Self::Cut(Direction::In),
        Self::Cut(Direction::Out),
        Self::Isolate,
        Self::DropLarge,
    ];

    /// Puts the fault on a host's wire. It stays, through reboots too, until [`heal`].
    pub fn inject(self, host: &Host) -> Result<()> {
        nft(host, &self.rules()).with_context(|| format!("failed to {self} {}", host.name()))
    }

    /// One table, made of whatever is there already; each fault has its own chains, so that none is there twice.
    fn rules(self) -> String {
        let (ports, incoming, outgoing) = match self {
            Self::Blackhole | Self::DropLarge => (APISERVER, true, true),
            Self::Cut(Direction::In) => (APISERVER, true, false),
            Self::Cut(Direction::Out) => (APISERVER, false, true),
            Self::Isolate => (ETCD, true, true),
        };
        let which = match self {
            Self::DropLarge => format!("meta length > {LARGE} "),
            Self::Blackhole | Self::Cut(_) | Self::Isolate => String::new(),
        };
        let mut rules = vec![format!("add table inet {TABLE}")];
        // Before connection tracking on the way in, and after address translation on the way out:
        // the ports are those of the wire, also for what pods send to a Service.
        for (wanted, hook, interface) in [
            (incoming, "prerouting priority raw", "iifname"),
            (outgoing, "postrouting priority filter", "oifname"),
        ] {
            if wanted {
                let chain = format!("{self}-{interface}");
                rules.push(format!(
                    "add chain inet {TABLE} {chain} {{ type filter hook {hook}; }}"
                ));
                rules.push(format!("flush chain inet {TABLE} {chain}"));
                for end in ["sport", "dport"] {
                    rules.push(format!(
                        "add rule inet {TABLE} {chain} {interface} eth0 \
                         meta l4proto {{ tcp, udp }} th {end} {{ {ports} }} {which}drop"
                    ));
                }
            }
        }
        rules.join("\n") + "\n"
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Blackhole => "blackhole",
            Self::Cut(Direction::In) => "cut-in",
            Self::Cut(Direction::Out) => "cut-out",
            Self::Isolate => "isolate",
            Self::DropLarge => "drop-large",
        })
    }
}

/// Removes every fault of a host.
pub fn heal(host: &Host) -> Result<()> {
    // Added first, so that there is always one to delete.
    nft(
        host,
        &format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"),
    )
    .with_context(|| format!("failed to heal {}", host.name()))
}

/// The faults that are on a host's wire.
pub fn of(host: &Host) -> Result<Vec<Fault>> {
    let chains = output::of(host.command("nft")?.args(["list", "chains", "inet"]))?;
    Ok(parse(&chains))
}

fn parse(chains: &str) -> Vec<Fault> {
    let named = |fault: &Fault| {
        let prefix = format!("chain {fault}-");
        chains.lines().any(|line| line.trim().starts_with(&prefix))
    };
    Fault::ALL.into_iter().filter(named).collect()
}

/// One transaction: all of it, or nothing.
fn nft(host: &Host, rules: &str) -> Result<()> {
    output::with_input(host.command("nft")?.args(["-f", "-"]), rules).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blackhole_drops_both_ways_and_a_cut_one_way() {
        let both = Fault::Blackhole.rules();
        assert!(both.contains("iifname eth0") && both.contains("oifname eth0"));
        let incoming = Fault::Cut(Direction::In).rules();
        assert!(incoming.contains("iifname eth0") && !incoming.contains("oifname"));
        let outgoing = Fault::Cut(Direction::Out).rules();
        assert!(!outgoing.contains("iifname") && outgoing.contains("oifname eth0"));
    }

    #[test]
    fn every_fault_on_the_wire_is_read_back() {
        for fault in Fault::ALL {
            let chain = fault
                .rules()
                .lines()
                .find(|line| line.starts_with("add chain"))
                .unwrap()
                .to_owned();
            let listed = chain.replace(&format!("add chain inet {TABLE} "), "\tchain ");
            assert_eq!(parse(&listed), [fault]);
        }
        assert!(parse("table inet kube-proxy {\n\tchain services {\n").is_empty());
    }

    #[test]
    fn only_one_fault_looks_at_the_size() {
        for fault in Fault::ALL {
            let measures = fault.rules().contains("meta length > 1000 drop");
            assert_eq!(measures, fault == Fault::DropLarge, "{fault}");
        }
    }

    #[test]
    fn isolation_from_etcd_leaves_the_apiserver_alone() {
        let rules = Fault::Isolate.rules();
        assert!(rules.contains("{ 2379, 2380 }") && !rules.contains("6443"));
    }
}
