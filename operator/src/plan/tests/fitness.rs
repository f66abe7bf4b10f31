//! An edit that leaves no healthy member is rejected by an operator that can judge, and obeyed by one that cannot.

use trivet_crds::pool::MemberSource;

use super::*;
use crate::plan::sight::BLIND_AFTER;

/// A pool of three masters that serve, and whose operator has never reached any of them.
fn blind() -> World {
    let mut world = World::with_masters(3);
    world.restart();
    world.alive.clear();
    world
}

/// Replaces the members by one that nobody knows.
fn replace_all(world: &mut World, address: &str) {
    world.pool.metadata.generation = world.pool.metadata.generation.map(|last| last + 1);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.pool.spec.members.clear();
    world.list("new", &[address], PoolMemberState::Active);
}

#[test]
fn an_operator_that_reaches_nobody_obeys_explicit_edits() {
    let mut world = blind();
    world.wait(BLIND_AFTER);
    replace_all(&mut world, "fd00::9");
    let plan = world.pass();
    assert_eq!(rejected(&plan), "");
    assert_eq!(world.names(), ["new"]);
    let said = notes(&plan);
    assert!(
        said.contains("cannot judge") && said.contains("new: it has not been probed yet"),
        "{said}"
    );
}

#[test]
fn an_edit_that_takes_from_the_only_member_the_address_that_answers_is_rejected() {
    let mut world = World::with_masters(1);
    replace_all(&mut world, "10.0.0.1");
    world.list("new", &["10.0.0.99", "10.0.0.1"], PoolMemberState::Active);
    assert_eq!(rejected(&world.pass()), "");
    world.list("new", &["10.0.0.99"], PoolMemberState::Active);
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
    world.list("new", &["10.0.0.1"], PoolMemberState::Active);
    assert_eq!(rejected(&world.pass()), "");
    assert_eq!(world.facts.current.members[0].addresses, [ip(1)]);
    // What was not ready before may go.
    world.list("new", &["10.0.0.1", "10.0.0.98"], PoolMemberState::Active);
    world.alive.clear();
    world.wait(Duration::from_secs(5));
    world.list("new", &["10.0.0.98"], PoolMemberState::Active);
    assert_eq!(rejected(&world.pass()), "");
}

#[test]
fn an_operator_that_has_just_started_does_not_call_itself_blind() {
    let mut world = World::with_masters(3);
    replace_all(&mut world, "10.0.0.99");
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
    world.restart();
    assert_eq!(rejected(&world.pass_unprobed()), "NoHealthyMember");
    // Nothing is probed, for whatever reason: that is not the same as no answer.
    world.facts.now += BLIND_AFTER * 2;
    assert_eq!(rejected(&world.pass_unprobed()), "NoHealthyMember");
    // The first probes are lost, as on a busy node.
    world.alive.clear();
    assert_eq!(rejected(&world.wait(BLIND_AFTER / 2)), "NoHealthyMember");
    world.alive = vec![1, 2, 3];
    assert_eq!(rejected(&world.wait(BLIND_AFTER * 2)), "NoHealthyMember");
    assert_eq!(world.names().len(), 3);
}

#[test]
fn an_edit_that_was_judged_is_not_obeyed_when_the_operator_loses_sight() {
    let mut world = World::with_masters(3);
    replace_all(&mut world, "10.0.0.99");
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
    world.alive.clear();
    assert_eq!(rejected(&world.wait(DELAY)), "NoHealthyMember");
    // The next edit is another one.
    replace_all(&mut world, "10.0.0.98");
    assert_eq!(rejected(&world.pass()), "");
}

#[test]
fn an_operator_that_sees_one_member_in_force_can_judge() {
    for answer in [Answer::Ready, Answer::NotReady("etcd".to_owned())] {
        let mut world = blind();
        world.wait(BLIND_AFTER * 2);
        let address = SocketAddr::new(ip(2), 6443);
        world.facts.healths.observe(address, answer, world.facts.now);
        replace_all(&mut world, "10.0.0.99");
        assert_eq!(rejected(&world.pass_unprobed()), "NoHealthyMember");
    }
}

#[test]
fn a_blind_operator_adds_the_address_of_a_move_and_takes_none_away() {
    let mut world = blind();
    let move_by = |world: &mut World, offset: u8| {
        let Discovered::Masters(masters) = &mut world.facts.discovered else {
            panic!()
        };
        for (master, number) in masters.iter_mut().zip(1..) {
            master.addresses = vec![ip(number + offset)];
        }
    };
    let addresses = |world: &World| world.facts.current.members[0].addresses.clone();
    move_by(&mut world, 20);
    let plan = world.pass();
    assert_eq!(addresses(&world), [ip(1)], "it has just started");
    assert!(plan.members[0].note.contains("10.0.0.21"));
    let plan = world.wait(BLIND_AFTER);
    assert_eq!(rejected(&plan), "");
    assert_eq!(addresses(&world), [ip(1), ip(21)]);
    let plan = world.wait(DELAY * 2);
    assert_eq!(rejected(&plan), "");
    assert_eq!(addresses(&world), [ip(1), ip(21)], "nothing tells which is right");
    assert!(plan.rollout.unwrap().is_written);
    // An operator that sees again follows what answers.
    world.alive = vec![1, 22, 23];
    world.wait(DELAY);
    assert_eq!(addresses(&world), [ip(1), ip(21)]);
    assert_eq!(world.facts.current.members[1].addresses, [ip(22)]);
    move_by(&mut world, 0);
    world.wait(DELAY);
    assert_eq!(addresses(&world), [ip(1)]);
}

#[test]
fn a_blind_operator_adds_the_address_of_every_move() {
    let mut world = blind();
    world.wait(BLIND_AFTER);
    for number in 11..=16 {
        let Discovered::Masters(masters) = &mut world.facts.discovered else {
            panic!()
        };
        masters[0].addresses = vec![ip(number)];
        assert_eq!(rejected(&world.wait(DELAY * 2)), "");
        let addresses = &world.facts.current.members[0].addresses;
        assert_eq!(addresses.last(), Some(&ip(number)));
    }
    assert_eq!(world.facts.current.members[0].addresses, [13, 14, 15, 16].map(ip));
    // An address that the node still reports makes no room.
    let Discovered::Masters(masters) = &mut world.facts.discovered else {
        panic!()
    };
    masters[0].addresses = vec![ip(13), ip(17)];
    world.pass();
    assert_eq!(world.facts.current.members[0].addresses, [13, 15, 16, 17].map(ip));
}

#[test]
fn a_blind_operator_uses_up_no_permission_and_still_guards() {
    let mut world = blind();
    world.wait(BLIND_AFTER);
    world.discover(&[1, 2]);
    let plan = world.wait(DELAY * 3);
    assert_eq!(world.names().len(), 3);
    assert!(
        plan.members
            .iter()
            .all(|member| member.source == MemberSource::Node)
    );
    world.list("cp1", &[], PoolMemberState::Draining);
    world.list("cp2", &[], PoolMemberState::Disabled);
    world.list("cp3", &[], PoolMemberState::Draining);
    assert_eq!(rejected(&world.pass()), "", "what the owner says is obeyed");
    assert_eq!(world.names(), ["cp1", "cp3"]);
    assert_eq!(world.facts.current.marks.used_permission, "");
}
