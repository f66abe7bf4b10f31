//! Since which revision the document has its members in their states: a report of an earlier revision says nothing about
//! whether a member that leaves has clients left. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use trivet_crds::pool::PoolMemberState;

use super::Member;

/// The members and their states, and since when they are so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<String, (PoolMemberState, Vec<IpAddr>, u16)>,
    /// The revision; 0 before the first document.
    pub since: u64,
}

impl Membership {
    /// The membership once `members` are in the document of this revision. An operator that has just started does not know
    /// since when they are, and takes the newest revision for it: then the nodes report it, or are waited for.
    #[must_use]
    pub fn next(&self, members: &[Member], revision: u64) -> Self {
        let members: BTreeMap<_, _> = members
            .iter()
            .map(|member| {
                let mut addresses = member.addresses.clone();
                addresses.sort_unstable();
                (member.name.clone(), (member.state, addresses, member.port))
            })
            .collect();
        let is_same = self.since > 0 && self.since <= revision && self.members == members;
        Self {
            members,
            since: if is_same { self.since } else { revision },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trivet_crds::pool::MemberSource;

    use super::*;

    fn member(name: u8, state: PoolMemberState) -> Member {
        Member {
            name: format!("cp{name}"),
            addresses: vec![IpAddr::from([10, 0, 0, name])],
            port: 6443,
            state,
            zone: String::new(),
            source: MemberSource::Node,
            node_name: String::new(),
            note: String::new(),
        }
    }

    const STATES: [PoolMemberState; 3] = [
        PoolMemberState::Active,
        PoolMemberState::Draining,
        PoolMemberState::Disabled,
    ];

    proptest! {
        #[test]
        fn a_member_that_leaves_again_is_not_said_to_leave_since_the_first_time(
            history in prop::collection::vec((prop::sample::select(&STATES[..]), any::<bool>()), 1..30),
        ) {
            let mut membership = Membership::default();
            let (mut before, mut since) = (None, 0);
            for (revision, (state, has_other)) in (1_u64..).zip(history) {
                let mut members = vec![member(1, state)];
                members.extend(has_other.then(|| member(2, PoolMemberState::Active)));
                if before.as_ref() != Some(&members) {
                    since = revision;
                }
                membership = membership.next(&members, revision);
                prop_assert_eq!(membership.since, since);
                before = Some(members);
            }
        }
    }

    #[test]
    fn an_operator_that_has_just_started_and_one_with_a_lost_document_begin_anew() {
        let members = [member(1, PoolMemberState::Draining)];
        let known = Membership::default().next(&members, 7);
        assert_eq!((known.since, known.next(&members, 9).since), (7, 7));
        assert_eq!(Membership::default().next(&members, 9).since, 9);
        assert_eq!(known.next(&members, 3).since, 3, "a document of a backup");
    }
}
