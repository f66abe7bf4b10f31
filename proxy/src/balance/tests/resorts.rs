//! Members of earlier documents are tried while no other answers, and left as soon as one does.

use super::*;

impl World {
    /// Half a minute in which these members answer nothing and no other is probed.
    fn silent(&mut self, members: &[usize]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..30 {
            for index in members {
                decisions.extend(self.probed(*index, Outcome::Silent));
            }
            self.pass(SECOND);
        }
        decisions
    }

    fn remember(&mut self, index: usize) {
        self.remember_path(target(index));
    }

    fn remember_path(&mut self, earlier: Target) {
        let earlier = Target {
            proven: true,
            ..earlier
        };
        let event = Event::Remembered {
            earlier: vec![earlier],
            further: Vec::new(),
        };
        self.balance.observe(event, self.now);
    }

    /// Takes in the upstream that a decision asks to watch.
    fn watch(&mut self, decisions: &[Decision]) {
        let watched = decisions.iter().filter_map(|decision| match decision {
            Decision::Watch(id, _) => Some(*id),
            _ => None,
        });
        self.ids.extend(watched);
    }
}

/// A document that disables the member of this number, and knows these addresses of it.
fn disabling(index: usize, addresses: &[&str]) -> Disabled {
    Disabled::of(&[DisabledMember {
        name: target(index).key.member,
        sockets: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }])
}

#[test]
fn an_earlier_member_is_tried_once_nobody_has_answered_for_long() {
    let mut world = World::healthy(2);
    world.remember(2);
    assert_eq!(world.order().len(), 2);
    let decisions = world.silent(&[0, 1]);
    world.watch(&decisions);
    assert_eq!(world.ids.len(), 3, "{decisions:?}");
    world.probed(2, Outcome::Ready);
    assert_eq!(world.order()[0], 2);
}

/// A member whose IPv4 address is silent, and whose IPv6 address this node cannot even ask.
fn half_unasked(is_proven: bool) -> World {
    let unasked = Target {
        proven: is_proven,
        preference: 1,
        ..at(0, "[fd00::1]:6443")
    };
    let mut world = World::of(vec![target(0), unasked]);
    world.remember(2);
    world
}

impl World {
    /// Time in which no probe of the second path can be sent, and the first stays silent.
    fn unasked_for(&mut self, seconds: u32) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..seconds {
            decisions.extend(self.probed(0, Outcome::Silent));
            decisions.extend(self.tell(Event::ProbeUnsent, 1));
            self.pass(SECOND);
        }
        decisions
    }
}

#[test]
fn an_address_that_this_node_cannot_ask_keeps_the_last_resort_off_for_a_while_only() {
    for is_proven in [false, true] {
        let mut world = half_unasked(is_proven);
        let hopeful = world.unasked_for(5);
        world.watch(&hopeful);
        assert_eq!(world.ids.len(), 2, "a burst passes: {hopeful:?}");
        let decisions = world.unasked_for(25);
        world.watch(&decisions);
        assert_eq!(world.ids.len(), 3, "proven: {is_proven}, {decisions:?}");
        let member = world.balance.member_health("cp0");
        assert_eq!(member, Some((State::Unready, Reason::NotProbed)));
        world.probed(2, Outcome::Ready);
        assert_eq!(world.order()[0], 2);
        world.probed(1, Outcome::Ready);
        assert_eq!(world.order()[0], 1, "a fault of this node was no failure");
    }
}

#[test]
fn a_last_resort_that_this_node_cannot_ask_is_waited_for_a_while_only() {
    let mut world = half_unasked(false);
    let decisions = world.unasked_for(15);
    world.watch(&decisions);
    assert!(world.balance.awaits_last_resort());
    for _ in 0..15 {
        world.tell(Event::ProbeUnsent, 2);
        world.pass(SECOND);
    }
    assert!(!world.balance.awaits_last_resort());
}

#[test]
fn a_member_that_answered_is_not_judged_by_a_fault_of_this_node() {
    let mut world = World::healthy(2);
    for _ in 0..60 {
        assert!(world.tell(Event::ProbeUnsent, 0).is_empty());
        world.pass(SECOND);
    }
    assert_eq!(world.state(0), (State::Up, Reason::Answering));
}

#[test]
fn one_current_member_that_answers_is_enough_to_try_nobody_else() {
    let mut world = World::healthy(2);
    world.remember(2);
    for _ in 0..30 {
        let mut decisions = world.probed(0, Outcome::NotReady);
        decisions.extend(world.probed(1, Outcome::Silent));
        world.watch(&decisions);
        world.pass(SECOND);
    }
    assert_eq!(world.ids.len(), 2);
}

