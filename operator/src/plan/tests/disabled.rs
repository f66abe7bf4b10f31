//! Proxies that have a disabled member in an earlier document must not fall back to it: they are told all that it may be
//! called there.

use super::*;

impl World {
    /// The names of disabled members that proxies are told, with the last numbers of their addresses.
    fn told(&mut self) -> Vec<(String, Vec<u8>)> {
        let document = self.pass().rollout.unwrap().document;
        let number = |socket: &SocketAddr| match socket.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        let disabled = document.disabled_members.into_iter();
        disabled
            .map(|member| (member.name, member.sockets.iter().map(number).collect()))
            .collect()
    }
}

fn expect(told: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let owned = |(name, numbers): &(&str, &[u8])| ((*name).to_owned(), numbers.to_vec());
    told.iter().map(owned).collect()
}

#[test]
fn a_disabled_member_is_told_by_its_name_and_its_addresses() {
    let mut world = World::with_masters(3);
    assert_eq!(world.told(), []);
    world.list("cp3", &[], PoolMemberState::Disabled);
    assert_eq!(world.told(), expect(&[("cp3", &[3])]));
}

#[test]
fn one_that_discovery_has_lost_is_told_by_its_name() {
    let mut world = World::with_masters(3);
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.pass();
    world.discover(&[1, 2]);
    assert_eq!(world.told(), expect(&[("cp3", &[])]));
    let verdict = world.pass().verdict;
    let Verdict::Accepted { notes, .. } = verdict else {
        panic!("{verdict:?}");
    };
    let told = notes.iter().find(|note| note.contains("entry cp3"));
    assert!(
        told.is_some_and(|note| note.contains("keep it while its apiserver runs")),
        "{notes:?}"
    );
}

#[test]
fn one_that_is_listed_by_another_name_is_told_by_its_nodes_name_too() {
    let mut world = World::with_masters(3);
    world.list("retired", &["10.0.0.3"], PoolMemberState::Disabled);
    assert_eq!(world.told(), expect(&[("cp3", &[]), ("retired", &[3])]));
}

#[test]
fn the_address_of_another_master_is_not_told() {
    let mut world = World::with_masters(3);
    world.list("cp1", &["10.0.0.2"], PoolMemberState::Disabled);
    assert_eq!(world.told(), expect(&[("cp1", &[1])]));
}

#[test]
fn a_name_that_another_member_has_is_not_told() {
    let mut world = World::with_masters(2);
    world.list("retired", &["10.0.0.2"], PoolMemberState::Disabled);
    world.list("cp2", &["10.0.0.9"], PoolMemberState::Active);
    world.alive.push(9);
    let told = world.told();
    assert!(told.iter().all(|(name, _)| name != "cp2"), "{told:?}");
    assert_eq!(world.names(), ["cp1", "cp2"]);
}
