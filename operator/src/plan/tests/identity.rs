//! One apiserver is one member, whatever the spec lists and whatever nodes, names and EndpointSlices say.

use std::collections::BTreeSet;

use trivet_crds::pool::MemberSource;

use super::*;
use crate::plan::endpoints::Endpoint;
use crate::plan::masters::Origin;

const NAME: &str = "api.example.com";

impl World {
    fn discover_at(&mut self, masters: &[(&str, &[u8])]) {
        let master = |(name, numbers): &(&str, &[u8])| Master {
            name: (*name).to_owned(),
            addresses: numbers.iter().map(|number| ip(*number)).collect(),
            ..Master::default()
        };
        self.facts.discovered = Discovered::Masters(masters.iter().map(master).collect());
    }

    fn resolve(&mut self, numbers: &[u8]) {
        let found = numbers.iter().map(|number| ip(*number)).collect();
        self.facts.resolved = [(NAME.to_owned(), Ok(found))].into();
    }

    fn fail_to_resolve(&mut self) {
        self.facts.resolved = [(NAME.to_owned(), Err("timed out".to_owned()))].into();
    }

    fn endpoints(&mut self, numbers: &[u8]) {
        let endpoint = |number: &u8| Endpoint {
            socket: SocketAddr::new(ip(*number), 6443),
            node_name: String::new(),
        };
        self.facts.endpoints = Some(numbers.iter().map(endpoint).collect());
    }

    /// Each member in force with the last numbers of its addresses.
    fn addresses(&self) -> Vec<(String, Vec<u8>)> {
        let number = |ip: &IpAddr| match ip {
            IpAddr::V4(four) => four.octets()[3],
            IpAddr::V6(_) => panic!("{ip}"),
        };
        let members = self.facts.current.members.iter();
        members
            .map(|member| (member.name.clone(), member.addresses.iter().map(number).collect()))
            .collect()
    }
}

fn expect(members: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    members
        .iter()
        .map(|(name, numbers)| ((*name).to_owned(), numbers.to_vec()))
        .collect()
}

#[test]
fn a_name_with_an_address_for_each_master_takes_none_of_them() {
    let mut world = World::with_masters(3);
    let revision = world.revision();
    world.list("api", &[NAME], PoolMemberState::Active);
    world.resolve(&[1, 2, 3]);
    let plan = world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[3])])
    );
    assert_eq!(world.revision(), revision);
    let told = notes(&plan);
    for part in ["api", "10.0.0.1 of cp1", "10.0.0.2 of cp2", "10.0.0.3 of cp3"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_name_with_addresses_of_several_masters_and_one_of_its_own_is_a_member_beside_them() {
    let mut world = World::with_masters(2);
    world.list("api", &[NAME], PoolMemberState::Active);
    world.resolve(&[1, 2, 9]);
    world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("api", &[9]), ("cp1", &[1]), ("cp2", &[2])])
    );
}

#[test]
fn an_entry_with_addresses_of_several_masters_is_the_one_that_it_is_named_after() {
    let mut world = World::with_masters(3);
    world.list("cp1", &["10.0.0.1", "10.0.0.2"], PoolMemberState::Draining);
    let plan = world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[3])])
    );
    assert_eq!(world.facts.current.members[0].state, wire::MemberState::Draining);
    assert!(notes(&plan).contains("10.0.0.2 of cp2"), "{}", notes(&plan));

    world.list("cp1", &["10.0.0.2"], PoolMemberState::Disabled);
    world.pass();
    assert_eq!(world.addresses(), expect(&[("cp2", &[2]), ("cp3", &[3])]));
}

#[test]
fn masters_that_cannot_be_read_are_not_swallowed_by_a_name() {
    for nothing in [Discovered::Unknown, Discovered::Masters(Vec::new())] {
        let mut world = World::with_masters(3);
        let revision = world.revision();
        world.facts.discovered = nothing;
        world.list("api", &[NAME], PoolMemberState::Active);
        world.resolve(&[1, 2, 3]);
        world.pass();
        assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
        assert_eq!(world.revision(), revision);
    }
}

