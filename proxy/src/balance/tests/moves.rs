//! A member that is cut off from its etcd is left gradually, and only for one that is well.

use super::*;

fn moves(decisions: &[Decision]) -> usize {
    decisions
        .iter()
        .filter(|decision| matches!(decision, Decision::Move(_)))
        .count()
}

impl World {
    /// Lets time pass as the probe of an apiserver without etcd sees it: late, and red after 4 s. The others are well.
    fn stranded(&mut self, members: &[usize], time: Duration) -> Vec<Decision> {
        let until = self.now + time;
        let mut decisions = Vec::new();
        while self.now < until {
            for index in 0..self.ids.len() {
                let outcomes: &[_] = if members.contains(&index) {
                    &[Outcome::Late, Outcome::EtcdFailed]
                } else {
                    &[Outcome::Ready]
                };
                for outcome in outcomes {
                    decisions.extend(self.probed(index, *outcome));
                }
            }
            self.pass(4 * SECOND);
        }
        decisions
    }
}

#[test]
fn a_member_cut_off_from_etcd_keeps_its_connections_for_half_a_minute() {
    let mut world = World::healthy(3);
    let first = world.open();
    let soon = world.stranded(&[first], 28 * SECOND);
    assert_eq!(moves(&soon), 0, "{soon:?}");
    let later = world.stranded(&[first], 10 * SECOND);
    assert_eq!(moves(&later), 1, "{later:?}");
    assert!(!cuts(&later, world.ids[first]));
}

#[test]
fn nobody_is_moved_while_etcd_has_lost_its_quorum() {
    let mut world = World::healthy(3);
    world.open();
    let decisions = world.stranded(&[0, 1, 2], 300 * SECOND);
    assert_eq!(moves(&decisions), 0, "{decisions:?}");
}

#[test]
fn a_member_that_has_its_etcd_again_keeps_what_is_left() {
    let mut world = World::healthy(2);
    let first = world.open();
    world.stranded(&[first], 40 * SECOND);
    let decisions = world.probed(first, Outcome::Ready);
    assert!(
        decisions.contains(&Decision::Restore(world.ids[first])),
        "{decisions:?}"
    );
}

#[test]
fn members_are_left_one_at_a_time() {
    let mut world = World::healthy(3);
    for index in 0..3 {
        world.tell(Event::Opened, index);
    }
    let decisions = world.stranded(&[0, 1], 40 * SECOND);
    assert_eq!(moves(&decisions), 1, "{decisions:?}");
    let decisions = world.stranded(&[0, 1], 40 * SECOND);
    assert_eq!(moves(&decisions), 1, "{decisions:?}");
}

#[test]
fn a_member_that_ends_or_starts_is_not_moved_away_from() {
    let mut world = World::healthy(2);
    let first = world.open();
    for _ in 0..60 {
        let other = 1 - first;
        let mut decisions = world.probed(first, Outcome::NotReady);
        decisions.extend(world.probed(other, Outcome::Ready));
        world.pass(SECOND);
        assert_eq!(moves(&decisions), 0, "{decisions:?}");
    }
}

#[test]
fn a_member_without_etcd_that_withholds_its_readiness_is_left_all_the_same() {
    let mut world = World::healthy(2);
    let first = world.open();
    world.probed(first, Outcome::EtcdFailed);
    let mut decisions = Vec::new();
    for _ in 0..35 {
        world.pass(SECOND);
        decisions.extend(world.probed(first, Outcome::Withheld));
        decisions.extend(world.probed(1 - first, Outcome::Ready));
    }
    assert_eq!(world.state(first), (State::Unready, Reason::EtcdFailed));
    assert_eq!(moves(&decisions), 1, "{decisions:?}");
}

#[test]
fn a_member_whose_token_is_refused_for_good_is_not_stranded_for_ever() {
    let mut world = World::healthy(2);
    world.probed(0, Outcome::EtcdFailed);
    for _ in 0..400 {
        world.pass(SECOND);
        world.probed(0, Outcome::Withheld);
    }
    assert_eq!(world.state(0), (State::Up, Reason::Withheld));
}
