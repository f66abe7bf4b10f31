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

    fn is_served(&self) -> bool {
        let mut candidates = self.balance.candidates().into_iter();
        candidates.any(|candidate| {
            let (state, reason) = self.balance.health(candidate.id).unwrap();
            health::answers(state, reason)
        })
    }
}

#[test]
fn they_are_asked_five_seconds_after_the_last_answer() {
    let mut world = World::knowing(Vec::new(), vec![target(2)]);
    let mut unserved = Duration::ZERO;
    while world.ids.len() == 2 {
        world.half_a_second(&[0, 1]);
        if !world.is_served() {
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

proptest! {
    #[test]
    fn whatever_happens_none_is_asked_early_or_used_unverified(
        happenings in prop::collection::vec((happening(), any::<bool>()), 0..120),
    ) {
        let mut world = World::healthy(4);
        let event = Event::Remembered { earlier: Vec::new(), further: vec![target(4)] };
        world.balance.observe(event, world.now);
        let mut served = world.now;
        for (happening, looks) in &happenings {
            if world.is_served() {
                served = world.now;
            }
            let decisions = world.happens(happening);
            world.take_in(&decisions);
            if *looks {
                let decisions = world.balance.observe(Event::Elapsed, world.now);
                world.take_in(&decisions);
            }
            let views = world.balance.view();
            let further = views.iter().find(|view| view.key == target(4).key);
            if let Some(further) = further {
                prop_assert!(world.now - served >= FURTHER_AFTER);
                prop_assert!(!world.balance.is_usable(further.id), "it never answered");
            }
        }
    }
}