#[test]
fn without_discovery_a_name_may_have_the_addresses_of_former_masters() {
    let mut world = World::with_masters(3);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.list("api", &[NAME], PoolMemberState::Active);
    world.resolve(&[1, 2, 3]);
    world.pass();
    assert_eq!(world.addresses(), expect(&[("api", &[1, 2, 3])]));
}

#[test]
fn of_two_entries_with_one_address_the_one_that_spells_it_out_has_it() {
    let mut world = World::with_masters(1);
    world.list("a", &[NAME], PoolMemberState::Active);
    world.list("b", &["10.0.0.8"], PoolMemberState::Active);
    world.resolve(&[8, 9]);
    let plan = world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("a", &[9]), ("b", &[8]), ("cp1", &[1])])
    );
    assert!(notes(&plan).contains("10.0.0.8 of b"), "{}", notes(&plan));
}

#[test]
fn a_name_that_flaps_makes_no_revision() {
    let mut world = World::with_masters(1);
    world.list("named", &[NAME, "10.0.0.7"], PoolMemberState::Active);
    world.resolve(&[8, 9]);
    world.pass();
    let in_force = world.addresses();
    assert_eq!(in_force[1], ("named".to_owned(), vec![8, 9, 7]));
    let revision = world.revision();
    for _ in 0..3 {
        world.fail_to_resolve();
        let plan = world.pass();
        let named = plan.members.iter().find(|member| member.name == "named").unwrap();
        assert!(
            named.note.contains("last known") && named.note.contains("timed out"),
            "{}",
            named.note
        );
        world.resolve(&[8, 9]);
        world.pass();
    }
    assert_eq!(world.addresses(), in_force);
    assert_eq!(world.revision(), revision);
}

/// A member beside a master, listed by a name that resolves to 9.
fn named() -> World {
    let mut world = World::with_masters(1);
    world.alive = vec![1, 9];
    world.list("named", &[NAME], PoolMemberState::Active);
    world.resolve(&[9]);
    world.pass();
    assert_eq!(world.addresses()[1], ("named".to_owned(), vec![9]));
    world
}

#[test]
fn an_address_that_answers_stays_though_the_name_no_longer_resolves_to_it() {
    let mut world = named();
    world.restart();
    world.resolve(&[39]);
    let plan = world.wait(DELAY * 2);
    assert_eq!(world.addresses()[1].1, [9]);
    let note = &plan.members[1].note;
    assert!(
        note.contains("no longer resolves to 10.0.0.9") && note.contains("10.0.0.39"),
        "{note}"
    );
    // Not probed yet: nothing is known of either.
    world.restart();
    world.pass_unprobed();
    assert!(
        world.addresses()[1].1.starts_with(&[9]),
        "{:?}",
        world.addresses()
    );
    // The new one answers too.
    world.alive.push(39);
    world.wait(DELAY * 2);
    let mut both = world.addresses()[1].1.clone();
    both.sort_unstable();
    assert_eq!(both, [9, 39]);
}

#[test]
fn a_name_that_moves_is_followed() {
    let mut world = named();
    world.alive = vec![1, 39];
    world.resolve(&[39]);
    world.pass();
    assert!(world.addresses()[1].1.contains(&39), "{:?}", world.addresses());
    world.wait(DELAY + Duration::from_secs(5));
    assert_eq!(world.addresses()[1].1, [39]);
}

#[test]
fn an_address_that_the_owner_removes_from_an_entry_is_not_kept() {
    let mut world = named();
    world.alive.push(8);
    world.list("named", &[NAME, "10.0.0.8"], PoolMemberState::Active);
    world.pass();
    assert_eq!(world.addresses()[1].1, [9, 8]);
    world.list("named", &[NAME], PoolMemberState::Active);
    world.pass();
    assert_eq!(world.addresses()[1].1, [9]);
}

