//! Further endpoints are asked once nothing has answered for five seconds, and used after a verified answer only.

use super::*;
use crate::balance::last_resort::FURTHER_AFTER;

impl World {
    /// Two members that were well, and what is known beside them.
    fn knowing(earlier: Vec<Target>, further: Vec<Target>) -> Self {
        let mut world = Self::healthy(2);
        world
            .balance
            .observe(Event::Remembered { earlier, further }, world.now);
        world
    }

    /// Half a second goes by in which these paths answer nothing. The numbers of the paths that are new go on from the known
    /// ones.
    fn half_a_second(&mut self, silent: &[usize]) {
        let mut decisions = Vec::new();
        for index in silent {
            decisions.extend(self.probed(*index, Outcome::Silent));
        }
        self.pass(SECOND / 2);
        decisions.extend(self.balance.observe(Event::Elapsed, self.now));
        self.take_in(&decisions);
    }

    /// Numbers the paths that are to be probed from now on.
    fn take_in(&mut self, decisions: &[Decision]) {
        let watched = decisions.iter().filter_map(|decision| match decision {
            Decision::Watch(id, _) => Some(*id),
            _ => None,
        });
        self.ids.extend(watched);
    }
}

#[test]
fn they_are_asked_five_seconds_after_the_last_answer() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    let mut unserved = Duration::ZERO;
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
        if !world.is_served_without(None) {
            unserved += SECOND / 2;
        }
        assert!(unserved < 2 * FURTHER_AFTER, "they are never asked");
    }
    assert!(
        (FURTHER_AFTER..FURTHER_AFTER + 2 * SECOND).contains(&unserved),
        "{unserved:?}"
    );
    assert!(
        world.balance.awaits_last_resort(),
        "a client waits for its answer"
    );
}

#[test]
fn one_that_gives_a_verified_answer_serves_and_no_other() {
    let mut world = World::knowing(Vec::new(), vec![target(2), target(3)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    assert_eq!(world.ids.len(), 4);
    assert!(!world.order().contains(&2) && !world.order().contains(&3));
    world.probed(3, Outcome::Untrusted);
    world.probed(2, Outcome::Ready);
    assert_eq!(world.order()[0], 2);
    assert!(!world.order().contains(&3), "a stranger");
}

#[test]
fn they_are_left_when_a_member_is_back() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    world.tell(Event::Opened, 2);
    let decisions = world.probed(0, Outcome::Ready);
    assert!(
        decisions.contains(&Decision::Drain(world.ids[2])),
        "{decisions:?}"
    );
    let forgotten = world.tell(Event::Closed, 2);
    assert!(matches!(forgotten[..], [Decision::Forget(..)]), "{forgotten:?}");
}

#[test]
fn nobody_is_asked_while_a_member_of_an_earlier_document_serves() {
    let mut world = World::knowing(vec![target(2)], vec![target(3)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    for _ in 0..60 {
        world.half_a_second(&[0, 1]);
        world.probed(2, Outcome::Ready);
    }
    assert_eq!(world.ids.len(), 3);
    for _ in 0..20 {
        world.half_a_second(&[0, 1, 2]);
    }
    assert_eq!(world.ids.len(), 4, "it is silent too");
}

#[test]
fn a_disabled_member_is_never_asked_as_an_endpoint() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    let disabled = Disabled::of(&[DisabledMember {
        name: "retired".to_owned(),
        sockets: vec![target(2).key.address],
    }]);
    world.configure_and_disable(vec![target(0), target(1)], disabled);
    for _ in 0..60 {
        world.half_a_second(&[0, 1]);
    }
    assert_eq!(world.ids.len(), 2);
}

#[test]
fn they_are_left_when_a_member_that_drains_answers() {
    let drains = Target {
        draining: true,
        ..target(1)
    };
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    world.configure(vec![target(0), drains]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    assert_eq!(world.order()[0], 2);
    world.probed(1, Outcome::Ready);
    assert_eq!(world.order()[0], 1);
    assert_eq!(world.balance.view().len(), 2, "the endpoint is forgotten");
}

#[test]
fn a_member_of_an_earlier_document_comes_before_them() {
    let mut world = World::knowing(vec![target(2)], vec![target(3)]);
    while world.ids.len() < 4 {
        let silent: Vec<_> = (0..world.ids.len()).collect();
        world.half_a_second(&silent);
    }
    world.probed(3, Outcome::Ready);
    assert_eq!(world.order()[0], 3);
    world.tell(Event::Opened, 3);
    let decisions = world.probed(2, Outcome::NotReady);
    assert!(
        decisions.contains(&Decision::Drain(world.ids[3])),
        "{decisions:?}"
    );
    assert!(!world.order().contains(&3), "a member answers, ready or not");
    // Its connection is left, and it answers still.
    world.tell(Event::Refused, 2);
    assert_eq!(world.order()[0], 3);
}

#[test]
fn one_that_serves_goes_on_under_a_new_document_until_that_knows_it_no_more() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    assert!(world.configure(vec![target(0), target(1)]).is_empty());
    let known_again = Event::Remembered {
        earlier: Vec::new(),
        further: vec![target(2)],
    };
    assert!(world.balance.observe(known_again, world.now).is_empty());
    assert_eq!(world.order()[0], 2);
    world.configure(vec![target(0), target(1)]);
    let gone = Event::Remembered {
        earlier: Vec::new(),
        further: Vec::new(),
    };
    let forgotten = [
        Decision::Drain(world.ids[2]),
        Decision::Forget(world.ids[2], target(2).key),
    ];
    assert_eq!(world.balance.observe(gone, world.now), forgotten);
}

#[test]
fn one_that_a_document_disables_is_left_at_once() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    world.tell(Event::Opened, 2);
    let disabled = Disabled::of(&[DisabledMember {
        name: "retired".to_owned(),
        sockets: vec![target(2).key.address],
    }]);
    let decisions = world.configure_and_disable(vec![target(0), target(1)], disabled);
    assert_eq!(decisions, [Decision::Drain(world.ids[2])]);
    world.probed(2, Outcome::Ready);
    assert!(!world.order().contains(&2));
}

#[test]
fn one_that_becomes_a_member_is_a_member() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
    }
    world.probed(2, Outcome::Ready);
    world.tell(Event::Opened, 2);
    let decisions = world.configure(vec![target(0), target(2)]);
    assert!(
        !decisions.contains(&Decision::Drain(world.ids[2])),
        "{decisions:?}"
    );
    world.probed(0, Outcome::Ready);
    assert!(world.order().contains(&2));
}

