//! Network faults: packets are dropped at a host's `eth0`, so that neither side gets an error.
//!
//! They act on `eth0` alone. Packets that a host sends to itself still arrive, as on a machine with a broken cable.

use std::fmt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::address::HostName;
use crate::host::Host;
use crate::{network, output};

/// The nftables table of our faults; the boot script of a host knows it by name too.
const TABLE: &str = "trivet-testbed-faults";

/// The port of every apiserver.
const APISERVER: &str = "6443";
/// In bytes. Smaller packets carry TCP handshakes and most requests, but no server's certificate.
const LARGE: u32 = 1000;
/// The prefix of the other host's name.
const SEVER: &str = "sever-";
/// The prefix of the second at which the fault ends.
const WITHOUT_API: &str = "without-api-until-";
/// Clients and peers of etcd.
const ETCD: &str = "2379, 2380";

/// A way in which packets of a host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Every packet of port 6443 is lost, both ways.
    Blackhole,
    /// Every packet of port 6443 in one address family is lost, both ways.
    BlackholeFamily(Family),
    /// Packets of port 6443 are lost in one direction, as the host sees it.
    Cut(Direction),
    /// Every packet of etcd's ports is lost, both ways: this host's etcd has no leader.
    Isolate,
    /// Large packets of port 6443 are lost, both ways; small ones pass.
    DropLarge,
    /// Packets of port 6443 between this host and another are lost, both ways; other hosts are not affected.
    Sever(HostName),
    /// What this host says to the apiservers of others, and what they answer, is lost until this second of Unix time. Its own
    /// apiserver still serves others.
    WithoutApi(u64),
}

/// A direction, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Direction {
    /// Packets to the host.
    In,
    /// Packets from the host.
    Out,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The name in nftables' `meta nfproto`, and in the command line.
    fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Fault {
    /// Every fault that involves only one host, and lasts until it is healed.
    pub const ALL: [Self; 7] = [
        Self::Blackhole,
        Self::BlackholeFamily(Family::Ipv4),
        Self::BlackholeFamily(Family::Ipv6),
        Self::Cut(Direction::In),
        Self::Cut(Direction::Out),
        Self::Isolate,
        Self::DropLarge,
    ];

    /// Puts the fault on a host's wire. It stays, through reboots too, until [`heal`].
    pub fn inject(self, host: &Host) -> Result<()> {
        apply(host, &self.rules()).with_context(|| format!("failed to {self} {}", host.name()))
    }

    /// The rules that add the fault to the table of faults. Each fault has its own chains, so that none is added twice.
    fn rules(self) -> String {
        let (ports, incoming, outgoing) = match self {
            Self::Blackhole
            | Self::BlackholeFamily(_)
            | Self::DropLarge
            | Self::Sever(_)
            | Self::WithoutApi(_) => (APISERVER, true, true),
            Self::Cut(Direction::In) => (APISERVER, true, false),
            Self::Cut(Direction::Out) => (APISERVER, false, true),
            Self::Isolate => (ETCD, true, true),
        };
        let mut rules = vec![format!("add table inet {TABLE}")];
        // Before connection tracking on the way in, and after address translation on the way out:
        // the ports are those of the wire, also for what pods send to a Service.
        for (wanted, hook, interface, peer, peers_end) in [
            (incoming, "prerouting priority raw", "iifname", "saddr", "sport"),
            (
                outgoing,
                "postrouting priority filter",
                "oifname",
                "daddr",
                "dport",
            ),
        ] {
            if wanted {
                let chain = format!("{self}-{interface}");
                rules.push(format!(
                    "add chain inet {TABLE} {chain} {{ type filter hook {hook}; }}"
                ));
                rules.push(format!("flush chain inet {TABLE} {chain}"));
                let both = ["sport", "dport"];
                for end in both
                    .into_iter()
                    .filter(|end| self.is_of_both_ends() || *end == peers_end)
                {
                    rules.extend(self.which(peer).iter().map(|which| {
                        format!(
                            "add rule inet {TABLE} {chain} {interface} eth0 \
                             meta l4proto {{ tcp, udp }} th {end} {{ {ports} }} {which}drop"
                        )
                    }));
                }
            }
        }
        rules.join("\n") + "\n"
    }

    /// Which packets of the ports are lost, `peer` being the address of the other end: any of these.
    fn which(self, peer: &str) -> Vec<String> {
        match self {
            Self::DropLarge => vec![format!("meta length > {LARGE} ")],
            Self::BlackholeFamily(family) => vec![format!("meta nfproto {} ", family.as_str())],
            Self::Sever(from) => vec![
                format!("ip {peer} {} ", from.ipv4()),
                format!("ip6 {peer} {} ", from.ipv6()),
            ],
            // The kernel ends it, also if the testbed's command has ended.
            Self::WithoutApi(until) => vec![format!("meta time < {until} ")],
            Self::Blackhole | Self::Cut(_) | Self::Isolate => vec![String::new()],
        }
    }

    /// Whether the host's own port is meant too, and not only that of the other end.
    fn is_of_both_ends(self) -> bool {
        !matches!(self, Self::WithoutApi(_))
    }

    /// Whether a fault that ends by itself has ended.
    fn is_over(self, now: u64) -> bool {
        matches!(self, Self::WithoutApi(until) if until <= now)
    }

    /// The fault that is printed like this.
    fn named(name: &str) -> Option<Self> {
        match (name.strip_prefix(SEVER), name.strip_prefix(WITHOUT_API)) {
            (Some(from), _) => from.parse().ok().map(Self::Sever),
            (_, Some(until)) => until.parse().ok().map(Self::WithoutApi),
            (None, None) => Self::ALL.into_iter().find(|fault| fault.to_string() == name),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Blackhole => "blackhole",
            Self::BlackholeFamily(Family::Ipv4) => "blackhole-ipv4",
            Self::BlackholeFamily(Family::Ipv6) => "blackhole-ipv6",
            Self::Cut(Direction::In) => "cut-in",
            Self::Cut(Direction::Out) => "cut-out",
            Self::Isolate => "isolate",
            Self::DropLarge => "drop-large",
            Self::Sever(from) => return f.pad(&format!("{SEVER}{from}")),
            Self::WithoutApi(until) => return f.pad(&format!("{WITHOUT_API}{until}")),
        };
        f.pad(name)
    }
}

