//! Network faults, made with nftables in the affected network namespace.

use anyhow::{Context, Result};

use crate::{
    network::{Network, Place},
    process,
};

/// What happens to the packets of a place. Only TCP is affected, so the address still resolves by ARP: this is how a host
/// without power behind a router looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None arrives and none leaves.
    Blackhole,
    /// None arrives.
    DeafTo,
    /// None leaves.
    DumbTo,
    /// Packets longer than this neither arrive nor leave.
    Longer(u16),
    /// None of this address family arrives and none leaves.
    BlackholeOf(Family),
    /// A firewall answers new connections with a reset.
    Reject,
    /// The same for this address family.
    RejectOf(Family),
    /// No new connection leaves, as with a full conntrack table. Established connections work.
    NoNewConnection,
}

/// An address family: one of the two addresses of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name in nftables.
    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl Fault {
    fn rules(self) -> String {
        let of = |family: Family, verdict| format!("meta nfproto {} {verdict}", family.as_str());
        let (arriving, leaving) = match self {
            Self::BlackholeOf(family) => return Self::table(&of(family, "drop"), None),
            Self::RejectOf(family) => {
                let reset = of(family, "tcp flags & (syn | ack) == syn reject with tcp reset");
                return Self::table(&reset, Some(""));
            }
            Self::Blackhole => ("drop", "drop"),
            Self::DeafTo => ("drop", ""),
            Self::DumbTo => ("", "drop"),
            Self::Longer(length) => return Self::table(&format!("meta length > {length} drop"), None),
            Self::Reject => ("tcp flags & (syn | ack) == syn reject with tcp reset", ""),
            Self::NoNewConnection => ("", "tcp flags & (syn | ack) == syn drop"),
        };
        Self::table(arriving, Some(leaving))
    }

    /// The same rule both ways if there is one only.
    fn table(arriving: &str, leaving: Option<&str>) -> String {
        let rule = |direction: &str, verdict: &str| match verdict {
            "" => String::new(),
            verdict => format!("{direction} eth0 meta l4proto tcp {verdict}"),
        };
        let arriving_rule = rule("iifname", arriving);
        let leaving_rule = rule("oifname", leaving.unwrap_or(arriving));
        format!(
            "table inet fault {{\n\
               chain arriving {{ type filter hook input priority 0; {arriving_rule}; }}\n\
               chain leaving {{ type filter hook output priority 0; {leaving_rule}; }}\n\
             }}\n"
        )
    }
}

/// In one transaction with the rules that follow, so that no packet passes between two faults. The table is added first so
/// that the deletion cannot fail.
const CLEAR: &str = "add table inet fault\ndelete table inet fault\n";

/// Makes a fault, in place of any other there.
pub(crate) async fn strike(network: &Network, place: Place, fault: Fault) -> Result<()> {
    rules(network, place, &format!("{CLEAR}{}", fault.rules()))
        .await
        .with_context(|| format!("failed to strike {place:?} with {fault:?}"))
}

/// Ends the fault of a place.
pub(crate) async fn heal(network: &Network, place: Place) -> Result<()> {
    rules(network, place, CLEAR)
        .await
        .with_context(|| format!("failed to heal {place:?}"))
}

/// Runs nftables rules in a place.
pub(crate) async fn rules(network: &Network, place: Place, rules: &str) -> Result<()> {
    process::feed(&network.namespace(place), "nft", &["-f", "-"], rules).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_one_way() {
        assert!(
            Fault::DeafTo
                .rules()
                .contains("iifname eth0 meta l4proto tcp drop")
        );
        assert!(!Fault::DeafTo.rules().contains("oifname"));
        assert!(!Fault::DumbTo.rules().contains("iifname"));
    }

    #[test]
    fn a_fault_of_one_family_leaves_the_other_alone() {
        let rules = Fault::BlackholeOf(Family::V6).rules();
        assert_eq!(rules.matches("tcp meta nfproto ipv6 drop").count(), 2);
    }

    #[test]
    fn long_packets_are_dropped_both_ways() {
        let rules = Fault::Longer(1000).rules();
        assert_eq!(rules.matches("meta length > 1000 drop").count(), 2);
    }
}
