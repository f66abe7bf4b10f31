//! The promises of the balancer, on its own clock.

mod cross_checks;
mod disabled;
mod further;
mod invariants;
mod moves;
mod paths;
mod places;
mod resorts;
mod traffic;

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use trivet_crds::wire::DisabledMember;

use super::{health::Reason, place::Distance, *};

const SECOND: Duration = Duration::from_secs(1);

/// A balancer over members `0`, `1`, … with a clock that only the test moves.
struct World {
    balance: Balance,
    start: Instant,
    now: Instant,
    ids: Vec<PathId>,
}

fn policy() -> Policy {
    Policy {
        failure_threshold: 2,
        success_threshold: 2,
        probe_interval: SECOND,
    }
}

fn target(index: usize) -> Target {
    at(index, &format!("10.0.0.{index}:6443"))
}

/// A path to the member of this number.
fn at(index: usize, address: &str) -> Target {
    Target {
        key: PathKey {
            member: format!("cp{index}"),
            address: address.parse().unwrap(),
        },
        preference: 0,
        draining: false,
        proven: false,
        distance: Distance::default(),
    }
}

impl World {
    fn with(members: usize) -> Self {
        Self::of((0..members).map(target).collect())
    }

    fn of(paths: Vec<Target>) -> Self {
        let now = Instant::now();
        let mut world = Self {
            balance: Balance::new("w1"),
            start: now,
            now,
            ids: Vec::new(),
        };
        let decisions = world.configure(paths);
        world.ids = decisions
            .into_iter()
            .map(|decision| match decision {
                Decision::Watch(id, _) => id,
                other => panic!("{other:?}"),
            })
            .collect();
        world
    }

    /// The same, with every member proven and Up.
    fn healthy(members: usize) -> Self {
        let mut world = Self::with(members);
        for index in 0..members {
            world.probed(index, Outcome::Ready);
        }
        world
    }

    fn configure(&mut self, targets: Vec<Target>) -> Vec<Decision> {
        self.configure_and_disable(targets, Disabled::default())
    }

