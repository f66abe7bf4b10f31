//! Endpoints that are no members are in the document for the time when a proxy has lost all members, and make no flood of
//! documents.

use proptest::prelude::*;
use trivet_crds::wire::MAX_FURTHER_ENDPOINTS;

use super::*;
use crate::plan::endpoints::Endpoint;

/// No further endpoint.
const NONE: [u8; 0] = [];

impl World {
    /// The EndpointSlices list these numbers, of no node that is known.
    fn list_endpoints(&mut self, numbers: impl IntoIterator<Item = u8>) {
        self.list_endpoints_of("", numbers);
    }

    fn list_endpoints_of(&mut self, node: &str, numbers: impl IntoIterator<Item = u8>) {
        let endpoint = |number| Endpoint {
            socket: SocketAddr::new(ip(number), 6443),
            node_name: node.to_owned(),
        };
        self.facts.endpoints = Some(numbers.into_iter().map(endpoint).collect());
    }

    /// The last numbers of the further endpoints in force.
    fn further(&self) -> Vec<u8> {
        let document = self.facts.current.document.as_ref().unwrap();
        let number = |socket: &SocketAddr| match socket.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        document.further_endpoints.iter().map(number).collect()
    }

    /// An edit that makes a new document, whatever the endpoints are.
    fn edit_anything(&mut self) {
        self.pool.spec.connection.drain_timeout_seconds += 1;
        self.pass();
    }
}

#[test]
fn the_next_document_has_the_endpoints_that_are_no_members() {
    let mut world = World::with_masters(3);
    world.list_endpoints([1, 2, 3, 11, 12]);
    world.pass();
    assert_eq!((world.further(), world.revision()), (vec![], 1));
    world.edit_anything();
    assert_eq!((world.further(), world.revision()), (vec![11, 12], 2));
    world.list_endpoints([1, 2, 3, 12]);
    world.edit_anything();
    assert_eq!(world.further(), [12]);
}

#[test]
fn an_endpoint_that_lasts_is_worth_one_document_and_one_that_goes_none() {
    let mut world = World::with_masters(3);
    world.list_endpoints([1, 2, 3, 11]);
    world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    assert_eq!(world.revision(), 1, "a master that joins is an endpoint first");
    world.wait(Duration::from_secs(10));
    assert_eq!((world.further(), world.revision()), (vec![11], 2));
    world.wait(DELAY * 3);
    world.list_endpoints([1, 2, 3]);
    world.wait(DELAY * 3);
    assert_eq!((world.further(), world.revision()), (vec![11], 2));
}

#[test]
fn an_endpoint_that_becomes_a_member_is_no_further_one() {
    let mut world = World::with_masters(3);
    world.list_endpoints([1, 2, 3, 4]);
    world.edit_anything();
    assert_eq!(world.further(), [4]);
    world.discover(&[1, 2, 3, 4]);
    world.pass();
    assert_eq!(world.further(), NONE);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
}

#[test]
fn endpoints_that_cannot_be_read_stay_as_they_are() {
    let mut world = World::with_masters(3);
    world.list_endpoints([11]);
    world.edit_anything();
    world.facts.endpoints = None;
    world.edit_anything();
    assert_eq!(world.further(), [11]);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    for number in 1..=3 {
        world.list_master(number, "cp");
    }
    world.edit_anything();
    assert_eq!(world.further(), NONE, "the owner wants no discovery");
}

#[test]
fn no_endpoint_that_may_be_a_disabled_apiserver_is_told() {
    let mut by_address = World::with_masters(3);
    by_address.list("cp3", &[], PoolMemberState::Disabled);
    by_address.list_endpoints([1, 2, 3]);
    by_address.pass();
    assert_eq!(by_address.further(), NONE);

    let mut by_node = World::with_masters(3);
    by_node.list("cp3", &[], PoolMemberState::Disabled);
    by_node.list_endpoints_of("cp3", [13]);
    by_node.pass();
    assert_eq!(by_node.further(), NONE);

    let mut by_name = World::with_masters(3);
    by_name.list("10.0.0.13", &[], PoolMemberState::Disabled);
    by_name.list_endpoints([13, 14]);
    by_name.pass();
    assert_eq!(by_name.further(), [14]);

    // It does not answer at its own address, so any endpoint may be it.
    let mut unlocated = World::with_masters(3);
    unlocated.alive = vec![1, 2];
    unlocated.list("cp3", &[], PoolMemberState::Disabled);
    unlocated.list_endpoints([13]);
    unlocated.pass();
    assert_eq!(unlocated.further(), NONE);
    unlocated.facts.endpoints = None;
    unlocated.edit_anything();
    assert_eq!(unlocated.further(), NONE);
}

#[test]
fn there_are_no_more_than_a_document_may_have_and_always_the_same() {
    let mut world = World::with_masters(1);
    world.list_endpoints(2..=40);
    world.wait(DELAY * 2);
    let told = world.further();
    assert_eq!(told.len(), MAX_FURTHER_ENDPOINTS);
    world.edit_anything();
    assert_eq!(world.further(), told);
}

proptest! {
    // Each case is a quarter of an hour of passes.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn endpoints_that_come_and_go_make_no_document(
        lists in prop::collection::vec(prop::collection::btree_set(11..30_u8, 0..6), 16),
    ) {
        let mut world = World::with_masters(3);
        for list in lists {
            // None lasts for five minutes: between two lists there is a pass without any.
            world.list_endpoints(list);
            world.wait(Duration::from_secs(50));
            world.list_endpoints([]);
            world.wait(Duration::from_secs(5));
        }
        prop_assert_eq!(world.revision(), 1);
    }
}
