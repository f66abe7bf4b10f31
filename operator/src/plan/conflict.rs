//! Two pools may not listen in the same place: who serves there already wins, then the older one.
//!
//! This is decided for each address and port on its own. A pool that serves at one port has no privilege at the next: an
//! edit of an older pool must not take a port that a younger one serves.

use std::net::{IpAddr, Ipv4Addr};

use trivet_crds::pool::{MetricsExposure, ProxyMetrics};
use trivet_crds::wire::Listener;

use super::facts::Facts;
use super::rejection::Rejection;
use super::rival::{Claim, Rival};

/// In a claim: whatever addresses a node has.
pub const EVERY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Rejects a pool that wants to listen where another one does.
pub fn check(wanted: &[Claim], facts: &Facts) -> Result<(), Rejection> {
    for claim in wanted {
        if let Some(rival) = facts.rivals.iter().find(|rival| loses(claim, rival, facts)) {
            return Err(Rejection::Conflict {
                what: format!("{}, port {}", claim.0, claim.1),
                holder: holder(rival),
            });
        }
    }
    Ok(())
}

/// Whether this pool's claim gives way to the rival's.
fn loses(claim: &Claim, rival: &Rival, facts: &Facts) -> bool {
    let is_in = |claims: &[Claim]| claims.iter().any(|other| overlap(claim, other));
    let is_first = facts.precedence < rival.precedence;
    // A wider address than the one that is served is a new claim.
    match (facts.serving.contains(claim), is_in(&rival.serving)) {
        (true, false) => false,
        (false, true) => true,
        (true, true) => !is_first,
        (false, false) => !is_first && is_in(&rival.wanted),
    }
}

/// Everything a pool's proxies bind on a node.
pub fn claims(listeners: &[Listener], metrics: &ProxyMetrics) -> Vec<Claim> {
    let of_node = match metrics.exposure {
        MetricsExposure::Node => Some(EVERY_ADDRESS),
        MetricsExposure::Loopback => None,
    };
    let addresses = metrics.address.parse().ok().into_iter().chain(of_node);
    let metrics = addresses.map(|address| (address, metrics.port));
    listening(listeners).chain(metrics).collect()
}

/// The addresses and ports of the listeners.
pub fn listening(listeners: &[Listener]) -> impl Iterator<Item = Claim> {
    listeners
        .iter()
        .flat_map(|listener| listener.addresses.iter().map(|address| (*address, listener.port)))
}

fn overlap(mine: &Claim, theirs: &Claim) -> bool {
    let is_one_address = mine.0 == theirs.0 || mine.0.is_unspecified() || theirs.0.is_unspecified();
    mine.1 == theirs.1 && is_one_address
}

fn holder(rival: &Rival) -> String {
    let name = &rival.precedence.name;
    if rival.has_pool {
        format!("pool {name}")
    } else {
        format!("the proxies that the deleted pool {name} has left (DaemonSet and ConfigMap trivet-{name})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rival::Precedence;
    use crate::plan::tests::facts;

    fn claim(port: u16) -> Claim {
        ("127.0.0.1".parse().unwrap(), port)
    }

    /// A pool that wants this port and serves none.
    fn rival(name: &str, created: i64, port: u16) -> Rival {
        Rival {
            precedence: Precedence {
                created,
                name: name.to_owned(),
            },
            has_pool: true,
            wanted: vec![claim(port)],
            serving: Vec::new(),
        }
    }

    fn serving(rival: Rival) -> Rival {
        Rival {
            serving: rival.wanted.clone(),
            ..rival
        }
    }

    /// What becomes of the pool `mine`, created at 100, which wants 7443 and 7444.
    fn rejected(serving: &[u16], rival: Rival) -> Option<Rejection> {
        let mut facts = facts();
        facts.precedence = Precedence {
            created: 100,
            name: "mine".to_owned(),
        };
        facts.serving = serving.iter().map(|port| claim(*port)).collect();
        facts.rivals = vec![rival];
        check(&[claim(7443), claim(7444)], &facts).err()
    }

    #[test]
    fn the_older_pool_wins() {
        assert!(rejected(&[], rival("old", 50, 7443)).is_some());
        assert!(rejected(&[], rival("young", 200, 7443)).is_none());
    }

    #[test]
    fn who_serves_already_wins_over_the_older() {
        assert!(rejected(&[], serving(rival("young", 200, 7443))).is_some());
        assert!(rejected(&[7443], rival("old", 50, 7443)).is_none());
    }

    #[test]
    fn an_older_pool_that_serves_elsewhere_takes_no_port_that_a_younger_one_serves() {
        assert!(rejected(&[7443], serving(rival("young", 200, 7444))).is_some());
        assert!(rejected(&[7443, 7444], rival("old", 50, 7444)).is_none());
    }

    #[test]
    fn of_two_pools_that_serve_at_one_port_the_older_is_obeyed() {
        assert!(rejected(&[7443], serving(rival("old", 50, 7443))).is_some());
        assert!(rejected(&[7443], serving(rival("young", 200, 7443))).is_none());
    }

    #[test]
    fn all_addresses_are_a_new_claim_where_one_is_served() {
        let mut facts = facts();
        facts.serving = vec![claim(7444)];
        let other = serving(rival("young", 200, 7444));
        let other = Rival {
            serving: vec![("127.0.0.2".parse().unwrap(), 7444)],
            ..other
        };
        facts.rivals = vec![other];
        assert!(check(&[claim(7444)], &facts).is_ok());
        assert!(check(&[("0.0.0.0".parse().unwrap(), 7444)], &facts).is_err());
    }

    #[test]
    fn metrics_at_the_nodes_addresses_claim_the_port_at_each_of_them() {
        let of = |exposure| ProxyMetrics {
            exposure,
            ..ProxyMetrics::default()
        };
        let (loopback, node) = (of(MetricsExposure::Loopback), of(MetricsExposure::Node));
        assert_eq!(claims(&[], &loopback), [claim(7444)]);
        assert_eq!(claims(&[], &node), [claim(7444), (EVERY_ADDRESS, 7444)]);
        // Another pool's loopback address differs, its node does not.
        let other = Rival {
            serving: vec![("127.0.0.2".parse().unwrap(), 7444)],
            ..rival("other", 50, 7443)
        };
        let mut facts = facts();
        facts.rivals = vec![other];
        assert!(check(&claims(&[], &loopback), &facts).is_ok());
        assert!(check(&claims(&[], &node), &facts).is_err());
    }

    #[test]
    fn other_ports_are_no_conflict() {
        assert!(rejected(&[], serving(rival("old", 50, 8443))).is_none());
    }

    #[test]
    fn the_proxies_of_a_deleted_pool_are_named_with_the_way_out() {
        let orphan = Rival {
            has_pool: false,
            wanted: Vec::new(),
            ..serving(rival("gone", i64::MIN, 7443))
        };
        let message = rejected(&[], orphan).unwrap().to_string();
        assert!(
            message.contains("DaemonSet and ConfigMap trivet-gone"),
            "{message}"
        );
    }
}