    fn configure_and_disable(&mut self, targets: Vec<Target>, disabled: Disabled) -> Vec<Decision> {
        let event = Event::Configured {
            targets,
            disabled,
            policy: policy(),
        };
        self.balance.observe(event, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn probed(&mut self, index: usize, outcome: Outcome) -> Vec<Decision> {
        let verified = matches!(
            outcome,
            Outcome::Ready | Outcome::Withheld | Outcome::NotReady | Outcome::Late
        );
        let event = Event::Probed {
            id: self.ids[index],
            asked: self.now,
            verified,
            outcome,
        };
        self.pass(Duration::from_millis(1));
        self.balance.observe(event, self.now)
    }

    fn tell(&mut self, event: fn(PathId) -> Event, index: usize) -> Vec<Decision> {
        self.balance.observe(event(self.ids[index]), self.now)
    }

    fn open(&mut self) -> usize {
        let first = self.order()[0];
        self.tell(Event::Opened, first);
        first
    }

    /// The members in the order in which they would be dialled.
    fn order(&self) -> Vec<usize> {
        let index = |candidate: Candidate| self.ids.iter().position(|id| *id == candidate.id).unwrap();
        self.balance.candidates().into_iter().map(index).collect()
    }

    fn state(&self, index: usize) -> (State, Reason) {
        let view = self
            .balance
            .view()
            .into_iter()
            .find(|view| view.id == self.ids[index])
            .unwrap();
        (view.state, view.reason)
    }
}

fn cuts(decisions: &[Decision], id: PathId) -> bool {
    decisions.contains(&Decision::Cut(id))
}

#[test]
fn connections_spread_evenly() {
    let mut world = World::healthy(3);
    let mut counts = [0; 3];
    for _ in 0..30 {
        counts[world.open()] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn connections_that_come_one_after_another_spread_too() {
    let mut world = World::healthy(3);
    let mut counts = [0; 3];
    for _ in 0..30 {
        let chosen = world.open();
        world.tell(Event::Closed, chosen);
        counts[chosen] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn a_member_that_stops_answering_is_down_and_cut_once_another_answers() {
    let mut world = World::healthy(3);
    world.tell(Event::Opened, 0);
    let others = [Decision::Probe(world.ids[1]), Decision::Probe(world.ids[2])];
    assert_eq!(
        world.tell(Event::ProbeOverdue, 0),
        others,
        "they are asked whether it is us"
    );
    world.probed(1, Outcome::Ready);
    world.probed(0, Outcome::Silent);
    assert_eq!(world.state(0).0, State::Up);
    world.pass(SECOND);
    let down = world.probed(0, Outcome::Silent);
    assert_eq!(world.state(0), (State::Down, Reason::Silent));
    assert!(!cuts(&down, world.ids[0]), "nobody was heard since");
    assert!(others.iter().all(|ask| down.contains(ask)));
    let witness = world.probed(1, Outcome::Ready);
    assert!(cuts(&witness, world.ids[0]));
    assert_eq!(*world.order().last().unwrap(), 0);
}

#[test]
fn a_client_that_another_answers_is_a_witness_too() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    let answered = |id| Event::Answered(id, Duration::from_millis(5));
    world.tell(Event::ProbeOverdue, 0);
    world.tell(answered, 1);
    world.pass(SECOND);
    world.probed(0, Outcome::Silent);
    world.probed(0, Outcome::Silent);
    world.pass(SECOND);
    assert!(cuts(&world.tell(answered, 1), world.ids[0]));
}

#[test]
fn whoever_was_heard_before_a_common_silence_is_no_witness_in_it() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    world.pass(SECOND);
    world.probed(1, Outcome::Ready);
    for _ in 0..2 {
        world.tell(Event::ProbeOverdue, 0);
        world.tell(Event::ProbeOverdue, 1);
        world.pass(SECOND);
        for index in 0..2 {
            assert!(!cuts(&world.probed(index, Outcome::Silent), world.ids[0]));
        }
    }
    let back = world.probed(1, Outcome::Ready);
    assert!(!cuts(&back, world.ids[0]), "it was not asked since");
    world.probed(0, Outcome::Ready);
    world.pass(SECOND);
    assert!(!cuts(&world.probed(1, Outcome::Ready), world.ids[0]));
}

#[test]
fn others_are_asked_once_an_interval_about_a_member_that_is_often_late() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    let asked = (0..50).map(|_| {
        world.pass(SECOND / 10);
        let asked = world.tell(Event::ProbeOverdue, 0).len();
        world.probed(0, Outcome::Late);
        asked
    });
    assert!(asked.sum::<usize>() <= 6);
}

#[test]
fn a_hedge_is_free_where_the_asked_are_silent_and_another_is_heard() {
    let mut world = World::healthy(3);
    world.pass(SECOND);
    let asked = world.now;
    (0..10).for_each(|_| assert!(world.balance.spend_hedge(&[world.ids[0]], asked)));
    assert!(
        !world.balance.spend_hedge(&[world.ids[0]], asked),
        "nobody was heard"
    );
    world.tell(|id| Event::Answered(id, SECOND / 100), 1);
    for _ in 0..100 {
        assert!(world.balance.spend_hedge(&[world.ids[0]], asked));
    }
    world.tell(|id| Event::Answered(id, SECOND), 0);
    assert!(
        !world.balance.spend_hedge(&[world.ids[0]], asked),
        "it is only slow"
    );
}

#[test]
fn the_answer_of_an_unproven_member_makes_no_hedge_free() {
    let mut world = World::with(2);
    world.probed(0, Outcome::Ready);
    world.pass(SECOND);
    let asked = world.now;
    (0..10).for_each(|_| assert!(world.balance.spend_hedge(&[world.ids[0]], asked)));
    world.tell(|id| Event::Answered(id, SECOND / 100), 1);
    assert!(!world.balance.spend_hedge(&[world.ids[0]], asked));
}

#[test]
fn a_hedge_away_from_members_that_are_down_is_free() {
    let mut world = World::healthy(3);
    world.pass(SECOND);
    (0..10).for_each(|_| assert!(world.balance.spend_hedge(&[world.ids[0]], world.now)));
    assert!(!world.balance.spend_hedge(&[world.ids[0]], world.now));
    for _ in 0..2 {
        world.probed(0, Outcome::Silent);
    }
    assert!(world.balance.spend_hedge(&[world.ids[0]], world.now));
    assert!(world.balance.are_silent(&[world.ids[0]]));
    assert!(!world.balance.are_silent(&[world.ids[0], world.ids[1]]));
}

#[test]
fn nothing_is_cut_while_all_are_silent() {
    let mut world = World::healthy(3);
    for index in 0..3 {
        world.tell(Event::Opened, index);
    }
    for _ in 0..5 {
        world.pass(SECOND);
        for index in 0..3 {
            let decisions = world.probed(index, Outcome::Silent);
            assert!(world.ids.iter().all(|id| !cuts(&decisions, *id)));
        }
    }
    assert_eq!(world.order().len(), 3, "all are still a last resort");
}

#[test]
fn who_is_still_silent_when_another_comes_back_is_cut() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    for _ in 0..2 {
        world.pass(SECOND);
        world.probed(0, Outcome::Silent);
        world.probed(1, Outcome::Silent);
    }
    world.pass(SECOND);
    let back = world.probed(1, Outcome::Ready);
    assert!(
        !cuts(&back, world.ids[0]),
        "it may be back too: it was not asked since"
    );
    world.pass(SECOND);
    assert!(cuts(&world.probed(0, Outcome::Silent), world.ids[0]));
}

#[test]
fn nothing_is_cut_when_all_come_back_one_after_another() {
    let mut world = World::healthy(3);
    for index in 0..3 {
        world.tell(Event::Opened, index);
    }
    for _ in 0..2 {
        world.pass(SECOND);
        for index in 0..3 {
            world.probed(index, Outcome::Silent);
        }
    }
    world.pass(SECOND);
    for index in 0..3 {
        let decisions = world.probed(index, Outcome::Ready);
        assert!(world.ids.iter().all(|id| !cuts(&decisions, *id)));
    }
}

#[test]
fn a_refusal_moves_new_connections_at_once_and_cuts_nothing() {
    let mut world = World::healthy(2);
    let first = world.open();
    let decisions = world.tell(Event::Refused, first);
    assert_eq!(world.state(first), (State::Unready, Reason::Refused));
    assert!(decisions.contains(&Decision::Probe(world.ids[first])));
    assert!(!cuts(&decisions, world.ids[first]));
    assert_eq!(world.order(), [1 - first, first]);
}

#[test]
fn an_answer_that_is_late_or_not_ready_never_makes_a_member_down() {
    for outcome in [Outcome::Late, Outcome::NotReady, Outcome::Untrusted] {
        let mut world = World::healthy(2);
        for _ in 0..20 {
            world.probed(0, Outcome::Silent);
            world.probed(0, outcome);
            assert_ne!(world.state(0).0, State::Down, "{outcome:?}");
        }
        assert_eq!(world.order(), [1, 0], "{outcome:?}");
    }
}

#[test]
fn an_apiserver_that_starts_and_refuses_everybody_is_not_taken_for_one_that_hides_its_readiness() {
    let restarted = || {
        let mut world = World::healthy(2);
        world.probed(0, Outcome::NotReady);
        world.tell(Event::Refused, 0);
        world
    };
    let mut starts = restarted();
    for _ in 0..4 {
        starts.probed(0, Outcome::Withheld);
        assert_eq!(starts.state(0), (State::Unready, Reason::Recovering));
    }
    starts.probed(0, Outcome::Ready);
    assert_eq!(starts.state(0).0, State::Up);
    let mut hides = restarted();
    for _ in 0..5 {
        hides.probed(0, Outcome::Withheld);
    }
    assert_eq!(hides.state(0).0, State::Up);
    hides.probed(0, Outcome::Withheld);
    assert_eq!(hides.state(0).0, State::Up);
}

#[test]
fn a_member_that_withholds_its_readiness_comes_after_those_that_tell() {
    let mut world = World::healthy(3);
    world.probed(0, Outcome::Withheld);
    assert_eq!(world.state(0), (State::Up, Reason::Withheld));
    for _ in 0..6 {
        assert_ne!(world.open(), 0);
    }
    for index in [1, 2] {
        world.probed(index, Outcome::NotReady);
    }
    assert_eq!(world.order()[0], 0);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0), (State::Up, Reason::Answering));
}

