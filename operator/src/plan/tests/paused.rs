//! A pool whose management is paused.

use trivet_crds::pool::ManagementPolicy;

use super::*;

fn pause(world: &mut World) {
    world.pool.spec.management = ManagementPolicy::Paused;
}

#[test]
fn a_paused_pool_stays_as_it_is_whatever_the_spec_and_discovery_say() {
    let mut world = World::with_masters(4);
    pause(&mut world);
    world.discover(&[1, 5]);
    world.alive = vec![1, 5];
    world.list_master(6, "own");
    world.pool.spec.proxy.log_level = trivet_crds::pool::LogLevel::Debug;
    let plan = world.wait(DELAY * 3);
    assert!(plan.rollout.is_none(), "{plan:?}");
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
    assert_eq!(plan.members.len(), 4);
    assert!(notes(&plan).contains("revision 1; set it to Managed"), "{plan:?}");
}

#[test]
fn once_it_goes_on_the_spec_is_obeyed_and_removals_wait_for_the_whole_delay() {
    let mut world = World::with_masters(4);
    pause(&mut world);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3, 6];
    world.list_master(6, "own");
    world.wait(DELAY * 3);
    world.pool.spec.management = ManagementPolicy::Managed;
    world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4", "own6"]);
    world.wait(Duration::from_secs(10));
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "own6"]);
}

#[test]
fn a_pool_that_is_created_paused_begins_once_it_is_managed() {
    let mut world = World::with_masters(3);
    world.facts.current = Current::default();
    world.restart();
    pause(&mut world);
    let plan = world.pass();
    assert!(plan.rollout.is_none() && notes(&plan).contains("nothing is in force yet"));
    world.pool.spec.management = ManagementPolicy::Managed;
    world.pass();
    assert_eq!(world.names().len(), 3);
}

#[test]
fn a_pause_holds_for_an_edit_that_would_be_rejected() {
    let mut world = World::with_masters(3);
    pause(&mut world);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    let plan = world.pass();
    assert_eq!((rejected(&plan), world.names().len()), ("", 3));
    assert!(plan.rollout.is_none());
}
