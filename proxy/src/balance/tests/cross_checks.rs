//! Who is well is asked on behalf of those that are late, but not the oftener the more of them there are.

use std::collections::BTreeMap;

use super::*;

/// Who was asked when, because another left a question waiting.
type Calls = BTreeMap<usize, Vec<Instant>>;

impl World {
    /// All proven, Up and with a connection each.
    fn occupied(members: usize) -> Self {
        let mut world = Self::healthy(members);
        for index in 0..members {
            world.tell(Event::Opened, index);
        }
        world
    }

    fn called_by(&self, subject: usize, decisions: &[Decision], calls: &mut Calls) {
        for (index, id) in self.ids.iter().enumerate().filter(|(index, _)| *index != subject) {
            if decisions.contains(&Decision::Probe(*id)) {
                calls.entry(index).or_default().push(self.now);
            }
        }
    }

    /// A member is late, and then its question finds this end.
    fn late_then(&mut self, index: usize, outcome: Outcome, calls: &mut Calls) -> Vec<Decision> {
        let late = self.tell(Event::ProbeOverdue, index);
        self.called_by(index, &late, calls);
        let decisions = self.probed(index, outcome);
        self.called_by(index, &decisions, calls);
        decisions
    }

    /// A member falls silent: whether this other one is asked when it is late and when it falls, so that it is cut.
    fn falls_with_witness(&mut self, index: usize, witness: usize) -> bool {
        let asked = Decision::Probe(self.ids[witness]);
        let late = self.tell(Event::ProbeOverdue, index).contains(&asked);
        self.probed(witness, Outcome::Ready);
        self.probed(index, Outcome::Silent);
        let down = self.probed(index, Outcome::Silent).contains(&asked);
        late && down && cuts(&self.probed(witness, Outcome::Ready), self.ids[index])
    }
}

/// How often one may be asked on behalf of others: twice for each of three at once, and once for each further interval.
fn allowed(time: Duration) -> usize {
    let intervals = time.as_nanos() / policy().probe_interval.as_nanos();
    6 + usize::try_from(intervals).unwrap()
}

#[test]
fn members_that_flap_together_do_not_add_up_on_one_that_is_well() {
    let mut world = World::occupied(9);
    let (start, mut calls) = (world.now, Calls::new());
    for _ in 0..20 {
        for index in 1..9 {
            world.late_then(index, Outcome::Silent, &mut calls);
            world.late_then(index, Outcome::Silent, &mut calls);
            world.probed(index, Outcome::Ready);
        }
        world.pass(SECOND);
    }
    let (called, allowed) = (calls[&0].len(), allowed(world.now - start));
    assert!(called <= allowed, "{called} of {allowed}");
}

#[test]
fn a_slow_cluster_is_asked_twice_as_often_at_most() {
    let mut world = World::occupied(9);
    let (start, mut calls) = (world.now, Calls::new());
    for _ in 0..100 {
        for index in 0..9 {
            world.late_then(index, Outcome::Ready, &mut calls);
        }
        world.pass(SECOND);
    }
    let allowed = allowed(world.now - start);
    assert!(calls.values().all(|calls| calls.len() <= allowed), "{calls:?}");
}

#[test]
fn those_that_are_late_again_and_again_leave_enough_for_one_that_falls() {
    let mut world = World::occupied(5);
    for _ in 0..20 {
        world.pass(SECOND);
        for index in 1..4 {
            world.late_then(index, Outcome::Ready, &mut Calls::new());
        }
    }
    assert!(
        world
            .tell(Event::ProbeOverdue, 0)
            .contains(&Decision::Probe(world.ids[4]))
    );
    world.probed(4, Outcome::Ready);
    world.probed(0, Outcome::Silent);
    let down = world.probed(0, Outcome::Silent);
    assert!(down.contains(&Decision::Probe(world.ids[4])));
    assert!(cuts(&world.probed(4, Outcome::Ready), world.ids[0]));
}

#[test]
fn when_one_has_fallen_two_that_are_up_and_were_heard_last_are_asked() {
    let mut world = World::occupied(5);
    world.probed(0, Outcome::Silent);
    for index in [4, 3, 2] {
        world.probed(index, Outcome::Ready);
    }
    world.probed(1, Outcome::Late);
    let mut calls = Calls::new();
    let down = world.probed(0, Outcome::Silent);
    world.called_by(0, &down, &mut calls);
    assert_eq!(world.state(0).0, State::Down);
    assert!(calls.keys().eq(&[2, 3]), "{calls:?}");
}

#[test]
fn three_that_fall_together_are_cut_without_delay() {
    let mut world = World::occupied(4);
    for index in 0..3 {
        assert!(world.falls_with_witness(index, 3), "{index}");
    }
}

#[test]
fn nobody_is_asked_about_a_member_without_connections() {
    let mut world = World::healthy(3);
    let mut calls = Calls::new();
    for _ in 0..2 {
        world.late_then(0, Outcome::Silent, &mut calls);
    }
    assert_eq!(world.state(0).0, State::Down);
    assert!(calls.is_empty(), "{calls:?}");
}

proptest! {
    #[test]
    fn however_many_are_late_each_answers_for_them_once_an_interval_in_the_long_run(
        steps in prop::collection::vec((0..4_usize, 0..3_usize, 0..400_u64), 0..300),
    ) {
        let mut world = World::occupied(4);
        let mut calls = Calls::new();
        for (index, kind, milliseconds) in steps {
            world.pass(Duration::from_millis(milliseconds));
            world.late_then(index, [Outcome::Ready, Outcome::Late, Outcome::Silent][kind], &mut calls);
        }
        for calls in calls.values() {
            for (last, until) in calls.iter().enumerate() {
                for (first, from) in calls.iter().enumerate().take(last) {
                    prop_assert!(last - first < allowed(*until - *from), "{calls:?}");
                }
            }
        }
    }
}