#[test]
fn a_name_that_resolves_to_the_address_of_another_entry_takes_it_from_none() {
    let mut world = named();
    world.alive.push(8);
    world.list("another", &["another.example.com"], PoolMemberState::Active);
    let resolve = |numbers: [u8; 2], world: &mut World| {
        let names = [NAME, "another.example.com"].into_iter().zip(numbers);
        world.facts.resolved = names
            .map(|(name, number)| (name.to_owned(), Ok(vec![ip(number)])))
            .collect();
        world.pass();
        world.addresses()
    };
    let expected = expect(&[("another", &[8]), ("cp1", &[1]), ("named", &[9])]);
    assert_eq!(resolve([9, 8], &mut world), expected);
    assert_eq!(resolve([9, 9], &mut world), expected);
    assert_eq!(resolve([8, 8], &mut world), expected);
}

#[test]
fn an_address_that_several_nodes_report_is_used_for_none_that_has_another() {
    let mut world = World::with_masters(3);
    let revision = world.revision();
    world.discover_at(&[("cp1", &[1, 30]), ("cp2", &[30, 2]), ("cp3", &[3])]);
    let plan = world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[3])])
    );
    assert_eq!(world.revision(), revision);
    let told = notes(&plan);
    assert!(told.contains("10.0.0.30 is an address of cp1, cp2"), "{told}");
}

#[test]
fn nodes_that_report_nothing_but_a_shared_address_stay_where_they_were() {
    let mut world = World::with_masters(3);
    world.alive.push(30);
    world.discover_at(&[("cp1", &[30]), ("cp2", &[30]), ("cp3", &[30])]);
    world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[3])])
    );
}

#[test]
fn of_new_nodes_with_one_address_one_is_a_member_and_the_others_are_told() {
    let mut world = World::with_masters(0);
    world.alive = vec![30];
    world.discover_at(&[("cp1", &[30]), ("cp2", &[30])]);
    let plan = world.pass();
    assert_eq!(world.addresses(), expect(&[("cp1", &[30])]));
    let told = notes(&plan);
    for part in [
        "10.0.0.30 is an address of cp1, cp2",
        "used for cp1 alone",
        "cp2 is left out",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_member_whose_other_address_goes_over_to_another_node_is_not_removed() {
    let mut world = World::with_masters(0);
    world.alive = vec![1, 2, 3, 30];
    world.discover_at(&[("cp1", &[1, 30]), ("cp2", &[2]), ("cp3", &[3])]);
    world.pass();
    world.discover_at(&[("cp2", &[2, 30]), ("cp3", &[3])]);
    world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[("cp1", &[1]), ("cp2", &[2, 30]), ("cp3", &[3])])
    );
}

#[test]
fn an_address_that_a_node_no_longer_reports_stays_until_the_member_is_up_at_another() {
    let mut world = World::with_masters(0);
    world.alive = vec![2, 3, 11];
    world.discover_at(&[("cp1", &[1, 11]), ("cp2", &[2]), ("cp3", &[3])]);
    world.pass();
    world.discover_at(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[3])]);
    let plan = world.wait(DELAY * 2);
    assert_eq!(world.addresses()[0].1, [1, 11], "nothing answers at the other");
    assert!(
        plan.members[0].note.contains("no longer says 10.0.0.11"),
        "{plan:?}"
    );
    world.alive.push(1);
    world.pass();
    assert_eq!(world.addresses()[0].1, [1]);
}

#[test]
fn a_node_without_an_address_is_not_taken_for_an_entry_that_was_named_after_it() {
    let mut world = World::with_masters(1);
    world.alive.push(3);
    world.list("cp3", &["10.0.0.1"], PoolMemberState::Active);
    world.pass();
    assert_eq!(world.facts.current.members[0].node_name, "cp1");
    // The entry goes, and neither node says where it is: cp1 is where it was, and cp3 has never been anywhere.
    world.pool.spec.members.clear();
    world.discover_at(&[("cp1", &[]), ("cp3", &[])]);
    let plan = world.pass();
    assert_eq!(world.addresses(), expect(&[("cp1", &[1])]));
    assert_eq!(world.facts.current.members[0].node_name, "cp1");
    assert!(notes(&plan).contains("cp3 is left out"), "{}", notes(&plan));
}

