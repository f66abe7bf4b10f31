//! Replies to clients are signs of life.

use super::*;

/// A round of probes without an answer: a request for readiness, and one for a sign of life half a second later.
fn silent_round(world: &mut World, index: usize) -> Vec<Decision> {
    let asked = world.now;
    world.pass(SECOND / 2);
    let asked_again = world.now;
    world.pass(SECOND);
    let mut decisions = Vec::new();
    for asked in [asked, asked_again] {
        let event = Event::Probed {
            id: world.ids[index],
            asked,
            verified: false,
            outcome: Outcome::Silent,
        };
        decisions.extend(world.balance.observe(event, world.now));
    }
    decisions
}

impl World {
    fn replied(&mut self, index: usize, at: Instant) {
        self.balance
            .observe(Event::Replied(self.ids[index], at), self.now);
    }
}

#[test]
fn a_member_whose_clients_get_replies_is_late_and_not_silent() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    world.tell(Event::ProbeOverdue, 0);
    world.probed(1, Outcome::Ready);
    world.pass(SECOND);
    // The reply comes while both requests are under way.
    world.replied(0, world.now + SECOND * 5 / 4);
    let decisions = silent_round(&mut world, 0);
    assert_eq!(world.state(0), (State::Unready, Reason::Late));
    assert!(!cuts(&decisions, world.ids[0]));
    assert!(!cuts(&world.probed(1, Outcome::Ready), world.ids[0]));
}

#[test]
fn a_reply_from_before_a_probe_says_nothing_about_it() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    world.pass(SECOND);
    world.replied(0, world.now - SECOND / 1000);
    silent_round(&mut world, 0);
    assert_eq!(world.state(0), (State::Down, Reason::Silent));
}

#[test]
fn replies_excuse_no_member_for_long() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    let start = world.now;
    while world.state(0).0 != State::Down {
        world.replied(0, world.now + SECOND * 5 / 4);
        silent_round(&mut world, 0);
        assert!(world.now - start < SECOND * 5, "never Down");
    }
    assert!(world.now - start > SECOND * 2, "{:?}", world.now - start);
}

#[test]
fn an_answer_ends_what_is_excused() {
    let mut world = World::healthy(2);
    for _ in 0..20 {
        world.replied(0, world.now + SECOND * 5 / 4);
        silent_round(&mut world, 0);
        assert_eq!(world.state(0), (State::Unready, Reason::Late));
        world.probed(0, Outcome::Ready);
    }
}