#[test]
fn where_all_members_withhold_their_readiness_they_share_the_load() {
    let mut world = World::healthy(3);
    (0..3).for_each(|index| drop(world.probed(index, Outcome::Withheld)));
    let mut counts = [0; 3];
    for _ in 0..30 {
        counts[world.open()] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn a_member_comes_back_after_two_good_answers_and_its_hold_down() {
    let mut world = World::healthy(2);
    world.tell(Event::Refused, 0);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0), (State::Unready, Reason::Recovering));
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0), (State::Unready, Reason::HeldDown));
    world.pass(hold_down::SHORTEST);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0), (State::Up, Reason::Answering));
}

#[test]
fn a_member_that_was_only_not_ready_is_not_held_down() {
    let mut world = World::healthy(2);
    world.probed(0, Outcome::NotReady);
    world.probed(0, Outcome::Ready);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0).0, State::Up);
}

#[test]
fn a_flapping_member_is_up_ever_more_rarely() {
    let mut world = World::healthy(2);
    let mut falls = 0;
    // Two seconds up, three seconds refusing, for ten minutes.
    for tick in 0..600 {
        world.pass(SECOND);
        let before = world.state(0).0;
        world.probed(
            0,
            if tick % 5 < 2 {
                Outcome::Ready
            } else {
                Outcome::Refused
            },
        );
        falls += u32::from(before == State::Up && world.state(0).0 != State::Up);
    }
    assert!(falls <= 9, "{falls} falls in ten minutes");
}