#[test]
fn a_master_without_an_address_is_told_and_a_member_stays_one() {
    let mut world = World::with_masters(2);
    world.discover_at(&[("cp1", &[]), ("cp2", &[2]), ("cp3", &[])]);
    let Discovered::Masters(masters) = &mut world.facts.discovered else {
        panic!()
    };
    masters[2].unusable = vec!["fe80::1".to_owned()];
    let plan = world.wait(DELAY * 3);
    assert_eq!(world.addresses(), expect(&[("cp1", &[1]), ("cp2", &[2])]));
    assert!(
        plan.members[0].note.contains("no InternalIP"),
        "{}",
        plan.members[0].note
    );
    let told = notes(&plan);
    assert!(
        told.contains(
            "cp3 is left out: its node reports no InternalIP that other hosts can reach (only fe80::1)"
        ),
        "{told}"
    );
    assert!(!told.contains("cp1 is left out"), "{told}");

    world.list("cp3", &["10.0.0.3"], PoolMemberState::Active);
    let plan = world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    assert_eq!(world.facts.current.members[2].node_name, "cp3");
    assert!(!notes(&plan).contains("cp3 is left out"), "{}", notes(&plan));
}

/// Masters whose InternalIPs are 1 to 3 and whose apiservers listen at 11 to 13.
fn elsewhere() -> World {
    let mut world = World::with_masters(0);
    world.discover(&[1, 2, 3]);
    world.alive = vec![11, 12, 13];
    world.endpoints(&[11, 12, 13]);
    for number in [1, 2, 3] {
        let socket = SocketAddr::new(ip(number), 6443);
        world.facts.healths.observe(
            socket,
            Answer::Refused("connection refused".to_owned()),
            world.facts.now,
        );
    }
    world
}

#[test]
fn endpoints_that_answer_are_members_where_no_internal_ip_does() {
    let mut world = elsewhere();
    let plan = world.pass();
    assert_eq!(
        world.addresses(),
        expect(&[
            ("10.0.0.11", &[11]),
            ("10.0.0.12", &[12]),
            ("10.0.0.13", &[13]),
            ("cp1", &[1]),
            ("cp2", &[2]),
            ("cp3", &[3]),
        ])
    );
    assert_eq!(plan.members[0].source, MemberSource::EndpointSlice);

    // They stay while nobody can read the slices, and go by the rules of discovery.
    let revision = world.revision();
    world.facts.endpoints = None;
    let plan = world.wait(DELAY * 2);
    assert_eq!(plan.members[0].source, MemberSource::EndpointSlice);
    world.endpoints(&[12, 13]);
    world.wait(DELAY * 2);
    assert_eq!(world.revision(), revision, "10.0.0.11 answers");
    world.alive = vec![12, 13];
    world.wait(DELAY * 2);
    assert!(!world.names().contains(&"10.0.0.11".to_owned()));
}

#[test]
fn an_endpoint_that_does_not_answer_is_no_member() {
    let mut world = elsewhere();
    world.alive = vec![12];
    world.pass();
    assert_eq!(world.names(), ["10.0.0.12", "cp1", "cp2", "cp3"]);
}

#[test]
fn an_endpoint_that_may_be_a_second_address_of_a_member_is_no_member() {
    // Every apiserver answers at its InternalIP too; then one dies, and the operator restarts.
    let mut world = elsewhere();
    world.alive = vec![1, 2, 3, 11, 12, 13];
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    world.facts.healths = Healths::default();
    world.alive = vec![2, 3, 12, 13];
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
}

