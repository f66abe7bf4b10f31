//! The annotation that switches the guard off is obeyed once, and only where discovery has an answer.

use super::*;

#[test]
fn the_annotation_with_the_current_generation_lets_removals_happen_at_once() {
    let mut world = World::with_masters(3);
    world.discover(&[1]);
    world.allow_shrink("7");
    world.pass();
    assert_eq!(world.names().len(), 3, "another generation is no yes");
    world.allow_shrink("1");
    world.pass();
    assert_eq!(world.names(), ["cp1"]);
}

#[test]
fn a_permission_is_used_once_also_after_a_restart() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.allow_shrink("1");
    let plan = world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    assert!(notes(&plan).contains("has been used"), "{plan:?}");

    world.discover(&[1, 2]);
    world.pass();
    assert_eq!(world.names().len(), 3, "the annotation is still there");
    world.restart();
    let plan = world.wait(DELAY * 2);
    assert_eq!(world.names().len(), 3, "and a new operator knows of its use");
    assert!(plan.rollout.unwrap().is_written, "nothing is left to be written");

    world.pool.metadata.generation = Some(2);
    world.allow_shrink("2");
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"], "a new generation is a new yes");
}

#[test]
fn after_a_restore_the_generation_of_a_used_permission_is_one_of_another_edit() {
    let mut world = World::with_masters(4);
    world.pool.metadata.generation = Some(5);
    world.discover(&[1, 2, 3]);
    world.allow_shrink("5");
    world.pass();
    assert_eq!(world.names().len(), 3);

    // The backup is older than the permission.
    world.facts.current.marks.used_permission.clear();
    world.pool.metadata.generation = Some(4);
    world.pool.metadata.annotations = None;
    world.pass();
    world.pool.metadata.generation = Some(5);
    world.allow_shrink("5");
    world.discover(&[1, 2]);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn a_used_permission_outlives_a_lost_config_map() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.allow_shrink("1");
    world.pass();
    world.pass();
    world.facts.current.document = None;
    world.facts.current.marks = Marks::default();
    world.discover(&[1, 2]);
    world.pass();
    assert_eq!(world.names().len(), 3);
    world.restart();
    world.pass();
    assert_eq!(world.names().len(), 3, "it is noted again");
}

#[test]
fn a_permission_whose_removal_could_not_be_written_is_not_used() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    world.allow_shrink("1");
    world.writes = Writes::Fail;
    world.pass();
    assert_eq!(world.names().len(), 3);
    world.writes = Writes::Arrive;
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn a_pool_that_is_created_anew_has_a_permission_of_its_own() {
    let mut world = World::with_masters(4);
    world.pool.metadata.uid = Some("a".to_owned());
    world.discover(&[1, 2, 3]);
    world.allow_shrink("1");
    world.pass();
    world.pool.metadata.uid = Some("b".to_owned());
    world.restart();
    world.discover(&[1, 2]);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn an_open_permission_is_told() {
    let mut world = World::with_masters(3);
    world.allow_shrink("1");
    let plan = world.pass();
    assert!(
        notes(&plan).contains("guard is off for this generation"),
        "{plan:?}"
    );
    assert!(plan.rollout.unwrap().is_written, "to tell it needs no write");
    world.allow_shrink("2");
    assert_eq!(notes(&world.pass()), "");
}

#[test]
fn a_permission_never_holds_for_unknown_or_empty_discovery() {
    let mut world = World::with_masters(3);
    world.allow_shrink("1");
    for discovered in [Discovered::Unknown, Discovered::Masters(Vec::new())] {
        world.facts.discovered = discovered;
        let plan = world.wait(DELAY * 2);
        assert_eq!(world.names().len(), 3);
        assert!(
            notes(&plan).contains("guard is off"),
            "it is not used either: {plan:?}"
        );
    }
    world.discover(&[1, 2]);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn a_permission_does_not_wipe_what_the_guard_remembers() {
    let mut world = World::with_masters(5);
    world.discover(&[1, 2]);
    world.allow_shrink("1");
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
    // The removals by permission count as removals: no further member goes within the delay.
    world.alive = vec![1];
    world.discover(&[1]);
    world.facts.now += Duration::from_secs(5);
    let plan = world.pass();
    assert_eq!(plan.memory.removals.len(), 3);
    assert_eq!(plan.memory.absent.len(), 1);
}

#[test]
fn a_removal_that_is_due_anyway_uses_no_permission() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    world.facts.now += Duration::from_secs(5);
    world.allow_shrink("1");
    let plan = world.pass();
    assert_eq!(world.names().len(), 3);
    assert!(notes(&plan).contains("guard is off"), "{plan:?}");
}

#[test]
fn an_edit_that_leaves_no_healthy_member_uses_the_permission() {
    let mut world = World::with_masters(3);
    world.allow_shrink("1");
    for name in ["cp1", "cp2", "cp3"] {
        world.list(name, &[], PoolMemberState::Draining);
    }
    let plan = world.pass();
    assert_eq!(rejected(&plan), "");
    assert!(notes(&plan).contains("has been used"), "{plan:?}");
    assert_eq!(world.facts.current.marks.used_permission, "/1");
}