/// Removes every fault of a host.
pub fn heal(host: &Host) -> Result<()> {
    // Added first, so that there is always one to delete.
    apply(
        host,
        &format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"),
    )
    .with_context(|| format!("failed to heal {}", host.name()))
}

/// Puts [`Fault::WithoutApi`] on a host's wire for some time from now. The host need not be up.
pub(crate) fn lose_api(host: &Host, time: Duration) -> Result<()> {
    Fault::WithoutApi((now()? + time).as_secs()).inject(host)
}

/// The faults that are on a host's wire.
pub fn of(host: &Host) -> Result<Vec<Fault>> {
    let chains = output::of(nft(host).args(["list", "chains", "inet"]))?;
    let now = now()?.as_secs();
    Ok(parse(&chains)
        .into_iter()
        .filter(|fault| !fault.is_over(now))
        .collect())
}

/// Since the start of Unix time, as the kernel counts it for nftables.
fn now() -> Result<Duration> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")
}

fn parse(chains: &str) -> Vec<Fault> {
    let fault = |line: &str| {
        let chain = line.trim().strip_prefix("chain ")?.split_whitespace().next()?;
        let (fault, _interface) = chain.rsplit_once('-')?;
        Fault::named(fault)
    };
    let mut faults: Vec<_> = chains.lines().filter_map(fault).collect();
    // Each has a chain for every direction.
    faults.sort_unstable();
    faults.dedup();
    faults
}

/// One transaction: all of it, or nothing.
fn apply(host: &Host, rules: &str) -> Result<()> {
    output::with_input(nft(host).args(["-f", "-"]), rules).map(drop)
}

/// nft in a host's network namespace, which is there also while the host is off.
fn nft(host: &Host) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!(
            "--net={}",
            network::namespace_path(host.name()).display()
        ))
        .arg("nft");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severed() -> Fault {
        Fault::Sever("cp1".parse().unwrap())
    }

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
        for fault in Fault::ALL
            .into_iter()
            .chain([severed(), Fault::WithoutApi(1_795_911_720)])
        {
            let chain = fault
                .rules()
                .lines()
                .find(|line| line.starts_with("add chain"))
                .unwrap()
                .to_owned();
            let listed = chain.replace(&format!("add chain inet {TABLE} "), "\tchain ");
            assert_eq!(parse(&listed), [fault]);
        }
        assert!(parse("table inet kube-proxy {\n\tchain services {\n\tchain service-cp1-x {\n").is_empty());
        let both = "\tchain sever-cp1-iifname {\n\tchain sever-cp2-oifname {\n\tchain sever-cp1-oifname {\n";
        assert_eq!(parse(both), [severed(), Fault::Sever("cp2".parse().unwrap())]);
    }

    #[test]
    fn a_host_severed_from_one_other_reaches_the_rest() {
        let rules = severed().rules();
        let drops = rules.lines().filter(|line| line.ends_with("drop"));
        let aimed = [
            "saddr 10.213.0.11 ",
            "daddr 10.213.0.11 ",
            "saddr fd74:7269:7665::11 ",
            "daddr fd74:7269:7665::11 ",
        ];
        for drop in drops.clone() {
            assert!(aimed.iter().any(|aim| drop.contains(aim)), "{drop}");
        }
        assert_eq!(drops.count(), 8, "{rules}");
    }

    #[test]
    fn a_blackhole_of_one_family_spares_the_other() {
        let rules = Fault::BlackholeFamily(Family::Ipv4).rules();
        let mut drops = rules.lines().filter(|line| line.ends_with("drop"));
        assert!(drops.all(|drop| drop.contains("meta nfproto ipv4 ")), "{rules}");
        assert!(rules.contains("iifname eth0") && rules.contains("oifname eth0"));
    }

    #[test]
    fn a_host_without_the_api_still_serves_others_and_has_it_again_by_itself() {
        let fault = Fault::WithoutApi(1_795_911_720);
        let rules = fault.rules();
        let drops: Vec<_> = rules.lines().filter(|line| line.ends_with("drop")).collect();
        let aimed = |line: &str, interface, port| line.contains(interface) && line.contains(port);
        assert!(
            matches!(drops[..], [into, out] if aimed(into, "iifname", "sport") && aimed(out, "oifname", "dport")),
            "{rules}"
        );
        assert!(
            drops.iter().all(|drop| drop.contains("meta time < 1795911720 ")),
            "{rules}"
        );
        assert!(!fault.is_over(1_795_911_719) && fault.is_over(1_795_911_720));
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