#[test]
fn the_endpoint_of_a_retired_master_does_not_bring_it_back() {
    let mut world = World::with_masters(3);
    world.endpoints(&[1, 2, 3]);
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.pass();
    world.discover(&[1, 2]);
    // One of the others is dead since before the operator started.
    world.facts.healths = Healths::default();
    world.alive = vec![1, 3];
    world.wait(DELAY * 2);
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn the_endpoint_of_a_disabled_master_whose_node_names_another_address_does_not_bring_it_back() {
    for dead in [None, Some(2)] {
        let mut world = World::with_masters(3);
        world.endpoints(&[1, 2, 3]);
        world.list("cp3", &[], PoolMemberState::Disabled);
        world.pass();
        world.discover_at(&[("cp1", &[1]), ("cp2", &[2]), ("cp3", &[33])]);
        // Another master that nobody has heard of makes endpoints wanted.
        world.facts.healths = Healths::default();
        world.alive.retain(|number| Some(*number) != dead);
        world.pass();
        let plan = world.pass();
        assert_eq!(world.names(), ["cp1", "cp2"], "{dead:?}");
        let told = notes(&plan);
        assert!(
            told.contains("cp3 is Disabled") && told.contains("10.0.0.3"),
            "{told}"
        );
    }
}

#[test]
fn a_disabled_master_is_not_used_at_an_endpoint_of_its_node() {
    for address in [None, Some("10.0.0.3")] {
        let mut world = elsewhere();
        let endpoints = world.facts.endpoints.as_mut().unwrap();
        for (endpoint, node) in endpoints.iter_mut().zip(["cp1", "cp2", "cp3"]) {
            node.clone_into(&mut endpoint.node_name);
        }
        world.pass();
        assert!(world.names().contains(&"10.0.0.13".to_owned()));
        world.list(
            "cp3",
            &address.into_iter().collect::<Vec<_>>(),
            PoolMemberState::Disabled,
        );
        for _ in 0..2 {
            let plan = world.pass();
            assert_eq!(world.names(), ["10.0.0.11", "10.0.0.12", "cp1", "cp2"]);
            let document = plan.rollout.unwrap().document;
            let mut disabled = document.disabled_members.iter();
            assert!(disabled.any(|member| member.name == "10.0.0.13"), "{document:?}");
        }
        // The slices lose it while it runs.
        world.endpoints(&[11, 12]);
        world.pass();
        assert!(!world.names().contains(&"10.0.0.13".to_owned()));
    }
}

#[test]
fn the_endpoint_of_a_disabled_master_goes_with_its_slice_in_one_pass() {
    let mut world = elsewhere();
    world.facts.endpoints.as_mut().unwrap()[2].node_name = "cp3".to_owned();
    world.pass();
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.endpoints(&[11, 12]);
    world.pass();
    assert!(!world.names().contains(&"10.0.0.13".to_owned()));
}

#[test]
fn endpoints_of_which_one_may_be_disabled_are_told_and_the_owner_can_name_it() {
    let mut world = elsewhere();
    world.pass();
    world.list("cp3", &[], PoolMemberState::Disabled);
    let told = notes(&world.pass());
    assert!(
        told.contains("cp3 is Disabled") && told.contains("in use (10.0.0.11, 10.0.0.12, 10.0.0.13)"),
        "{told}"
    );
    assert!(world.names().contains(&"10.0.0.13".to_owned()));
    world.list("10.0.0.13", &[], PoolMemberState::Disabled);
    for _ in 0..2 {
        world.pass();
        assert_eq!(world.names(), ["10.0.0.11", "10.0.0.12", "cp1", "cp2"]);
    }
}

#[test]
fn a_member_that_lost_its_label_is_not_renamed_to_its_endpoint() {
    let mut world = World::with_masters(3);
    let revision = world.revision();
    world.endpoints(&[1, 2, 3]);
    world.discover(&[1, 2]);
    world.wait(DELAY * 2);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    assert_eq!(world.revision(), revision);
}

#[test]
fn the_policy_endpoint_slices_makes_each_endpoint_a_member_at_its_own_port() {
    let mut world = World::with_masters(0);
    world.pool.spec.discovery.policy = DiscoveryPolicy::EndpointSlices;
    let master = |name: &str, node_name: &str, number: u8| Master {
        name: name.to_owned(),
        addresses: vec![ip(number)],
        origin: Origin::EndpointSlice {
            port: 6444,
            node_name: node_name.to_owned(),
        },
        ..Master::default()
    };
    world.facts.discovered = Discovered::Masters(vec![master("10.0.0.12", "", 12), master("cp1", "cp1", 11)]);
    let plan = world.pass();
    let told: Vec<_> = world
        .facts
        .current
        .members
        .iter()
        .map(|member| (member.name.as_str(), member.node_name.as_str(), member.port))
        .collect();
    assert_eq!(told, [("10.0.0.12", "", 6444), ("cp1", "cp1", 6444)]);
    assert!(
        plan.members
            .iter()
            .all(|member| member.source == MemberSource::EndpointSlice)
    );
    let revision = world.revision();
    world.facts.discovered = Discovered::Unknown;
    world.wait(DELAY * 2);
    assert_eq!(
        world.revision(),
        revision,
        "slices that cannot be read remove nothing"
    );
}

#[test]
fn slices_without_an_endpoint_remove_nothing_and_that_is_told() {
    let mut world = World::with_masters(0);
    world.pool.spec.discovery.policy = DiscoveryPolicy::EndpointSlices;
    let master = |number: u8| Master {
        name: format!("cp{number}"),
        addresses: vec![ip(number)],
        origin: Origin::EndpointSlice {
            port: 6443,
            node_name: format!("cp{number}"),
        },
        ..Master::default()
    };
    world.facts.discovered = Discovered::Masters((1..=3).map(master).collect());
    world.pass();
    let revision = world.revision();
    // Whether or not anything answers: an empty list is no reason.
    for alive in [vec![1, 2, 3], vec![]] {
        world.alive = alive;
        world.facts.discovered = Discovered::Masters(Vec::new());
        let plan = world.wait(DELAY * 2);
        assert_eq!(world.revision(), revision);
        assert_eq!(refused_removals(&plan).len(), 3, "{plan:?}");
        world.allow_shrink("1");
        world.pass();
        assert_eq!(world.revision(), revision, "nor does its owner's yes remove all");
    }
}

/// What can be said of one cluster: its nodes' addresses, entries of the spec, and what their name resolves to.
#[derive(Clone, Debug)]
struct Said {
    nodes: Vec<Vec<u8>>,
    entries: Vec<(u8, Vec<Option<u8>>, PoolMemberState)>,
    resolved: Option<Vec<u8>>,
    endpoints: Option<Vec<u8>>,
    is_readable: bool,
}

fn said() -> impl Strategy<Value = Said> {
    let number = 1..=6u8;
    let state = prop_oneof![
        Just(PoolMemberState::Active),
        Just(PoolMemberState::Draining),
        Just(PoolMemberState::Disabled),
    ];
    // An address of an entry is a number or the name.
    let address = proptest::option::weighted(0.7, number.clone());
    let entry = (1..=5u8, proptest::collection::vec(address, 0..4), state);
    (
        proptest::collection::vec(proptest::collection::vec(number.clone(), 0..3), 1..5),
        proptest::collection::vec(entry, 0..4),
        proptest::option::of(proptest::collection::vec(number.clone(), 1..5)),
        proptest::option::of(proptest::collection::vec(number, 0..4)),
        proptest::bool::weighted(0.8),
    )
        .prop_map(|(nodes, entries, resolved, endpoints, is_readable)| Said {
            nodes,
            entries,
            resolved,
            endpoints,
            is_readable,
        })
}

impl World {
    fn hear(&mut self, said: &Said) {
        let master = |(index, numbers): (usize, &Vec<u8>)| Master {
            name: format!("cp{}", index + 1),
            addresses: numbers
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|n| ip(*n))
                .collect(),
            ..Master::default()
        };
        self.facts.discovered = if said.is_readable {
            Discovered::Masters(said.nodes.iter().enumerate().map(master).collect())
        } else {
            Discovered::Unknown
        };
        self.pool.spec.members.clear();
        for (number, addresses, state) in &said.entries {
            // Entries named after a node, and one that is not.
            let name = if *number == 5 {
                "api".to_owned()
            } else {
                format!("cp{number}")
            };
            let texts: Vec<_> = addresses
                .iter()
                .map(|address| address.map_or_else(|| NAME.to_owned(), |number| format!("10.0.0.{number}")))
                .collect();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            self.list(&name, &texts, *state);
        }
        match &said.resolved {
            Some(numbers) => self.resolve(numbers),
            None => self.fail_to_resolve(),
        }
        match &said.endpoints {
            Some(numbers) => self.endpoints(numbers),
            None => self.facts.endpoints = None,
        }
    }

    /// Whether the spec says anything of this member but its addresses: then it may be out of use.
    fn is_disabled(&self, name: &str) -> bool {
        let mut entries = self.pool.spec.members.iter();
        entries.any(|entry| entry.name == name && entry.state == PoolMemberState::Disabled)
    }
}