#[test]
fn one_slow_answer_moves_new_connections_but_not_when_all_are_slow() {
    let mut world = World::healthy(3);
    let first = world.order()[0];
    world.tell(Event::OpenOverdue, first);
    assert_eq!(*world.order().last().unwrap(), first);
    for index in 0..3 {
        world.tell(Event::OpenOverdue, index);
    }
    assert_eq!(
        world.order()[0],
        first,
        "soft evidence against all is evidence against none"
    );
    world.probed(first, Outcome::Ready);
    assert_eq!(world.order()[0], first);
}

#[test]
fn suspicion_asks_for_one_extra_probe_in_ten_seconds() {
    let mut world = World::healthy(3);
    let mut extra = 0;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        extra += world.tell(Event::OpenOverdue, 0).len() + world.tell(Event::ReplyOverdue, 0).len();
    }
    assert_eq!(extra, 1);
}

#[test]
fn a_draining_member_is_a_last_resort_and_may_be_restored() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    let draining = vec![
        Target {
            draining: true,
            ..target(0)
        },
        target(1),
    ];
    assert_eq!(world.configure(draining), [Decision::Drain(world.ids[0])]);
    assert_eq!(world.order(), [1, 0]);
    assert_eq!(
        world.configure(vec![target(0), target(1)]),
        [Decision::Restore(world.ids[0])]
    );
    assert_eq!(world.state(0).0, State::Up, "its health was kept");
    assert_eq!(world.order().len(), 2);
}

