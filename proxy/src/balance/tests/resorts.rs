//! Members of earlier documents are tried while nobody else answers, and left as soon as somebody does.

use super::*;

impl World {
    /// Half a minute in which these members answer nothing and nobody else is asked.
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
        let earlier = Target {
            proven: true,
            ..target(index)
        };
        self.balance.observe(Event::Remembered(vec![earlier]), self.now);
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
    assert!(!world.order().contains(&2));
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