proptest! {
    #![proptest_config(cases(512))]

    /// Whatever was said before and is said now: no address is in the document twice, and every discovered master that is
    /// not Disabled is exactly one member, unless all of its addresses are those of others.
    #[test]
    fn no_address_has_two_members_and_every_master_has_one(history in proptest::collection::vec(said(), 1..4)) {
        let mut world = World::with_masters(0);
        world.alive = (1..=6).collect();
        for said in history {
            world.hear(&said);
            let plan = world.pass();
            if !matches!(plan.verdict, Verdict::Accepted { .. }) {
                continue;
            }
            let members = &world.facts.current.members;
            let sockets: Vec<_> = members
                .iter()
                .flat_map(|member| member.addresses.iter().map(|ip| (*ip, member.port)))
                .collect();
            let unique: BTreeSet<_> = sockets.iter().collect();
            prop_assert_eq!(unique.len(), sockets.len(), "{:?}", members);

            let Discovered::Masters(masters) = &world.facts.discovered else { continue };
            for master in masters {
                if world.is_disabled(&master.name) {
                    continue;
                }
                // An entry may have the name of one node and the address of another: then the address tells.
                let node = |member: &wire::Member| match member.node_name.as_str() {
                    "" => member.name.clone(),
                    node => node.to_owned(),
                };
                let count = members.iter().filter(|member| node(member) == master.name).count();
                prop_assert!(count <= 1, "{} in {:?}", master.name, members);
                // An address that is the master's alone is a path to it, and an entry of another name may hold it.
                let own = master.addresses.iter().find(|ip| {
                    !masters.iter().any(|other| other.name != master.name && other.addresses.contains(ip))
                });
                let is_disabled_elsewhere = world.pool.spec.members.iter().any(|entry| {
                    entry.state == PoolMemberState::Disabled && !entry.addresses.is_empty()
                });
                if own.is_some() && !is_disabled_elsewhere {
                    prop_assert_eq!(count, 1, "{} in {:?}, of {:?}", master.name, members, world.pool.spec.members);
                }
            }
        }
    }
}

#[test]
fn an_entry_without_an_address_of_its_own_does_not_keep_a_member_whose_node_is_gone() {
    let mut world = World::with_masters(3);
    world.list("cp1", &["10.0.0.1"], PoolMemberState::Active);
    world.list("cp3", &["10.0.0.1"], PoolMemberState::Active);
    let plan = world.pass();
    assert!(
        notes(&plan).contains("cp3 is without all of its addresses"),
        "{plan:?}"
    );
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    world.discover(&[1, 2]);
    world.alive = vec![1, 2];
    world.wait(DELAY + Duration::from_secs(5));
    assert_eq!(world.names(), ["cp1", "cp2"]);
}
