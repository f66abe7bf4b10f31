//! Each address of a member is a path of its own: what happens on one says nothing about another.

use super::*;

const FOUR: [&str; 2] = ["10.0.0.1:6443", "10.0.0.2:6443"];
const SIX: [&str; 2] = ["[fd00::1]:6443", "[fd00::2]:6443"];

impl Target {
    fn second(self) -> Self {
        Self {
            preference: 1,
            ..self
        }
    }
}

impl World {
    /// All of these paths proven and Up.
    fn healthy_at(paths: Vec<Target>) -> Self {
        let mut world = Self::of(paths);
        for index in 0..world.ids.len() {
            world.probed(index, Outcome::Ready);
        }
        world
    }

    /// One member with an IPv4 and an IPv6 address.
    fn dual_stack() -> Self {
        Self::healthy_at(vec![at(0, FOUR[0]), at(0, SIX[0]).second()])
    }

    /// Two of them: paths 0 and 1 of the first, 2 and 3 of the second.
    fn two_dual_stacks() -> Self {
        Self::healthy_at(
            (0..2)
                .flat_map(|member| [at(member, FOUR[member]), at(member, SIX[member]).second()])
                .collect(),
        )
    }

    fn health_of(&self, member: &str) -> (State, Reason) {
        self.balance.member_health(member).unwrap()
    }

    /// A second in which these paths leave each question unanswered and the others answer, again and again.
    fn silent_beside_others(&mut self, silent: &[usize]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..4 {
            for index in silent {
                decisions.extend(self.tell(Event::ProbeOverdue, *index));
            }
            for index in (0..self.ids.len()).filter(|index| !silent.contains(index)) {
                decisions.extend(self.probed(index, Outcome::Ready));
            }
            self.pass(SECOND);
            for index in silent {
                decisions.extend(self.probed(*index, Outcome::Silent));
            }
        }
        decisions
    }
}

#[test]
fn the_silence_of_one_address_cuts_its_connections_and_the_member_stays_up() {
    let mut world = World::two_dual_stacks();
    (0..4).for_each(|index| drop(world.tell(Event::Opened, index)));
    let decisions = world.silent_beside_others(&[0]);
    assert_eq!(world.state(0), (State::Down, Reason::Silent));
    assert!(cuts(&decisions, world.ids[0]), "{decisions:?}");
    assert!((1..4).all(|other| !cuts(&decisions, world.ids[other])));
    assert_eq!(world.health_of("cp0"), (State::Up, Reason::Answering));
    assert!(
        world.order().iter().position(|index| *index == 1) < Some(3),
        "it is used by its IPv6"
    );
}

#[test]
fn a_dual_stack_member_whose_ipv4_falls_silent_alone_is_cut_on_the_word_of_its_ipv6() {
    let mut world = World::dual_stack();
    world.tell(Event::Opened, 0);
    let late = world.tell(Event::ProbeOverdue, 0);
    assert_eq!(
        late,
        [Decision::Probe(world.ids[1])],
        "its other address is asked at once"
    );
    let decisions = world.silent_beside_others(&[0]);
    assert!(cuts(&decisions, world.ids[0]), "{decisions:?}");
    assert_eq!(world.order(), [1, 0]);
}

#[test]
fn the_silence_of_a_whole_family_cuts_nothing_and_new_connections_take_the_other() {
    for (silent, well) in [([0, 2], [1, 3]), ([1, 3], [0, 2])] {
        let mut world = World::two_dual_stacks();
        (0..4).for_each(|index| drop(world.tell(Event::Opened, index)));
        let decisions = world.silent_beside_others(&silent);
        for index in silent {
            assert_eq!(world.state(index), (State::Down, Reason::Silent));
            assert!(!cuts(&decisions, world.ids[index]), "{decisions:?}");
        }
        let mut first = world.order()[..2].to_vec();
        first.sort_unstable();
        assert_eq!(first, well);
    }
}

#[test]
fn a_family_without_another_proven_path_is_judged_by_the_other_family() {
    // The second member's IPv4 address is a typo.
    let mut world = World::of(vec![at(0, FOUR[0]), at(0, SIX[0]).second(), at(1, FOUR[1])]);
    (0..2).for_each(|index| drop(world.probed(index, Outcome::Ready)));
    world.tell(Event::Opened, 0);
    let mut decisions = Vec::new();
    for _ in 0..4 {
        world.tell(Event::ProbeOverdue, 0);
        decisions.extend(world.probed(1, Outcome::Ready));
        world.pass(SECOND);
        decisions.extend(world.probed(0, Outcome::Silent));
    }
    assert!(cuts(&decisions, world.ids[0]), "{decisions:?}");
}

