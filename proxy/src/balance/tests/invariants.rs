//! What holds of every balancer, whatever happens to it and whenever.

use std::collections::BTreeSet;

use super::*;

/// Who is Down after a happening, and whose connections it cuts.
type Harm = (BTreeSet<usize>, BTreeSet<usize>);

impl World {
    fn down(&self) -> BTreeSet<usize> {
        (0..self.ids.len())
            .filter(|index| self.state(*index).0 == State::Down)
            .collect()
    }

    fn cut_by(&self, decisions: &[Decision]) -> BTreeSet<usize> {
        (0..self.ids.len())
            .filter(|index| cuts(decisions, self.ids[*index]))
            .collect()
    }

    /// Opens this many connections that stay, and counts who got them.
    fn opened(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.ids.len()];
        for _ in 0..count {
            counts[self.open()] += 1;
        }
        counts
    }

    /// Probes once a second, well, until the member is Up again, and says how long that took.
    fn comes_back(&mut self, index: usize) -> Duration {
        let fell = self.now;
        while self.state(index).0 != State::Up {
            self.pass(SECOND);
            self.probed(index, Outcome::Ready);
        }
        self.now - fell
    }
}

/// What the same happenings do to who is Down and who is cut, when the clock jumps before one of them.
fn harm(happenings: &[Happening], jump_before: usize, jump: Duration) -> Vec<Harm> {
    let mut world = World::healthy(4);
    let steps = happenings.iter().enumerate().map(|(step, happening)| {
        if step == jump_before {
            world.pass(jump);
        }
        let decisions = world.happens(happening);
        (world.down(), world.cut_by(&decisions))
    });
    steps.collect()
}

proptest! {
    #[test]
    fn soft_evidence_never_moves_new_connections_off_more_than_half(
        members in 1..10_usize,
        suspects in prop::collection::vec(0..9_usize, 0..20),
    ) {
        let mut world = World::healthy(members);
        for suspect in suspects {
            world.tell(Event::OpenOverdue, suspect % members);
        }
        let counts = world.opened(10 * members);
        let starved = counts.iter().filter(|count| **count == 0).count();
        prop_assert!(2 * starved <= members, "{counts:?}");
    }

    #[test]
    fn soft_evidence_alone_changes_no_state_and_cuts_nothing(
        happenings in prop::collection::vec((0..4_usize, 0..3_usize, 0..20_000_u64), 0..60),
    ) {
        let mut world = World::healthy(4);
        for (index, kind, milliseconds) in happenings {
            world.tell(Event::Opened, index);
            world.pass(Duration::from_millis(milliseconds));
            let decisions = world.tell([Event::OpenOverdue, Event::ReplyOverdue, Event::Opened][kind], index);
            prop_assert!(decisions.iter().all(|decision| *decision == Decision::Probe(world.ids[index])));
            prop_assert_eq!(world.state(index), (State::Up, Reason::Answering));
        }
    }

    #[test]
    fn each_flap_is_held_down_twice_as_long_up_to_the_cap(
        silent: bool,
        seconds_up in prop::collection::vec(1..280_u64, 1..9),
    ) {
        let mut world = World::healthy(2);
        let mut expected = hold_down::SHORTEST;
        for up in seconds_up {
            world.pass(Duration::from_secs(up));
            for _ in 0..policy().failure_threshold {
                world.probed(0, if silent { Outcome::Silent } else { Outcome::Refused });
            }
            let held = world.comes_back(0);
            let late = Duration::from_millis(1100);
            prop_assert!((expected..expected + late).contains(&(held + Duration::from_millis(100))), "{held:?}");
            expected = (expected * 2).min(hold_down::LONGEST);
        }
    }

    #[test]
    fn a_jump_of_the_clock_neither_fells_nor_cuts_anybody(
        happenings in prop::collection::vec(happening(), 1..100),
        before in any::<prop::sample::Index>(),
        // Up to three months: a node that slept.
        jump in 0..8_000_000_u64,
    ) {
        let before = before.index(happenings.len());
        let awake = harm(&happenings, before, Duration::ZERO);
        prop_assert_eq!(awake, harm(&happenings, before, Duration::from_secs(jump)));
    }

    #[test]
    fn a_clock_that_stands_still_fells_the_same_and_cuts_nobody_else(
        happenings in prop::collection::vec(happening(), 0..100),
    ) {
        let (mut moving, mut still) = (World::healthy(4), World::healthy(4));
        for happening in &happenings {
            let cut = moving.happens(happening);
            let frozen = still.now;
            let cut_still = still.happens(happening);
            still.now = frozen;
            prop_assert_eq!(moving.down(), still.down());
            prop_assert!(still.cut_by(&cut_still).is_subset(&moving.cut_by(&cut)));
        }
    }

    #[test]
    fn a_node_that_slept_keeps_all_its_connections(
        order in Just(vec![0_usize, 1, 2]).prop_shuffle(),
        missed in prop::collection::vec(0..2_u8, 3),
        hours in 0..1000_u32,
    ) {
        let mut world = World::healthy(3);
        world.opened(9);
        world.pass(hours * 3600 * SECOND);
        for index in order {
            // A question that was under way as the node fell asleep finds no answer.
            for _ in 0..missed[index] {
                let decisions = world.probed(index, Outcome::Silent);
                prop_assert!(world.cut_by(&decisions).is_empty());
                prop_assert!(world.down().is_empty());
            }
            let decisions = world.probed(index, Outcome::Ready);
            prop_assert!(world.cut_by(&decisions).is_empty());
        }
        prop_assert!(world.down().is_empty());
    }
}