#[test]
fn an_earlier_member_is_left_when_a_current_one_is_back() {
    let mut world = World::healthy(2);
    world.remember(2);
    let decisions = world.silent(&[0, 1]);
    world.watch(&decisions);
    world.probed(2, Outcome::Ready);
    world.tell(Event::Opened, 2);
    let decisions = world.probed(0, Outcome::Ready);
    assert!(
        decisions.contains(&Decision::Drain(world.ids[2])),
        "{decisions:?}"
    );
    assert_eq!(world.order().last(), Some(&2));
    let forgotten = world.tell(Event::Closed, 2);
    assert!(matches!(forgotten[..], [Decision::Forget(..)]), "{forgotten:?}");
}

#[test]
fn an_earlier_member_that_a_document_names_again_stays() {
    let mut world = World::healthy(1);
    world.remember(1);
    let decisions = world.silent(&[0]);
    world.watch(&decisions);
    world.probed(1, Outcome::Ready);
    let decisions = world.configure(vec![target(0), target(1)]);
    assert!(decisions.is_empty(), "{decisions:?}");
    world.probed(0, Outcome::Ready);
    assert!(world.order().contains(&1));
}

fn draining(index: usize) -> Target {
    Target {
        draining: true,
        ..target(index)
    }
}

/// Three members that answered, the first of which drains now.
fn one_drains() -> World {
    let mut world = World::healthy(3);
    world.tell(Event::Opened, 0);
    world.configure(vec![draining(0), target(1), target(2)]);
    world
}

#[test]
fn a_member_that_drains_is_dialled_after_all_others_and_first_once_none_answers() {
    let mut world = one_drains();
    assert_eq!(world.order().last(), Some(&0));
    for index in [1, 2] {
        world.tell(Event::Refused, index);
    }
    assert_eq!(world.order()[0], 0);
    world.probed(1, Outcome::Silent);
    world.probed(2, Outcome::NotReady);
    assert_eq!(
        world.order()[0],
        2,
        "a member that answers is preferred, ready or not"
    );
}

#[test]
fn a_member_that_drains_and_does_not_answer_is_not_dialled() {
    for outcome in [Outcome::Refused, Outcome::Untrusted] {
        let mut world = one_drains();
        world.probed(0, outcome);
        assert!(!world.order().contains(&0), "{outcome:?}");
    }
}

#[test]
fn a_drain_pauses_while_no_other_member_answers() {
    let mut world = one_drains();
    world.tell(Event::Refused, 1);
    let paused = world.tell(Event::Refused, 2);
    assert!(paused.contains(&Decision::Restore(world.ids[0])), "{paused:?}");
    let resumed = world.probed(1, Outcome::Ready);
    assert!(resumed.contains(&Decision::Drain(world.ids[0])), "{resumed:?}");
}

#[test]
fn what_a_member_that_drains_got_as_a_last_resort_is_drained_too() {
    let mut world = one_drains();
    world.tell(Event::Opened, 0);
    let decisions = world.probed(1, Outcome::Ready);
    assert!(
        decisions.contains(&Decision::Drain(world.ids[0])),
        "{decisions:?}"
    );
    let decisions = world.probed(1, Outcome::Ready);
    assert!(decisions.is_empty(), "{decisions:?}");
}

#[test]
fn what_another_process_opened_to_a_member_that_has_left_drains_once_another_answers_or_at_once_where_none_is_left()
 {
    for (members, at_once) in [(2, false), (0, true)] {
        let mut world = World::healthy(members);
        let (id, _) = world.balance.adopt(&target(7).key, false, world.now);
        world.balance.observe(Event::Opened(id), world.now);
        assert_eq!(world.balance.begins_draining(id), at_once, "{members} members");
        if members > 0 {
            assert_eq!(world.probed(0, Outcome::Ready), [Decision::Drain(id)]);
        }
    }
}

#[test]
fn a_removed_member_is_probed_as_soon_as_no_other_answers_and_dialled_once_it_answered() {
    let mut world = World::healthy(2);
    world.remember(2);
    world.tell(Event::Refused, 0);
    let decisions = world.tell(Event::Refused, 1);
    world.watch(&decisions);
    assert_eq!(world.ids.len(), 3, "{decisions:?}");
    assert!(world.balance.awaits_last_resort());
    assert!(!world.order().contains(&2), "its address may be another host's");
    world.probed(2, Outcome::Ready);
    assert!(!world.balance.awaits_last_resort());
    assert_eq!(world.order()[0], 2);
}