#[test]
fn a_removed_member_is_forgotten_with_its_last_connection() {
    let mut world = World::healthy(2);
    world.tell(Event::Opened, 0);
    assert_eq!(world.configure(vec![target(1)]), [Decision::Drain(world.ids[0])]);
    assert_eq!(world.order(), [1, 0]);
    let over = world.tell(Event::Closed, 0);
    assert_eq!(over, [Decision::Forget(world.ids[0], target(0).key)]);
}

#[test]
fn a_member_that_comes_back_gets_no_connection_before_its_first_answer() {
    let mut world = World::healthy(2);
    world.configure(vec![target(1)]);
    let remembered = Target {
        proven: true,
        ..target(0)
    };
    let decisions = world.configure(vec![remembered.clone(), target(1)]);
    let [Decision::Watch(id, _)] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    world.ids[0] = *id;
    assert_eq!(world.state(0), (State::Unready, Reason::NotProbed));
    assert_eq!(world.order(), [1, 0]);
    world.probed(0, Outcome::Ready);
    assert_eq!(world.state(0), (State::Up, Reason::Answering));

    // Where nothing is known to be well, as at the start, what the node remembers is all there is.
    let mut world = World::healthy(2);
    world.probed(1, Outcome::NotReady);
    world.configure(vec![target(1)]);
    let decisions = world.configure(vec![remembered, target(1)]);
    let [Decision::Watch(id, _)] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    world.ids[0] = *id;
    assert_eq!(world.state(0), (State::Up, Reason::Remembered));
}

#[test]
fn a_member_that_moved_must_prove_itself() {
    let mut world = World::healthy(1);
    let decisions = world.configure(vec![at(0, "10.0.0.7:6443")]);
    assert!(matches!(
        decisions.as_slice(),
        [Decision::Drain(_), Decision::Forget(..), Decision::Watch(..)]
    ));
    assert!(!world.balance.view()[0].proven);
}

