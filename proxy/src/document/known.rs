//! Where documents say that apiservers are, and which documents are worth keeping for it. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use trivet_crds::wire::Document;

use crate::{balance::PathKey, settings};

/// The most addresses that are tried when no member answers any more, beside those of members. A proxy asks each of them at
/// the pace of its probes.
const MAX_FURTHER: usize = 32;

/// So many of the newest documents are kept whatever they know: a broken write must not cost the settings in force.
const NEWEST: usize = 2;

/// What one document knows of apiservers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The paths of its members.
    pub(super) paths: Vec<PathKey>,
    /// Its further endpoints.
    further: Vec<SocketAddr>,
}

impl Known {
    /// What this document knows.
    pub(super) fn of(document: &Document) -> Self {
        Self {
            paths: document.members.iter().flat_map(settings::paths).collect(),
            further: document.further_endpoints.clone(),
        }
    }

    /// The addresses of its members.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.paths.iter().map(|path| path.address).collect()
    }
}

/// Where an apiserver may be beside the members of the document in force and those `earlier` addresses of members: at the
/// further endpoints of that document, and where the seed has members. Each address comes once. The endpoints of earlier
/// documents do not count: unlike a member, one that was disabled since then has no name by which it is recognised.
pub(super) fn further(current: &Known, earlier: BTreeSet<SocketAddr>, seed: &Known) -> Vec<PathKey> {
    let mut known = earlier;
    known.extend(current.addresses());
    let endpoints = current.further.iter().map(|address| PathKey {
        member: endpoint_name(address.ip()),
        address: *address,
    });
    let found = endpoints.chain(seed.paths.iter().cloned());
    found
        .filter(|path| known.insert(path.address))
        .take(MAX_FURTHER)
        .collect()
}

/// The name of a further endpoint, which has none: for the metrics, and for people.
fn endpoint_name(ip: IpAddr) -> String {
    format!("endpoint-{ip}")
}

/// Which documents to keep, of those with members at these addresses, the newest first: the newest, then those that know an
/// address that none of the newer ones knows, then the newest again. A rollout, or an edit of a setting, makes several
/// documents with the same members, and a node that was off while masters were replaced needs those from before.
pub(super) fn kept(documents: &[BTreeSet<SocketAddr>], limit: usize) -> Vec<bool> {
    let mut known = BTreeSet::<&SocketAddr>::new();
    let says_more = documents.iter().map(|addresses| {
        let before = known.len();
        known.extend(addresses);
        known.len() > before
    });
    let ranked = says_more.enumerate();
    let mut ranked: Vec<_> = ranked
        .map(|(index, says_more)| (index >= NEWEST, !says_more && index >= NEWEST, index))
        .collect();
    ranked.sort_unstable();
    let kept: BTreeSet<_> = ranked.into_iter().take(limit).map(|(.., index)| index).collect();
    (0..documents.len()).map(|index| kept.contains(&index)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 6443))
    }

    fn path(number: u8) -> PathKey {
        PathKey {
            member: format!("cp{number}"),
            address: address(number),
        }
    }

    fn document(members: &[u8], further: &[u8]) -> Known {
        Known {
            paths: members.iter().map(|number| path(*number)).collect(),
            further: further.iter().map(|number| address(*number)).collect(),
        }
    }

    fn sets(documents: &[&[u8]]) -> Vec<BTreeSet<SocketAddr>> {
        let set = |numbers: &&[u8]| numbers.iter().map(|number| address(*number)).collect();
        documents.iter().map(set).collect()
    }

    #[test]
    fn further_endpoints_come_once_and_the_members_of_the_seed_last() {
        let current = document(&[1], &[7, 2, 8, 7, 1]);
        let seed = document(&[1, 9, 8, 2], &[6]);
        let found = further(&current, [address(2)].into(), &seed);
        let told: Vec<_> = found.iter().map(|path| path.member.as_str()).collect();
        assert_eq!(told, ["endpoint-10.0.0.7", "endpoint-10.0.0.8", "cp9"]);
    }

    #[test]
    fn a_rollout_does_not_push_out_the_documents_that_know_other_members() {
        // The newest first: four of a rollout, then those of a master that replaced another one.
        let documents = sets(&[
            &[2, 3, 4],
            &[2, 3, 4],
            &[2, 3, 4],
            &[2, 3, 4],
            &[1, 2, 3, 4],
            &[1, 2, 3],
        ]);
        assert_eq!(kept(&documents, 5), [true, true, true, true, true, false]);
        let documents = sets(&[&[4], &[4], &[4], &[4], &[4], &[3], &[2], &[1]]);
        assert_eq!(
            kept(&documents, 5),
            [true, true, false, false, false, true, true, true]
        );
    }

    #[test]
    fn masters_that_were_all_replaced_one_by_one_are_remembered_through_a_round() {
        let rounds = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3], [4, 5, 6]];
        let mut kept_documents = vec![BTreeSet::from([1, 2, 3])];
        let mut members = kept_documents[0].clone();
        for (old, new) in rounds.iter().zip(&rounds[1..]) {
            for (leaves, joins) in old.iter().zip(new) {
                // Each joins, drains the old one by an edit of its state, and takes its place.
                members.insert(*joins);
                let joined = members.clone();
                members.remove(leaves);
                for document in [joined.clone(), joined, members.clone()] {
                    kept_documents.insert(0, document);
                    let sets: Vec<_> = kept_documents
                        .iter()
                        .map(|numbers| numbers.iter().map(|number| address(*number)).collect())
                        .collect();
                    let mut is_kept = kept(&sets, 5).into_iter();
                    kept_documents.retain(|_| is_kept.next().unwrap());
                }
            }
        }
        let known: BTreeSet<_> = kept_documents.into_iter().flatten().collect();
        assert!(known.is_superset(&[1, 2, 3, 4, 5, 6].into()), "{known:?}");
    }

    proptest! {
        #[test]
        fn the_newest_stay_and_as_many_as_there_is_room_for(
            documents in prop::collection::vec(prop::collection::btree_set(0..12_u8, 0..4), 0..12),
            limit in 2..8_usize,
        ) {
            let documents: Vec<BTreeSet<_>> =
                documents.iter().map(|set| set.iter().map(|number| address(*number)).collect()).collect();
            let kept = kept(&documents, limit);
            prop_assert!(kept.iter().take(2).all(|kept| *kept));
            prop_assert_eq!(kept.iter().filter(|kept| **kept).count(), limit.min(documents.len()));
        }

        #[test]
        fn no_address_is_lost_while_there_is_room_for_the_documents_that_alone_have_it(
            documents in prop::collection::vec(prop::collection::btree_set(0..3_u8, 0..4), 0..12),
        ) {
            // Three addresses need three documents at most, beside the newest.
            let documents: Vec<BTreeSet<_>> =
                documents.iter().map(|set| set.iter().map(|number| address(*number)).collect()).collect();
            let kept = kept(&documents, NEWEST + 3);
            let of = |set: &BTreeSet<SocketAddr>| set.clone();
            let all: BTreeSet<_> = documents.iter().flat_map(of).collect();
            let left: BTreeSet<_> = documents.iter().zip(kept).filter(|(_, kept)| *kept).flat_map(|(set, _)| of(set)).collect();
            prop_assert_eq!(all, left);
        }
    }
}