#[test]
fn an_earlier_member_that_has_only_kept_silent_is_not_dialled_though_it_was_proven_before_the_start() {
    let mut world = World::healthy(1);
    world.remember(1);
    let decisions = world.silent(&[0]);
    world.watch(&decisions);
    world.probed(1, Outcome::Silent);
    assert!(!world.order().contains(&1));
    world.probed(1, Outcome::Ready);
    assert_eq!(world.order()[0], 1);
}

#[test]
fn a_new_member_that_withholds_its_readiness_is_not_up_at_once() {
    let mut world = World::with(1);
    for _ in 0..4 {
        world.probed(0, Outcome::Withheld);
        assert_eq!(world.balance.view()[0].state, State::Unready);
    }
    world.probed(0, Outcome::Withheld);
    assert_eq!(world.balance.view()[0].state, State::Up);
}

#[test]
fn a_disabled_member_is_no_last_resort() {
    let mut world = World::healthy(2);
    let drained = world.ids[1];
    world.tell(Event::Opened, 1);
    world.remember(2);
    // One by its name, and one by its address, which an earlier document has under another name.
    let disabled = disabling(1, &["10.0.0.2:6443"]);
    let drains = world.configure_and_disable(vec![target(0)], disabled);
    assert_eq!(drains, [Decision::Drain(drained)]);
    for _ in 0..30 {
        world.probed(0, Outcome::Silent);
        world.probed(1, Outcome::Ready);
        world.pass(SECOND);
    }
    assert_eq!(
        world.balance.view().len(),
        2,
        "the earlier one is not even probed"
    );
    assert_eq!(world.order(), [0]);
    assert!(!world.balance.is_usable(drained));
    assert!(!world.balance.awaits_last_resort());
    assert_eq!(world.balance.view()[1].standing, Standing::Disabled);
    // If it were not disabled it would serve.
    world.configure(vec![target(0)]);
    assert_eq!(world.order()[0], 1);
}

#[test]
fn a_drain_that_paused_goes_on_when_the_member_is_disabled() {
    let mut world = one_drains();
    world.tell(Event::Refused, 1);
    world.tell(Event::Refused, 2);
    let resumed = world.configure_and_disable(vec![target(1), target(2)], disabling(0, &[]));
    assert_eq!(resumed, [Decision::Drain(world.ids[0])]);
    let forgotten = world.tell(Event::Closed, 0);
    assert!(matches!(forgotten[..], [Decision::Forget(..)]), "{forgotten:?}");
}

#[test]
fn a_member_that_is_enabled_again_keeps_its_connections() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 1);
    world.configure_and_disable(vec![target(0)], disabling(1, &[]));
    let restored = world.configure(vec![target(0), target(1)]);
    assert_eq!(restored, [Decision::Restore(world.ids[1])]);
    assert!(world.order().contains(&1));
}

#[test]
fn a_disabled_member_is_no_last_resort_by_another_address_of_an_earlier_document() {
    for (disabled, is_tried) in [
        (disabling(1, &["10.0.0.1:6443"]), false),
        (Disabled::default(), true),
    ] {
        let mut world = World::healthy(1);
        world.configure_and_disable(vec![target(0)], disabled);
        world.remember_path(at(1, "[fd00::1]:6443"));
        let decisions = world.silent(&[0]);
        let is_watched = |decision: &Decision| matches!(decision, Decision::Watch(..));
        assert_eq!(decisions.iter().any(is_watched), is_tried, "{decisions:?}");
    }
}

#[test]
fn an_address_that_a_member_took_over_from_a_disabled_one_is_used() {
    let mut world = World::healthy(2);
    world.remember(1);
    let taken_over = at(0, "10.0.0.1:6443");
    let decisions = world.configure_and_disable(vec![target(0), taken_over.clone()], disabling(1, &[]));
    world.watch(&decisions);
    world.probed(2, Outcome::Ready);
    world.probed(0, Outcome::Silent);
    world.probed(0, Outcome::Silent);
    let first = world.balance.candidates()[0];
    assert_eq!((first.id, first.address), (world.ids[2], taken_over.key.address));
}

#[test]
fn a_disabled_name_hides_no_member_of_the_document_itself() {
    let mut world = World::healthy(2);
    let hidden = Disabled::of(&[0, 1].map(|index| DisabledMember {
        name: target(index).key.member,
        sockets: vec![target(index).key.address],
    }));
    world.configure_and_disable(vec![target(0), draining(1)], hidden);
    assert_eq!(world.order(), [0, 1]);
}
