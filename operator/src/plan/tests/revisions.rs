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

#[test]
fn a_document_of_a_backup_gets_a_new_revision_though_it_asks_the_same() {
    let tell = |place: &'static str| {
        let mut world = with_revision(NOW - 100);
        match place {
            "memory" => world.facts.memory.revision = NOW - 50,
            _ => world.facts.current.told.push((place.into(), NOW - 50)),
        }
        world
    };
    for place in ["the report of node w1", "the pool's status", "memory"] {
        let mut world = tell(place);
        let before = world.facts.current.document.clone().unwrap();
        let plan = world.pass();
        let rollout = plan.rollout.unwrap();
        assert!(!rollout.is_written && plan.revision == NOW, "{place}");
        assert!(rollout.document.same_content(&before));
        // The report and the status still tell of the past.
        world.facts.current.told.push((place.into(), NOW - 50));
        assert!(world.pass().rollout.unwrap().is_written, "{place}: once");
    }
    let mut world = tell("the report of node w1");
    world.facts.unix_seconds = NOW - 200;
    assert_eq!(world.pass().revision, NOW - 49, "whatever the clock says");
}

#[test]
fn a_revision_that_is_not_credible_is_no_sign_of_a_backup() {
    let mut world = with_revision(NOW - 100);
    let place = "the report of node w1";
    world.facts.current.told.push((place.into(), NOW + DAY + 1));
    let plan = world.pass();
    assert!(plan.rollout.as_ref().unwrap().is_written);
    assert!(notes(&plan).contains(place), "{plan:?}");
}

#[test]
fn a_document_that_is_older_than_its_config_map_is_one_of_a_backup() {
    for (created, is_of_backup) in [(NOW - 100, false), (NOW - 90, false), (NOW - 89, true)] {
        let mut world = with_revision(NOW - 100);
        world.facts.current.created = created;
        let plan = world.pass();
        assert_eq!(!plan.rollout.unwrap().is_written, is_of_backup, "{created}");
        assert!(world.pass().rollout.unwrap().is_written, "once");
    }
}

#[test]
fn a_document_of_a_backup_gets_a_new_revision_while_a_spec_is_rejected() {
    let mut world = with_revision(NOW - 100);
    for number in 1..=3 {
        world.list(&format!("cp{number}"), &[], PoolMemberState::Disabled);
    }
    let before = world.facts.current.document.clone().unwrap();
    assert!(!rejected(&world.pass()).is_empty());
    assert_eq!(world.facts.current.document.as_ref(), Some(&before));
    let report = ("the report of node w1".into(), NOW - 50);
    world.facts.current.told.push(report);
    let plan = world.pass();
    assert!(!rejected(&plan).is_empty());
    assert_eq!(plan.revision, NOW);
    assert!(plan.rollout.unwrap().document.same_content(&before));
}

#[test]
fn a_rollout_of_a_backup_goes_on_and_is_not_taken_for_one_without_progress() {
    let template = wave::Template {
        hash: "b".to_owned(),
        ..wave::Template::default()
    };
    let first = wave::NodeFacts {
        name: "w1".to_owned(),
        has_earlier: true,
        newcomer: Some(wave::Newcomer {
            is_running: true,
            has_started: true,
            ..wave::Newcomer::default()
        }),
        ..wave::NodeFacts::default()
    };
    let now = i64::try_from(NOW).unwrap();
    for is_restored in [true, false] {
        let mut world = with_revision(NOW - 4000);
        world.facts.template = "b".to_owned();
        world.facts.waves = WaveFacts {
            now,
            in_place: Some(template.clone()),
            soak: 30,
            record: wave::Record {
                good: "a".to_owned(),
                since: now - 3600,
                ready_since: now - 3600,
                ..wave::Record::default()
            },
            target: wire::RolloutTarget {
                template: "b".to_owned(),
                gate: wire::Gate::of_node("w1"),
            },
            nodes: vec![first.clone()],
            ..WaveFacts::default()
        };
        for seconds in [0, 30] {
            let looked = world.facts.now + Duration::from_secs(seconds);
            world.facts.memory.vigil.observe(looked);
            world.facts.now = looked;
        }
        if is_restored {
            world
                .facts
                .current
                .told
                .push(("the report of node w1".into(), NOW - 50));
        }
        let plan = world.pass();
        assert_eq!(plan.waves.halt().is_none(), is_restored, "{:?}", plan.waves);
        let record = plan.rollout.unwrap().proxies.unwrap().record;
        assert_eq!(record.since == now, is_restored, "{record:?}");
    }
}

proptest! {
    /// Whatever is restored and whenever, the document in force is the one that proxies follow, or above it.
    #[test]
    fn whatever_is_restored_proxies_follow(
        steps in proptest::collection::vec((any::<bool>(), 0..20usize, 0..100u64), 1..20),
    ) {
        let mut world = with_revision(NOW);
        let mut followed = world.facts.current.document.clone().unwrap();
        let mut backups = vec![world.facts.current.clone()];
        for (is_restore, which, seconds) in steps {
            world.facts.unix_seconds += seconds;
            if is_restore {
                world.facts.current = backups[which % backups.len()].clone();
                world.facts.memory = Memory::default();
            } else {
                world.pool.spec.connection.drain_timeout_seconds += 1;
            }
            world.facts.current.told.push(("the report of node w1".into(), followed.revision));
            world.pass();
            let document = world.facts.current.document.clone().unwrap();
            prop_assert!(document == followed || document.revision > followed.revision, "{document:?}");
            followed = document;
            backups.push(world.facts.current.clone());
        }
    }

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
