//! Where this node is, and how far its members are. Distance orders only among those that are equally well.

use trivet_crds::wire::{Locality, Member};

/// Where a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// The zone it is in; empty where that is unknown.
    pub zone: String,
}

/// How far a member is from a node, the nearest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// It runs on this very node.
    Local,
    /// It is in the node's zone.
    SameZone,
    /// It is in another zone, or its zone is unknown.
    #[default]
    Elsewhere,
}

impl Distance {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::SameZone => "SameZone",
            Self::Elsewhere => "Elsewhere",
        }
    }
}

/// The word for people: the one in the document.
pub fn locality_as_str(locality: Locality) -> &'static str {
    match locality {
        Locality::PreferLocal => "PreferLocal",
        Locality::PreferSameZone => "PreferSameZone",
        Locality::Any => "Any",
    }
}

impl Place {
    /// How far `member` is.
    pub fn distance(&self, member: &Member) -> Distance {
        if self.is_host_of(member) {
            Distance::Local
        } else if self.is_zone_of(member) {
            Distance::SameZone
        } else {
            Distance::Elsewhere
        }
    }

    /// How far it is as far as the pool's owner cares: new connections go to the nearest by this one.
    pub fn counted_distance(&self, locality: Locality, member: &Member) -> Distance {
        match locality {
            Locality::PreferLocal => self.distance(member),
            Locality::PreferSameZone if self.is_zone_of(member) => Distance::SameZone,
            Locality::PreferSameZone | Locality::Any => Distance::Elsewhere,
        }
    }

    fn is_host_of(&self, member: &Member) -> bool {
        !self.node.is_empty() && self.node == member.node_name
    }

    /// A node is in its own zone whatever the member's entry says, but only if it knows of one: a master without a zone
    /// must not prefer itself under a policy that is about zones.
    fn is_zone_of(&self, member: &Member) -> bool {
        !self.zone.is_empty() && (self.zone == member.zone || self.is_host_of(member))
    }
}

#[cfg(test)]
mod tests {
    use trivet_crds::wire::MemberState;

    use super::*;

    fn place(node: &str, zone: &str) -> Place {
        Place {
            node: node.to_owned(),
            zone: zone.to_owned(),
        }
    }

    fn member(node: &str, zone: &str) -> Member {
        Member {
            name: "cp1".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            port: 6443,
            state: MemberState::Active,
            zone: zone.to_owned(),
            node_name: node.to_owned(),
        }
    }

    #[test]
    fn a_distance_counts_as_far_as_the_locality_asks() {
        use Distance::{Elsewhere, Local, SameZone};
        for (here, there, distance, by_zone) in [
            // This node (name, zone), the member (node, zone), how far it is, how far for PreferSameZone.
            (("m1", "a"), ("m1", "a"), Local, SameZone),
            (("m1", "a"), ("m1", ""), Local, SameZone),
            (("m1", "a"), ("m1", "b"), Local, SameZone),
            (("m1", "a"), ("m2", "a"), SameZone, SameZone),
            (("m1", "a"), ("m2", "b"), Elsewhere, Elsewhere),
            (("m1", "a"), ("m2", ""), Elsewhere, Elsewhere),
            (("m1", "a"), ("", "a"), SameZone, SameZone),
            (("m1", ""), ("m1", "a"), Local, Elsewhere),
            (("m1", ""), ("m2", ""), Elsewhere, Elsewhere),
            (("", ""), ("", ""), Elsewhere, Elsewhere),
        ] {
            let (place, member) = (place(here.0, here.1), member(there.0, there.1));
            let counted = |locality| place.counted_distance(locality, &member);
            assert_eq!(place.distance(&member), distance, "{here:?} {there:?}");
            assert_eq!(counted(Locality::PreferLocal), distance, "{here:?} {there:?}");
            assert_eq!(counted(Locality::PreferSameZone), by_zone, "{here:?} {there:?}");
            assert_eq!(counted(Locality::Any), Elsewhere, "{here:?} {there:?}");
        }
    }
}