#[test]
fn a_connection_that_another_process_opened_there_makes_it_no_member() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    let (id, _) = world.balance.adopt(&target(2).key, true, world.now);
    world.ids.push(id);
    world.tell(Event::Opened, 2);
    world.probed(2, Outcome::Ready);
    assert!(!world.order().contains(&2), "members answer");
    for index in [0, 1] {
        world.tell(Event::Refused, index);
    }
    assert_eq!(world.order()[0], 2);
    let mut decisions = Vec::new();
    for _ in 0..20 {
        world.pass(SECOND / 2);
        decisions.extend(world.balance.observe(Event::Elapsed, world.now));
    }
    assert_eq!(decisions, [Decision::Restore(id)], "its drain ends");
}

impl World {
    /// The further endpoint of this target, if it is asked or has connections.
    fn further(&self, target: &Target) -> Option<View> {
        let mut views = self.balance.view().into_iter();
        views.find(|view| view.key == target.key)
    }

    /// Whether a new connection may go to a path other than this one that is expected to answer.
    fn is_served_without(&self, further: Option<PathId>) -> bool {
        let answers = |id| {
            let (state, reason) = self.balance.health(id).unwrap();
            health::answers(state, reason)
        };
        let mut others = self.balance.candidates().into_iter();
        others.any(|candidate| Some(candidate.id) != further && answers(candidate.id))
    }
}

proptest! {
    #[test]
    fn whatever_happens_none_is_asked_early_or_used_unverified_or_beside_a_member(
        happenings in prop::collection::vec(
            (happening(), any::<bool>(), prop::option::of(outcome())),
            0..120,
        ),
    ) {
        let mut world = World::healthy(4);
        let endpoint = target(4);
        let event = Event::Remembered { earlier: Vec::new(), further: vec![endpoint.clone()] };
        world.balance.observe(event, world.now);
        let mut served = world.now;
        // Which of its paths have given a verified answer.
        let mut verified = BTreeSet::new();
        for (happening, looks, outcome) in &happenings {
            let before = world.further(&endpoint).map(|view| view.id);
            let was_served = world.is_served_without(before);
            world.happens(happening);
            if was_served {
                served = world.now;
            }
            if *looks {
                world.balance.observe(Event::Elapsed, world.now);
            }
            let after = world.further(&endpoint).map(|view| view.id);
            if after.is_some() && after != before {
                prop_assert!(world.now - served >= FURTHER_AFTER);
            }
            if let (Some(id), Some(outcome)) = (after, outcome) {
                world.ids.truncate(4);
                world.ids.push(id);
                world.probed(4, *outcome);
                if outcome.is_answer() && *outcome != Outcome::EtcdFailed {
                    verified.insert(id);
                }
            }
            if let Some(id) = after.filter(|id| world.balance.is_usable(*id)) {
                prop_assert!(verified.contains(&id), "it never answered");
                prop_assert!(!world.is_served_without(after), "a member answers");
            }
        }
    }
}
