//! What the proxies of the nodes see counts as what the operator sees: neither does its blindness let an edit pass that would
//! leave nobody, nor does it remove a member that answers a proxy.

use std::collections::BTreeMap;

use trivet_crds::report::ReportedHealth;

use super::*;
use crate::health::sighting::{Sighting, Sightings};
use crate::plan::sight::{BLIND_AFTER, is_blind};

/// What each of these nodes sees: the masters that are Up there. The others of the five are Down.
fn see(world: &mut World, nodes: &[&[u8]], verified_at: Option<Instant>) {
    let mut seen: BTreeMap<SocketAddr, Sighting> = BTreeMap::new();
    for (node, up) in nodes.iter().enumerate() {
        for number in 1..=5 {
            let sighting = seen.entry(SocketAddr::new(ip(number), 6443)).or_default();
            let health = if up.contains(&number) {
                sighting.verified_at = verified_at;
                ReportedHealth::Up
            } else {
                ReportedHealth::Down
            };
            let is_verified = health == ReportedHealth::Up;
            sighting.note(&format!("w{node}"), health, is_verified, "why");
        }
    }
    world.facts.healths.see(Sightings::new(seen));
}

/// A pool of three masters whose operator has never reached any of them.
fn blind() -> World {
    let mut world = World::with_masters(3);
    world.restart();
    world.alive.clear();
    world
}

/// Leaves this master alone in the pool.
fn leave(world: &mut World, number: u8) {
    world.pool.metadata.generation = world.pool.metadata.generation.map(|last| last + 1);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.pool.spec.members.clear();
    world.list_master(number, "cp");
}

#[test]
fn an_operator_that_reaches_nobody_judges_an_edit_by_what_most_nodes_see() {
    let mut world = blind();
    see(&mut world, &[&[1, 2], &[1, 2, 3], &[1, 2]], None);
    world.wait(BLIND_AFTER * 2);
    assert!(!is_blind(&world.facts));
    leave(&mut world, 3);
    assert_eq!(
        rejected(&world.pass()),
        "NoHealthyMember",
        "one node of three is too few"
    );
    leave(&mut world, 2);
    assert_eq!(rejected(&world.pass()), "");
    assert_eq!(world.names(), ["cp2"]);
}

#[test]
fn an_edit_is_not_obeyed_because_one_node_lost_sight_of_all_members() {
    let mut world = World::with_masters(3);
    see(&mut world, &[&[], &[1, 2, 3], &[1, 2, 3]], None);
    leave(&mut world, 4);
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
}

#[test]
fn a_member_that_answers_a_proxy_is_not_removed_though_the_operator_never_hears_it() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    let start = world.facts.now;
    see(&mut world, &[&[1, 2, 3], &[4]], Some(start + DELAY));
    let plan = world.wait(DELAY + Duration::from_secs(5));
    assert_eq!(world.names().len(), 4);
    assert!(
        refused_removals(&plan)[0].contains("its apiserver answers"),
        "{plan:?}"
    );

    // No proxy has told of an answer since; a whole delay later it goes.
    see(&mut world, &[&[1, 2, 3], &[1, 2, 3]], None);
    let mut seen = BTreeMap::new();
    let remembered = Sighting {
        verified_at: Some(start + DELAY),
        ..Sighting::default()
    };
    seen.insert(SocketAddr::new(ip(4), 6443), remembered);
    world.facts.healths.see(Sightings::new(seen));
    world.wait(DELAY.saturating_sub(Duration::from_secs(15)));
    assert_eq!(world.names().len(), 4);
    world.wait(Duration::from_secs(20));
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
}

#[test]
fn an_operator_that_is_cut_off_removes_what_no_node_hears_while_nodes_hear_another() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.alive.clear();
    see(&mut world, &[&[1, 2, 3], &[1, 2, 3]], None);
    world.wait(DELAY + Duration::from_secs(5));
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
}

proptest! {
    /// The only master that answers anybody is in force: whatever a single node or the operator sees, it stays.
    #[test]
    fn discovery_removes_nothing_that_any_node_has_an_answer_from(
        operator in prop::collection::btree_set(1..=4_u8, 0..4),
        nodes in prop::collection::vec(prop::collection::btree_set(1..=4_u8, 0..4), 1..5),
        listed in prop::collection::btree_set(1..=4_u8, 1..4),
    ) {
        let mut world = World::with_masters(4);
        world.discover(&listed.iter().copied().collect::<Vec<_>>());
        world.alive = operator.iter().copied().collect();
        let views: Vec<Vec<u8>> = nodes.iter().map(|node| node.iter().copied().collect()).collect();
        for _ in 0..8 {
            // Reports are read at each pass.
            let views: Vec<&[u8]> = views.iter().map(Vec::as_slice).collect();
            let now = world.facts.now + DELAY / 2;
            see(&mut world, &views, Some(now));
            world.wait(DELAY / 2);
        }
        for number in 1..=4_u8 {
            let answers = operator.contains(&number) || nodes.iter().any(|node| node.contains(&number));
            prop_assert!(!answers || world.names().contains(&format!("cp{number}")), "cp{number}");
        }
    }
}
