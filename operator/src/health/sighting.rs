//! What the proxies of Ready nodes see of each apiserver, by their reports. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use trivet_crds::pool::MemberHealth;
use trivet_crds::report::ReportedHealth;

use crate::reports::words::NAMES_LIMIT;

/// What the nodes see of all addresses, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings(Arc<BTreeMap<SocketAddr, Sighting>>);

/// What the nodes see of one address, or of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How many nodes report it.
    pub reporting: u32,
    /// How many of them have had a verified answer at their last probe.
    pub reachable: u32,
    /// On how many it is Up, Unready and Down.
    pub up: u32,
    /// See `up`.
    pub unready: u32,
    /// See `up`.
    pub down: u32,
    /// The nodes on which it is not Up, the worst first and by name, as far as a message names them.
    pub ailing: Vec<Ailing>,
    /// When a proxy last told of a verified answer, whether or not one does now.
    pub verified_at: Option<Instant>,
}

/// A node on which a member is not Up. The order is that of a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ailing {
    /// The health there.
    pub health: std::cmp::Reverse<ReportedHealth>,
    /// The node.
    pub node: String,
    /// Why, in the words of the proxy.
    pub why: String,
}

impl Sightings {
    /// Takes what was collected.
    pub fn new(seen: BTreeMap<SocketAddr, Sighting>) -> Self {
        Self(Arc::new(seen))
    }

    /// What the nodes see of the member with these addresses. Each node reports one address of a member.
    pub fn of(&self, addresses: &[IpAddr], port: u16) -> Sighting {
        let mut whole = Sighting::default();
        let found = addresses
            .iter()
            .filter_map(|ip| self.0.get(&SocketAddr::new(*ip, port)));
        for part in found {
            whole.add(part);
        }
        whole
    }
}

impl Sighting {
    /// Adds what one node sees.
    pub fn note(&mut self, node: &str, health: ReportedHealth, is_verified: bool, why: &str) {
        self.reporting = self.reporting.saturating_add(1);
        self.reachable = self.reachable.saturating_add(u32::from(is_verified));
        let count = match health {
            ReportedHealth::Up => {
                self.up = self.up.saturating_add(1);
                return;
            }
            ReportedHealth::Unready => &mut self.unready,
            ReportedHealth::Down => &mut self.down,
        };
        *count = count.saturating_add(1);
        self.rank(std::cmp::Reverse(health), node, why);
    }

    /// Whether it is Up on most of the nodes that report it.
    pub fn is_up_for_most(&self) -> bool {
        self.up.saturating_mul(2) > self.reporting
    }

    /// On how many nodes it is not Up.
    pub fn not_up(&self) -> u32 {
        self.unready.saturating_add(self.down)
    }

    /// What most of the nodes see; where they are divided, or none reports, what the operator sees.
    pub fn health(&self, by_operator: Option<MemberHealth>) -> MemberHealth {
        let by_operator = by_operator.unwrap_or(MemberHealth::Unknown);
        if self.is_up_for_most() {
            MemberHealth::Up
        } else if self.up.saturating_mul(2) == self.reporting {
            by_operator
        } else if self.unready > self.down {
            MemberHealth::Unready
        } else {
            MemberHealth::Down
        }
    }

    fn add(&mut self, other: &Self) {
        self.reporting = self.reporting.saturating_add(other.reporting);
        self.reachable = self.reachable.saturating_add(other.reachable);
        self.up = self.up.saturating_add(other.up);
        self.unready = self.unready.saturating_add(other.unready);
        self.down = self.down.saturating_add(other.down);
        self.verified_at = self.verified_at.max(other.verified_at);
        for ailing in &other.ailing {
            self.rank(ailing.health, &ailing.node, &ailing.why);
        }
    }

    /// Names this node, if a message has room for it. In a large cluster it has none for most: nothing is copied for those.
    fn rank(&mut self, health: std::cmp::Reverse<ReportedHealth>, node: &str, why: &str) {
        let comes_first =
            |other: &Ailing| (other.health, other.node.as_str(), other.why.as_str()) < (health, node, why);
        let place = self.ailing.partition_point(comes_first);
        if place < NAMES_LIMIT {
            let (node, why) = (node.to_owned(), why.to_owned());
            self.ailing.insert(place, Ailing { health, node, why });
            self.ailing.truncate(NAMES_LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [ReportedHealth; 3] = [ReportedHealth::Up, ReportedHealth::Unready, ReportedHealth::Down];

    fn seen(healths: &[ReportedHealth]) -> Sighting {
        let mut sighting = Sighting::default();
        for (number, health) in healths.iter().enumerate() {
            let is_verified = *health != ReportedHealth::Down;
            sighting.note(&format!("w{number:02}"), *health, is_verified, "why");
        }
        sighting
    }

    #[test]
    fn most_nodes_decide_and_the_operator_where_they_are_divided() {
        use ReportedHealth::{Down, Unready, Up};
        let health = |healths: &[ReportedHealth], by| seen(healths).health(by);
        assert_eq!(health(&[], None), MemberHealth::Unknown);
        assert_eq!(health(&[], Some(MemberHealth::Down)), MemberHealth::Down);
        assert_eq!(
            health(&[Up, Up, Down], Some(MemberHealth::Down)),
            MemberHealth::Up
        );
        assert_eq!(
            health(&[Up, Down, Down], Some(MemberHealth::Up)),
            MemberHealth::Down
        );
        assert_eq!(health(&[Unready, Unready, Down], None), MemberHealth::Unready);
        assert_eq!(health(&[Up, Down], Some(MemberHealth::Up)), MemberHealth::Up);
        assert_eq!(
            health(&[Up, Down], Some(MemberHealth::Unready)),
            MemberHealth::Unready
        );
    }

    proptest! {
        #[test]
        fn a_message_names_ten_nodes_at_most_and_the_worst_first_however_many_there_are(
            healths in prop::collection::vec(prop::sample::select(&ALL[..]), 0..60),
            split in 0..60_usize,
        ) {
            let whole = seen(&healths);
            let not_up = healths.iter().filter(|health| **health != ReportedHealth::Up).count();
            prop_assert_eq!(usize::try_from(whole.not_up()).unwrap(), not_up);
            prop_assert_eq!(whole.ailing.len(), not_up.min(NAMES_LIMIT));
            prop_assert!(whole.ailing.is_sorted());
            let down = healths.iter().filter(|health| **health == ReportedHealth::Down).count();
            let is_down = |ailing: &&Ailing| ailing.health.0 == ReportedHealth::Down;
            prop_assert_eq!(whole.ailing.iter().filter(is_down).count(), down.min(NAMES_LIMIT));

            // Some nodes use another address of the member.
            let mut parts = BTreeMap::new();
            for (number, health) in healths.iter().enumerate() {
                let last = if number < split { 1 } else { 2 };
                let address = SocketAddr::from(([10, 0, 0, last], 6443));
                let part: &mut Sighting = parts.entry(address).or_default();
                part.note(&format!("w{number:02}"), *health, *health != ReportedHealth::Down, "why");
            }
            let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
            prop_assert_eq!(Sightings::new(parts).of(&addresses, 6443), whole);
        }
    }
}
