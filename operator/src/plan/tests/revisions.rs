//! A revision is above all of the past, and a mistake of the past does not last.

use trivet_crds::wire::{MAX_ADVANCE_SECONDS, MAX_AHEAD_SECONDS};

use super::*;

/// Unix seconds of some time in 2026.
const NOW: u64 = 1_790_000_000;

const DAY: u64 = MAX_ADVANCE_SECONDS;

/// A pool of three masters whose document in force has this revision.
fn with_revision(revision: u64) -> World {
    let mut world = World::with_masters(3);
    let document = world.facts.current.document.take().unwrap();
    let document = Document { revision, ..document }.seal().unwrap();
    world.facts.current.document = Some(document);
    world.facts.current.told = vec![("the ConfigMap".into(), revision)];
    world.facts.memory = Memory::default();
    world.facts.unix_seconds = NOW;
    world
}

/// The revision after an edit that needs a new document.
fn edited(world: &mut World) -> Plan {
    world.pool.spec.connection.drain_timeout_seconds += 1;
    world.pass()
}

#[test]
fn a_new_document_has_the_unix_time_as_its_revision() {
    let mut world = with_revision(20);
    assert_eq!(edited(&mut world).revision, NOW);
    assert_eq!(edited(&mut world).revision, NOW + 1, "two in one second");
    world.facts.unix_seconds = NOW + 60;
    let plan = edited(&mut world);
    assert_eq!(plan.revision, NOW + 60);
    assert_eq!(notes(&plan), "");
}

#[test]
fn a_first_document_is_above_those_of_an_older_cluster() {
    let mut world = World::with_masters(0);
    world.facts.unix_seconds = NOW;
    world.discover(&[1, 2, 3]);
    assert_eq!(world.pass().revision, NOW);
}

#[test]
fn a_document_that_asks_the_same_keeps_its_revision() {
    for revision in [7, NOW - 5, NOW + 5, NOW + 2 * DAY] {
        let plan = with_revision(revision).pass();
        assert!(plan.rollout.unwrap().is_written, "{revision}");
        assert_eq!(plan.revision, revision);
    }
}

#[test]
fn a_clock_that_jumps_back_never_lowers_a_revision() {
    for jump in [60, DAY - 1, 3 * DAY, 400 * DAY] {
        for restart in [false, true] {
            let mut world = with_revision(20);
            let before = edited(&mut world).revision;
            world.facts.unix_seconds = NOW - jump;
            if restart {
                world.restart();
            }
            let plan = edited(&mut world);
            assert_eq!(plan.revision, before + 1, "{jump} s back");
            assert_eq!(
                notes(&plan).contains("more than a day ahead"),
                jump > DAY,
                "{plan:?}"
            );
        }
    }
}

#[test]
fn a_lost_document_counts_on_from_what_is_told_elsewhere() {
    let mut world = with_revision(20);
    world.facts.current.document = None;
    world.facts.current.told = vec![
        ("the ConfigMap".into(), NOW + 5),
        ("the pool's status".into(), NOW + 9),
    ];
    assert_eq!(world.pass().revision, NOW + 10);
    let mut world = with_revision(20);
    world.facts.current.document = None;
    world.facts.current.told = Vec::new();
    world.facts.memory.revision = NOW + 7;
    assert_eq!(world.pass().revision, NOW + 8);
}

#[test]
fn a_value_more_than_a_day_ahead_is_ignored_and_its_place_is_told() {
    for place in ["the ConfigMap", "the pool's status", "the report of node w1"] {
        let mut world = with_revision(20);
        world.facts.current.document = None;
        world.facts.current.told = vec![(place.into(), NOW + DAY)];
        assert_eq!(world.pass().revision, NOW + DAY + 1, "a day is credible");

        let mut world = with_revision(20);
        world.facts.current.document = None;
        world.facts.current.told = vec![(place.into(), NOW + DAY + 1)];
        let plan = world.pass();
        assert_eq!(plan.revision, NOW);
        assert!(
            notes(&plan).contains(&format!("in {place} is more than a day ahead")),
            "{plan:?}"
        );
    }
    let mut world = with_revision(20);
    world.facts.memory.revision = u64::MAX;
    let plan = edited(&mut world);
    assert_eq!(plan.revision, NOW);
    assert!(notes(&plan).contains("in the operator's memory"), "{plan:?}");
}

#[test]
fn a_document_that_no_proxy_follows_is_replaced() {
    let mut world = with_revision(NOW + MAX_AHEAD_SECONDS + 1);
    let plan = world.pass();
    assert_eq!(plan.revision, NOW, "though it asks the same");
    assert!(
        notes(&plan).contains("in the ConfigMap is more than a day ahead"),
        "{plan:?}"
    );
    assert_eq!(notes(&world.pass()), "");
}

#[test]
fn a_rejected_spec_claims_no_revision_that_is_not_credible() {
    let mut world = World::with_masters(0);
    world.facts.unix_seconds = NOW;
    world.facts.current.told = vec![
        ("the pool's status".into(), NOW - 9),
        ("the ConfigMap".into(), u64::MAX),
    ];
    let plan = world.pass();
    assert_eq!(rejected(&plan), "NoMembers");
    assert_eq!(plan.revision, NOW - 9);
}

proptest! {
    /// What proxies follow is always below what comes next, whatever the clock does.
    #[test]
    fn whatever_the_clock_does_revisions_grow(jumps in proptest::collection::vec(-3_000_000..3_000_000i64, 1..20)) {
        let mut world = with_revision(NOW);
        for jump in jumps {
            let before = world.facts.current.document.as_ref().unwrap().revision;
            world.facts.unix_seconds = world.facts.unix_seconds.saturating_add_signed(jump);
            let after = edited(&mut world).revision;
            prop_assert!(after > before && after >= world.facts.unix_seconds, "{before}, then {after}");
        }
    }
}
