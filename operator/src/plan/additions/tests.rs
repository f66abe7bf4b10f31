//! Whatever is found: a document keeps all that it has, and stays one that proxies follow.

use std::collections::BTreeSet;

use proptest::prelude::*;
use trivet_crds::pool::MemberSource;
use trivet_crds::wire::DisabledMember;

use super::*;
use crate::plan::members::Member;
use crate::plan::tests::document as base;

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn found(name: &str, node_name: &str, numbers: &[u8]) -> Member {
    Member {
        name: name.to_owned(),
        addresses: numbers.iter().map(|number| ip(*number)).collect(),
        port: 6443,
        state: PoolMemberState::Active,
        zone: "a".to_owned(),
        source: MemberSource::Node,
        node_name: node_name.to_owned(),
        note: String::new(),
    }
}

fn in_force(name: &str, node_name: &str, numbers: &[u8]) -> wire::Member {
    wire::Member {
        name: name.to_owned(),
        addresses: numbers.iter().map(|number| ip(*number)).collect(),
        port: 6443,
        state: wire::MemberState::Active,
        zone: String::new(),
        node_name: node_name.to_owned(),
    }
}

fn document(members: &[wire::Member]) -> Document {
    Document {
        members: members.to_vec(),
        ..base()
    }
}

#[test]
fn a_member_that_is_known_by_another_name_is_not_added_beside_itself() {
    let document = document(&[in_force("master-1", "cp1", &[1])]);
    assert!(
        additions(&document, &[found("cp1", "cp1", &[1])])
            .grown
            .is_empty()
    );
    let added = additions(&document, &[found("cp1", "cp1", &[11])]);
    assert_eq!(added.grown, ["master-1"]);
    assert_eq!(added.document.members, [in_force("master-1", "cp1", &[1, 11])]);
    let other_node = additions(&document, &[found("cp2", "cp2", &[1, 12])]);
    assert!(other_node.grown.is_empty(), "its address is that of a member");
}

#[test]
fn a_port_is_part_of_an_address() {
    let document = document(&[in_force("cp1", "cp1", &[1])]);
    let elsewhere = Member {
        port: 6444,
        ..found("10.0.0.1", "cp1", &[1])
    };
    assert_eq!(additions(&document, &[elsewhere]).grown, ["10.0.0.1"]);
    let namesake = Member {
        port: 6444,
        ..found("cp1", "cp1", &[1])
    };
    assert!(
        additions(&document, &[namesake]).grown.is_empty(),
        "names are unique"
    );
}

#[test]
fn a_disabled_member_and_its_addresses_are_not_added() {
    let document = Document {
        disabled_members: vec![DisabledMember {
            name: "cp3".to_owned(),
            sockets: vec![SocketAddr::new(ip(3), 6443)],
        }],
        ..document(&[in_force("cp1", "cp1", &[1])])
    };
    for member in [
        found("cp3", "cp3", &[13]),
        found("10.0.0.13", "cp3", &[13]),
        found("cp4", "cp4", &[3]),
        Member {
            state: PoolMemberState::Disabled,
            ..found("cp5", "cp5", &[5])
        },
    ] {
        assert!(
            additions(&document, std::slice::from_ref(&member))
                .grown
                .is_empty(),
            "{member:?}"
        );
    }
}