/// Anything that can happen to a balancer of four members.
#[derive(Clone, Debug)]
enum Happening {
    Probed(usize, Outcome),
    Late(usize),
    Unsent(usize),
    Refused(usize),
    Unanswered(usize),
    Opened(usize),
    Closed(usize),
    Draining(usize),
    Waited(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(Outcome::ALL.to_vec())
}

fn happening() -> impl Strategy<Value = Happening> {
    let member = 0..4_usize;
    prop_oneof![
        6 => (member.clone(), outcome()).prop_map(|(index, outcome)| Happening::Probed(index, outcome)),
        2 => member.clone().prop_map(Happening::Late),
        1 => member.clone().prop_map(Happening::Unsent),
        1 => member.clone().prop_map(Happening::Refused),
        1 => member.clone().prop_map(Happening::Unanswered),
        2 => member.clone().prop_map(Happening::Opened),
        2 => member.clone().prop_map(Happening::Closed),
        1 => member.prop_map(Happening::Draining),
        2 => (0..20_000_u64).prop_map(Happening::Waited),
    ]
}

impl World {
    /// No two happen in the same instant.
    fn happens(&mut self, happening: &Happening) -> Vec<Decision> {
        self.pass(Duration::from_millis(1));
        match happening {
            Happening::Probed(index, outcome) => self.probed(*index, *outcome),
            Happening::Late(index) => self.tell(Event::ProbeOverdue, *index),
            Happening::Unsent(index) => self.tell(Event::ProbeUnsent, *index),
            Happening::Refused(index) => self.tell(Event::Refused, *index),
            Happening::Unanswered(index) => self.tell(Event::OpenOverdue, *index),
            Happening::Opened(index) => self.tell(Event::Opened, *index),
            Happening::Closed(index) => self.tell(Event::Closed, *index),
            Happening::Draining(index) => {
                let draining = |member| Target {
                    draining: member == *index,
                    ..target(member)
                };
                self.configure((0..4).map(draining).collect())
            }
            Happening::Waited(milliseconds) => {
                self.pass(Duration::from_millis(*milliseconds));
                Vec::new()
            }
        }
    }
}

proptest! {
    #[test]
    fn a_pick_exists_whatever_happens(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::with(4);
        for happening in &happenings {
            world.happens(happening);
            let active = world.balance.view().iter().filter(|view| view.standing == Standing::Active).count();
            prop_assert!(world.order().len() >= active);
        }
    }

    #[test]
    fn only_silence_ever_cuts(happenings in prop::collection::vec(happening(), 0..120)) {
        let mut world = World::with(4);
        // Silent questions in a row, as the test counts them.
        let mut silent = [0_u32; 4];
        for happening in &happenings {
            let decisions = world.happens(happening);
            match happening {
                Happening::Probed(index, Outcome::Silent) => silent[*index] += 1,
                Happening::Probed(index, _) | Happening::Refused(index) => silent[*index] = 0,
                _ => {}
            }
            for (id, silent) in world.ids.iter().zip(silent) {
                let silent_enough = silent >= policy().failure_threshold;
                prop_assert!(silent_enough || !cuts(&decisions, *id), "{happening:?}");
            }
        }
    }

    #[test]
    fn nobody_is_cut_unless_another_has_answered(happenings in prop::collection::vec(happening(), 0..120)) {
        let mut world = World::with(4);
        for happening in &happenings {
            let decisions = world.happens(happening);
            for index in 0..4 {
                let others = (0..4).filter(|other| *other != index);
                let answering = others.filter(|other| world.state(*other).0 != State::Down).count();
                prop_assert!(answering > 0 || !cuts(&decisions, world.ids[index]));
            }
        }
    }

    #[test]
    fn an_unproven_member_is_never_picked_while_a_proven_one_is_left(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::with(4);
        for happening in &happenings {
            world.happens(happening);
            let views = world.balance.view();
            let proven = |candidate: &Candidate| views.iter().any(|view| view.id == candidate.id && view.proven);
            let order: Vec<bool> = world.balance.candidates().iter().map(proven).collect();
            prop_assert!(order.is_sorted_by(|earlier, later| earlier >= later), "{order:?}");
        }
    }

    #[test]
    fn a_member_that_is_not_up_is_never_picked_before_a_proven_one_that_is(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::with(4);
        for happening in &happenings {
            world.happens(happening);
            let views = world.balance.view();
            let up = |view: &&View| view.proven && view.state == State::Up && view.standing == Standing::Active;
            let any_up = views.iter().filter(up).count() > 0;
            let first = world.balance.candidates().first().map(|candidate| candidate.id);
            let first_is_up = views.iter().filter(up).any(|view| Some(view.id) == first);
            prop_assert!(!any_up || first_is_up);
        }
    }

    #[test]
    fn counts_never_go_below_nothing(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::with(4);
        for happening in &happenings {
            world.happens(happening);
        }
        prop_assert!(world.balance.view().iter().all(|view| view.connections <= happenings.len()));
    }

    #[test]
    fn a_shifted_clock_changes_no_decision(
        happenings in prop::collection::vec(happening(), 0..60),
        shift in 0..1_000_000_u64,
    ) {
        let (mut here, mut there) = (World::with(4), World::with(4));
        there.now = here.start + Duration::from_secs(shift);
        there.start = there.now;
        for happening in &happenings {
            prop_assert_eq!(here.happens(happening), there.happens(happening));
        }
    }
}

#[test]
fn a_common_silence_leaves_no_suspicion_behind() {
    let mut world = World::healthy(3);
    world.tell(Event::OpenOverdue, 0);
    for _ in 0..2 {
        for index in 0..3 {
            world.probed(index, Outcome::Silent);
        }
    }
    for index in 0..3 {
        for _ in 0..2 {
            world.probed(index, Outcome::Ready);
        }
    }
    assert_eq!(world.state(0), (State::Unready, Reason::HeldDown));
    let mut counts = [0; 3];
    for _ in 0..30 {
        let chosen = world.open();
        world.tell(Event::Closed, chosen);
        counts[chosen] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}
