//! Two pools may not listen in the same place: whoever serves already wins, then the older one.

use std::net::IpAddr;

use trivet_crds::pool::ProxyMetrics;
use trivet_crds::wire::Listener;

use super::facts::Facts;
use super::rejection::Rejection;

/// A pool's place in the queue; the smaller wins. Fields in order of weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// No document is in force for it. (false < true: who serves comes first.)
    pub is_idle: bool,
    /// When it was created, in seconds; an orphan, whose pool is gone, was there before all.
    pub created: i64,
    /// Decides between twins.
    pub name: String,
}

/// Another pool, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its place in the queue.
    pub precedence: Precedence,
    /// Whether the pool object exists. Proxies outlive it.
    pub has_pool: bool,
    /// Where it listens.
    pub claims: Vec<(IpAddr, u16)>,
}

/// The conflict that keeps this pool from its listeners, if there is one.
pub fn find(listeners: &[Listener], metrics: &ProxyMetrics, facts: &Facts) -> Option<Rejection> {
    let mine = claims(listeners, metrics);
    let ahead = facts
        .rivals
        .iter()
        .filter(|rival| rival.precedence < facts.precedence);
    ahead
        .flat_map(|rival| rival.claims.iter().map(move |claim| (rival, claim)))
        .find_map(|(rival, theirs)| {
            let claim = mine.iter().find(|claim| overlap(claim, theirs))?;
            Some(Rejection::Conflict {
                what: format!("{}, port {}", claim.0, claim.1),
                holder: holder(rival),
            })
        })
}

/// Everything a pool's proxies bind on a node.
pub fn claims(listeners: &[Listener], metrics: &ProxyMetrics) -> Vec<(IpAddr, u16)> {
    let listening = listeners
        .iter()
        .flat_map(|l| l.addresses.iter().map(|address| (*address, l.port)));
    listening
        .chain(
            metrics
                .address
                .parse()
                .ok()
                .map(|address| (address, metrics.port)),
        )
        .collect()
}

fn overlap(mine: &(IpAddr, u16), theirs: &(IpAddr, u16)) -> bool {
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
    use crate::plan::tests::facts;

    fn listeners(port: u16) -> Vec<Listener> {
        vec![Listener {
            name: "apiserver".into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            port,
        }]
    }

    fn rival(name: &str, is_idle: bool, created: i64, port: u16) -> Rival {
        let precedence = Precedence {
            is_idle,
            created,
            name: name.to_owned(),
        };
        Rival {
            precedence,
            has_pool: true,
            claims: vec![("127.0.0.1".parse().unwrap(), port)],
        }
    }

    fn rejected(rivals: Vec<Rival>) -> Option<Rejection> {
        let mut facts = facts();
        facts.precedence = Precedence {
            is_idle: true,
            created: 100,
            name: "mine".to_owned(),
        };
        facts.rivals = rivals;
        find(&listeners(7443), &ProxyMetrics::default(), &facts)
    }

    #[test]
    fn the_older_pool_wins() {
        assert!(rejected(vec![rival("old", true, 50, 7443)]).is_some());
        assert!(rejected(vec![rival("young", true, 200, 7443)]).is_none());
    }

    #[test]
    fn who_serves_already_wins_over_the_older() {
        assert!(rejected(vec![rival("serving", false, 200, 7443)]).is_some());
    }

    #[test]
    fn other_ports_are_no_conflict_but_the_metrics_port_is() {
        assert!(rejected(vec![rival("old", true, 50, 8443)]).is_none());
        assert!(rejected(vec![rival("old", true, 50, 7444)]).is_some());
    }

    #[test]
    fn the_proxies_of_a_deleted_pool_are_named_with_the_way_out() {
        let orphan = Rival {
            has_pool: false,
            ..rival("gone", false, i64::MIN, 7443)
        };
        let message = rejected(vec![orphan]).unwrap().to_string();
        assert!(
            message.contains("DaemonSet and ConfigMap trivet-gone"),
            "{message}"
        );
    }
}