#[test]
fn a_refusal_at_one_address_does_not_end_the_silence_of_the_other() {
    let mut world = World::dual_stack();
    world.tell(Event::Opened, 0);
    for _ in 0..2 {
        world.probed(0, Outcome::Silent);
        world.probed(1, Outcome::Refused);
    }
    assert_eq!(world.state(0), (State::Down, Reason::Silent));
    assert_eq!(world.state(1), (State::Unready, Reason::Refused));
    assert_eq!(world.health_of("cp0"), (State::Unready, Reason::Refused));
}

#[test]
fn a_member_is_down_only_when_all_its_addresses_are_silent() {
    let mut world = World::dual_stack();
    let mut told = Vec::new();
    for index in [0, 1] {
        for _ in 0..2 {
            told.extend(world.probed(index, Outcome::Silent));
        }
    }
    assert_eq!(world.health_of("cp0"), (State::Down, Reason::Silent));
    let of_member = told
        .iter()
        .filter(|decision| matches!(decision, Decision::Tell { member, .. } if member.is_of_state()));
    assert_eq!(of_member.count(), 1, "its change is told once: {told:?}");
}

#[test]
fn a_member_with_a_strangers_certificate_at_its_first_address_is_used_by_its_second() {
    let mut world = World::of(vec![at(0, FOUR[0]), at(0, FOUR[1]).second()]);
    world.probed(0, Outcome::Untrusted);
    world.probed(1, Outcome::Ready);
    assert_eq!(world.health_of("cp0"), (State::Up, Reason::Answering));
    assert_eq!(world.order(), [1, 0]);
}

#[test]
fn the_preferred_of_two_addresses_that_are_up_is_used_whatever_the_load() {
    let mut world = World::dual_stack();
    for _ in 0..10 {
        assert_eq!(world.open(), 0);
    }
}

#[test]
fn connections_are_shared_by_member_and_not_by_address() {
    let mut world = World::healthy_at(vec![at(0, FOUR[0]), at(0, SIX[0]).second(), at(1, FOUR[1])]);
    let mut counts = [0; 3];
    for _ in 0..20 {
        counts[world.open()] += 1;
    }
    assert_eq!(counts, [10, 0, 10]);
}

#[test]
fn each_member_is_tried_once_before_a_second_address() {
    let world = World::two_dual_stacks();
    let order = world.order();
    let mut first = order[..2].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 2]);
    assert_eq!(order.len(), 4);
}

#[test]
fn an_address_that_left_a_client_waiting_comes_after_the_members_other_address() {
    let mut world = World::dual_stack();
    world.tell(Event::OpenOverdue, 0);
    assert_eq!(world.order(), [1, 0]);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.order(), [0, 1]);
}

#[test]
fn an_added_address_and_another_order_change_nothing_for_what_is_connected() {
    let mut world = World::healthy(1);
    world.tell(Event::Opened, 0);
    let added = world.configure(vec![at(0, SIX[0]), target(0).second()]);
    assert!(matches!(added.as_slice(), [Decision::Watch(..)]), "{added:?}");
    assert_eq!(world.state(0), (State::Up, Reason::Answering));
    let reordered = world.configure(vec![target(0), at(0, SIX[0]).second()]);
    assert!(reordered.is_empty(), "{reordered:?}");
}

#[test]
fn an_added_address_is_not_dialled_before_it_has_proved_itself() {
    let mut world = World::healthy(1);
    let added = world.configure(vec![at(0, SIX[0]), target(0).second()]);
    let Some(Decision::Watch(id, _)) = added.first() else {
        panic!("{added:?}");
    };
    world.ids.push(*id);
    assert_eq!(world.order(), [0, 1], "the new one is preferred and unproven");
    world.probed(0, Outcome::NotReady);
    assert_eq!(world.order(), [0, 1]);
    world.probed(1, Outcome::Ready);
    assert_eq!(world.order(), [1, 0]);
}

