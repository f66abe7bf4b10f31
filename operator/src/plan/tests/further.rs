//! Endpoints that are no members are in the document for the time when a proxy has lost all members, and make no flood of
//! documents.

use proptest::prelude::*;
use trivet_crds::wire::MAX_FURTHER_ENDPOINTS;

use super::*;
use crate::plan::endpoints::Endpoint;

/// No further endpoint.
const NONE: [u8; 0] = [];

const SECOND: Duration = Duration::from_secs(1);

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

    let mut by_ip = World::with_masters(3);
    by_ip.list("old", &["10.0.0.13"], PoolMemberState::Disabled);
    let endpoints = [(13, 6444), (14, 6443)].map(|(number, port)| Endpoint {
        socket: SocketAddr::new(ip(number), port),
        node_name: String::new(),
    });
    by_ip.facts.endpoints = Some(endpoints.into());
    by_ip.pass();
    assert_eq!(by_ip.further(), [14], "the entry has the wrong port");

    // No endpoint is known to be it, so any may be, also while it answers at its own address.
    for alive in [vec![1, 2], vec![1, 2, 3]] {
        let mut unfound = World::with_masters(3);
        unfound.alive = alive;
        unfound.facts.now += SECOND;
        unfound.list("cp3", &[], PoolMemberState::Disabled);
        unfound.list_endpoints([1, 2, 13]);
        unfound.pass();
        assert_eq!(unfound.further(), NONE);
        unfound.facts.endpoints = None;
        unfound.edit_anything();
        assert_eq!(unfound.further(), NONE);
    }
}

#[test]
fn an_endpoint_of_another_node_is_no_disabled_apiserver_that_has_its_node_s_name() {
    for (addresses, told) in [(vec![], vec![14]), (vec!["10.0.0.9"], vec![])] {
        let mut world = World::with_masters(3);
        world.list("cp9", &addresses, PoolMemberState::Disabled);
        world.list_endpoints_of("w1", [14]);
        world.pass();
        assert_eq!(world.further(), told, "it is listed with {addresses:?}");
    }
}

#[test]
fn an_endpoint_that_may_be_a_disabled_apiserver_by_now_is_taken_back_once() {
    let mut world = World::with_masters(3);
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.list_endpoints([3, 13]);
    world.pass();
    assert_eq!((world.further(), world.revision()), (vec![13], 2));
    world.restart();
    world.pass_unprobed();
    assert_eq!(world.revision(), 2);

    world.list_endpoints([13]);
    world.pass();
    assert_eq!((world.further(), world.revision()), (vec![], 3));

    // It comes and goes.
    for _ in 0..10 {
        world.list_endpoints([3, 13]);
        world.wait(DELAY.saturating_sub(SECOND * 5));
        world.list_endpoints([13]);
        world.wait(SECOND * 5);
    }
    assert_eq!(world.revision(), 3);
    world.list_endpoints([3, 13]);
    world.wait(DELAY * 2);
    assert_eq!((world.further(), world.revision()), (vec![13], 4));
    // It is taken back though it is listed no more.
    world.list_endpoints([]);
    world.pass();
    assert_eq!((world.further(), world.revision()), (vec![], 5));
}

#[test]
fn endpoints_that_cannot_be_read_are_not_told_again_where_one_may_be_a_disabled_apiserver() {
    let mut world = World::with_masters(3);
    world.list_endpoints_of("cp3", [13]);
    world.edit_anything();
    assert_eq!(world.further(), [13]);
    world.facts.endpoints = None;
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
    assert_eq!(world.further(), NONE);
}

#[test]
fn endpoints_go_when_the_owner_wants_no_discovery() {
    let mut world = World::with_listed_masters(3);
    world.list_endpoints([11]);
    world.edit_anything();
    assert_eq!(world.further(), [11]);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.pass();
    assert_eq!(world.further(), NONE);
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
