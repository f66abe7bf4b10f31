//! Rollouts beside nodes that are dead or cannot start the new proxy, under a DaemonSet controller as it is.

use proptest::prelude::*;

use super::controller::{Fault, World};
use super::*;

const FULL: Fault = Fault::DiskFull;
const GOOD: Fault = Fault::Nothing;
const DEAD: Fault = Fault::Dead(1000);

/// Longer than any of these rollouts takes, and shorter than the time after which one without progress has failed.
const LONG: usize = 500;

impl World {
    fn run(&mut self, seconds: usize) {
        (0..seconds).for_each(|_| self.tick());
    }

    fn record(&self) -> &Record {
        &self.cluster.facts.record
    }
}

/// A cluster in which the DaemonSet controller comes to w1 first.
fn world(faults: &[Fault]) -> World {
    World::new(faults, 0)
}

#[test]
fn one_node_whose_disk_is_full_would_hold_up_all_others_for_ever() {
    let mut world = world(&[FULL, GOOD, GOOD, GOOD]);
    world.is_helped = false;
    world.run(LONG);
    assert_eq!((world.serve("b"), &world.phase), (0, &Phase::Starts));
}

#[test]
fn the_others_get_the_template_beside_a_dead_node_and_one_whose_disk_is_full() {
    for faults in [
        [FULL, DEAD, GOOD, GOOD, GOOD],
        [DEAD, FULL, GOOD, GOOD, GOOD],
        [GOOD, GOOD, GOOD, DEAD, FULL],
    ] {
        let mut world = world(&faults);
        world.run(LONG);
        assert!(world.have_healthy_ones("b"), "{world:?}");
        let full = faults.iter().position(|fault| *fault == FULL).unwrap() + 1;
        let rest = Phase::Rest {
            done: 3,
            awaited: Vec::new(),
            stuck: vec![format!("w{full}")],
        };
        assert_eq!((&world.phase, world.begun), (&rest, 1));
        assert_eq!(world.record().halted, None);
    }
}

#[test]
fn a_template_that_only_stuck_nodes_lack_is_good_after_the_deadline_and_they_get_it_once_repaired() {
    let mut world = world(&[FULL, GOOD, GOOD]);
    world.run(1000);
    assert_eq!(
        (world.record().good.as_str(), &world.phase),
        ("b", &Phase::Settled)
    );
    world.machines[0].fault = GOOD;
    world.run(20);
    assert!(world.have_healthy_ones("b"), "{world:?}");
    assert_eq!(world.begun, 1);
}

#[test]
fn a_node_that_is_repaired_amid_the_rollout_gets_the_template() {
    let mut world = world(&[FULL, GOOD, GOOD]);
    world.run(100);
    assert!(matches!(world.phase, Phase::Rest { .. }), "{world:?}");
    world.machines[0].fault = GOOD;
    world.run(30);
    assert!(world.have_healthy_ones("b"), "{world:?}");
    assert_eq!(
        (world.record().good.as_str(), &world.phase),
        ("b", &Phase::Settled)
    );
}

#[test]
fn a_template_that_most_nodes_cannot_start_halts_after_the_deadline_and_goes_back() {
    let mut world = world(&[GOOD, FULL, FULL, FULL]);
    world.run(2 * LONG);
    let halt = world.record().halted.clone().unwrap();
    assert!(halt.cause.ends_with(": no space left on device"), "{halt:?}");
    assert_eq!((world.cluster.in_place(), world.serve("a")), ("a", 4));
}

#[test]
fn a_template_that_no_node_can_start_is_tried_on_a_few_and_halts_after_the_deadline() {
    let mut world = world(&[FULL; 20]);
    let mut most = 0;
    for _ in 0..2 * LONG {
        world.tick();
        most = most.max(world.two_pods());
    }
    assert!((2..=5).contains(&most), "{most} nodes were tried");
    assert!(world.record().halted.is_some());
    assert_eq!(world.serve("a"), 20);
}

#[test]
fn a_first_node_that_cannot_start_its_next_pod_is_replaced_by_another() {
    let mut cluster = Cluster::with_first_ready(4);
    cluster.node("w1").newcomer = Some(Newcomer {
        created_at: Some(cluster.facts.now),
        words: Some("no space left on device".to_owned()),
        ..Newcomer::default()
    });
    cluster.start_on("w2");
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w1"), "kubelet retries");
    assert_eq!(cluster.wait(15).target.gate, Gate::of_node("w2"));
}

#[test]
fn a_proxy_that_ran_and_is_not_ready_is_no_trouble_of_its_node() {
    let mut cluster = Cluster::with_rest(4);
    for name in ["w2", "w3"] {
        cluster.node(name).newcomer = Some(ready());
    }
    cluster.start_on("w4");
    cluster.node("w4").newcomer.as_mut().unwrap().created_at = Some(cluster.facts.now);
    let decision = cluster.wait(620);
    assert_eq!(halt_of(&decision).node, "w4");
}

/// So many machines that are stuck, dead and good, in any order, a pace, and seconds at which the operator starts anew.
fn clusters() -> impl Strategy<Value = (Vec<Fault>, usize, &'static str, Vec<usize>)> {
    let faults = (0..=3_usize, 0..=2_usize, 1..=5_usize)
        .prop_filter("they are at most half", |(full, dead, good)| {
            2 * full <= full + dead + good && full + dead + good >= 2
        });
    let faults = faults.prop_flat_map(|(full, dead, good)| {
        let all = [(full, FULL), (dead, DEAD), (good, GOOD)];
        let all = all
            .into_iter()
            .flat_map(|(count, fault)| std::iter::repeat_n(fault, count));
        Just(all.collect::<Vec<_>>()).prop_shuffle()
    });
    let pace = prop_oneof![Just("1"), Just("2"), Just("10%"), Just("50%"), Just("100%")];
    let restarts = proptest::collection::vec(0..200_usize, 0..12);
    (faults, 0..7_usize, pace, restarts)
}

proptest! {
    #[test]
    fn whatever_a_minority_cannot_start_the_others_get_and_restarts_change_nothing(
        (faults, stride, pace, restarts) in clusters(),
    ) {
        let mut world = World::new(&faults, stride);
        world.cluster.rollout.max_parallel = pace.to_owned();
        for second in 0..LONG {
            if restarts.contains(&second) {
                world.restart();
            }
            world.tick();
            // The pace is asserted at each look of the controller.
            let has_soaked = world.record().soaked == "b" || world.record().good == "b";
            prop_assert!(has_soaked || world.serve("b") <= 1, "{:?}", world);
            prop_assert_eq!(&world.record().halted, &None);
        }
        prop_assert!(world.have_healthy_ones("b"), "{:?}", world);
        prop_assert_eq!(world.begun, 1);
    }
}