#[test]
fn only_connections_to_an_address_that_is_gone_are_drained_and_it_is_used_last() {
    let mut world = World::two_dual_stacks();
    (0..4).for_each(|index| drop(world.tell(Event::Opened, index)));
    let decisions = world.configure(vec![at(0, FOUR[0]), at(1, FOUR[1]), at(1, SIX[1]).second()]);
    assert_eq!(decisions, [Decision::Drain(world.ids[1])]);
    assert_eq!(world.order().last(), Some(&1));
    assert_eq!(world.health_of("cp0"), (State::Up, Reason::Answering));
    let over = world.tell(Event::Closed, 1);
    assert!(matches!(over.as_slice(), [Decision::Forget(..)]), "{over:?}");
}

#[test]
fn when_the_address_in_use_falls_the_other_one_is_probed_at_once() {
    for outcome in [Outcome::Refused, Outcome::NotReady] {
        let mut world = World::dual_stack();
        let fallen = world.probed(0, outcome);
        assert!(
            fallen.contains(&Decision::Probe(world.ids[1])),
            "{outcome:?}: {fallen:?}"
        );
    }
    let mut world = World::dual_stack();
    world.probed(0, Outcome::Silent);
    let fallen = world.probed(0, Outcome::Silent);
    assert!(fallen.contains(&Decision::Probe(world.ids[1])), "{fallen:?}");
}

#[test]
fn only_the_address_in_use_is_probed_at_the_full_rate() {
    let mut world = World::dual_stack();
    let in_use = |world: &World| [0, 1].map(|index| world.balance.is_in_use(world.ids[index]));
    assert_eq!(in_use(&world), [true, false]);
    world.tell(Event::Opened, 1);
    assert_eq!(in_use(&world), [true, true], "it has a connection");
    world.tell(Event::Closed, 1);
    world.tell(Event::Refused, 0);
    assert_eq!(in_use(&world), [false, true], "it takes the next connection");
    let fresh = World::of(vec![at(0, FOUR[0]), at(0, SIX[0]).second()]);
    assert_eq!(in_use(&fresh), [true, true], "neither was probed yet");
}

#[test]
fn a_member_without_etcd_is_left_with_all_its_addresses_and_not_for_itself() {
    let mut world = World::two_dual_stacks();
    (0..4).for_each(|index| drop(world.tell(Event::Opened, index)));
    let mut moved = Vec::new();
    for _ in 0..40 {
        world.pass(SECOND);
        for index in 0..4 {
            let outcome = if index < 2 {
                Outcome::EtcdFailed
            } else {
                Outcome::Ready
            };
            moved.extend(world.probed(index, outcome));
        }
    }
    moved.retain(|decision| matches!(decision, Decision::Move(_)));
    assert_eq!(
        moved,
        [Decision::Move(world.ids[0]), Decision::Move(world.ids[1])]
    );
    let mut alone = World::dual_stack();
    alone.tell(Event::Opened, 0);
    for _ in 0..40 {
        alone.pass(SECOND);
        let mut decisions = alone.probed(0, Outcome::EtcdFailed);
        decisions.extend(alone.probed(1, Outcome::Ready));
        decisions.retain(|decision| matches!(decision, Decision::Move(_)));
        assert!(decisions.is_empty(), "{decisions:?}");
    }
}

#[test]
fn a_hedge_is_not_free_where_the_member_answers_by_its_other_address() {
    let mut world = World::two_dual_stacks();
    world.pass(SECOND);
    let asked = world.now;
    (0..10).for_each(|_| assert!(world.balance.spend_hedge(&[world.ids[0]], asked)));
    world.probed(2, Outcome::Ready);
    assert!(
        world.balance.spend_hedge(&[world.ids[0]], asked),
        "another member was heard"
    );
    world.probed(1, Outcome::Ready);
    assert!(
        !world.balance.spend_hedge(&[world.ids[0]], asked),
        "it is only slow"
    );
}

proptest! {
    /// Whatever happens to two members with two addresses each, only silent paths are cut, and only once another of their
    /// family has been heard.
    #[test]
    fn only_silence_ever_cuts_a_path(happenings in prop::collection::vec(happening(), 0..120)) {
        let mut world = World::of((0..2)
            .flat_map(|member| [at(member, FOUR[member]), at(member, SIX[member]).second()])
            .collect());
        for happening in happenings.iter().filter(|happening| !matches!(happening, Happening::Draining(_))) {
            let decisions = world.happens(happening);
            for index in 0..4 {
                let sibling = (index + 2) % 4;
                let proven = world.balance.view()[sibling].proven;
                if cuts(&decisions, world.ids[index]) {
                    prop_assert_eq!(world.state(index).0, State::Down);
                    prop_assert!(!proven || world.state(sibling).0 != State::Down, "{:?}", happening);
                }
            }
        }
    }
}