#[test]
fn an_address_that_a_document_may_not_have_is_not_added() {
    let document = document(&[in_force("cp1", "cp1", &[1])]);
    let mut reserved = found("cp2", "cp2", &[2]);
    reserved.addresses = ["0.0.0.0", "fe80::2", "::ffff:10.0.0.2"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let portless = Member {
        port: 0,
        ..found("cp3", "cp3", &[3])
    };
    assert!(additions(&document, &[reserved, portless]).grown.is_empty());
}

#[test]
fn the_bounds_of_a_document_hold_and_what_they_leave_out_is_told() {
    let many: Vec<_> = (1..=70)
        .map(|number| found(&format!("n{number:02}"), "", &[number]))
        .collect();
    let added = additions(&document(&[in_force("cp1", "cp1", &[200])]), &many);
    assert_eq!(added.document.members.len(), MAX_MEMBERS);
    assert_eq!(added.left_out.len(), 70 + 1 - MAX_MEMBERS);
    assert!(
        added.left_out[0].starts_with("n64 is not added"),
        "{:?}",
        added.left_out
    );

    let added = additions(
        &document(&[in_force("cp1", "cp1", &[1, 2])]),
        &[found("cp1", "cp1", &[3, 4, 5])],
    );
    assert_eq!(added.document.members, [in_force("cp1", "cp1", &[1, 2, 3, 4])]);
    assert!(
        added.left_out[0].starts_with("10.0.0.5 of cp1"),
        "{:?}",
        added.left_out
    );
}

fn any_member() -> impl Strategy<Value = Member> {
    let state = prop_oneof![
        4 => Just(PoolMemberState::Active),
        1 => Just(PoolMemberState::Draining),
        1 => Just(PoolMemberState::Disabled),
    ];
    let numbers = proptest::collection::vec(1..=12u8, 0..=5);
    (0..=6u8, 0..=4u8, numbers, any::<bool>(), state).prop_map(
        |(name, node, numbers, is_other_port, state)| {
            let node_name = if node == 0 {
                String::new()
            } else {
                format!("n{node}")
            };
            Member {
                port: if is_other_port { 6444 } else { 6443 },
                state,
                ..found(&format!("n{name}"), &node_name, &numbers)
            }
        },
    )
}

/// A document that proxies follow, made of whatever was found.
fn any_document() -> impl Strategy<Value = Document> {
    let members = proptest::collection::vec(any_member(), 1..6);
    let disabled =
        proptest::collection::btree_map(0..=6u8, proptest::collection::btree_set(1..=12u8, 0..2), 0..3);
    (members, disabled).prop_map(|(members, disabled)| {
        let mut document = additions(&document(&[in_force("first", "", &[250])]), &members).document;
        let is_used = |socket: &SocketAddr| document.members.iter().any(|member| has(member, *socket));
        let disabled = disabled.into_iter().map(|(name, numbers)| DisabledMember {
            name: format!("n{name}"),
            sockets: numbers
                .into_iter()
                .map(|number| SocketAddr::new(ip(number), 6443))
                .filter(|socket| !is_used(socket))
                .collect(),
        });
        let is_free = |name: &str| document.members.iter().all(|member| member.name != name);
        document.disabled_members = disabled.filter(|member| is_free(&member.name)).collect();
        document
    })
}

proptest! {
    /// Everything of the old document is in the new one, unchanged and in its order; all that is new was found; a second
    /// time nothing is added; and proxies follow the result.
    #[test]
    fn a_document_only_grows_by_what_is_found(
        document in any_document(),
        found in proptest::collection::vec(any_member(), 0..8),
    ) {
        let added = additions(&document, &found);
        let after = &added.document;
        prop_assert_eq!(&Document { members: document.members.clone(), ..after.clone() }, &document);
        prop_assert!(after.members.len() >= document.members.len());
        for (old, new) in document.members.iter().zip(&after.members) {
            prop_assert!(new.addresses.starts_with(&old.addresses));
            prop_assert_eq!(&wire::Member { addresses: old.addresses.clone(), ..new.clone() }, old);
        }
        prop_assert_eq!(added.grown.is_empty(), *after == document);

        let sockets = |document: &Document| document.members.iter().flat_map(wire::Member::sockets).collect::<Vec<_>>();
        let (had, has) = (sockets(&document), sockets(after));
        let unique: BTreeSet<_> = has.iter().collect();
        prop_assert_eq!(unique.len(), has.len(), "an address twice");
        let usable = |member: &&Member| member.state != PoolMemberState::Disabled;
        for socket in has.iter().filter(|socket| !had.contains(socket)) {
            let mut sources = found.iter().filter(usable);
            prop_assert!(sources.any(|member| member.sockets().any(|other| other == *socket)), "{} was not found", socket);
        }
        for member in &after.members[document.members.len()..] {
            let mut sources = found.iter().filter(usable);
            prop_assert!(sources.any(|source| source.name == member.name && source.node_name == member.node_name));
        }

        prop_assert!(additions(after, &found).grown.is_empty());
        let sealed = after.clone().seal().unwrap();
        prop_assert_eq!(Document::parse(&sealed.to_text().unwrap()).unwrap(), sealed);
    }
}
