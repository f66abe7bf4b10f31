//! Who is near is preferred, among those that are equally well and as far as the pool's owner cares.

use super::*;

use Distance::{Elsewhere, Local, SameZone};

impl World {
    /// The members of the document, at these distances, all proven and Up.
    fn spread(distances: &[Distance]) -> Self {
        let mut world = Self::healthy(distances.len());
        world.move_to(distances);
        world
    }

    /// A later document in which they are at other distances.
    fn move_to(&mut self, distances: &[Distance]) -> Vec<Decision> {
        let members = distances.iter().enumerate();
        let targets = members.map(|(index, distance)| Target {
            distance: *distance,
            ..target(index)
        });
        self.configure(targets.collect())
    }

    /// Who gets the next connections, by the number of them.
    fn serves(&mut self, connections: usize) -> Vec<usize> {
        let mut counts = vec![0; self.ids.len()];
        for _ in 0..connections {
            counts[self.open()] += 1;
        }
        counts
    }
}

#[test]
fn the_nearest_gets_every_connection_and_its_equals_share_them() {
    let mut world = World::spread(&[Elsewhere, SameZone, Local]);
    assert_eq!(world.serves(30), [0, 0, 30]);
    let mut world = World::spread(&[Elsewhere, SameZone, SameZone]);
    assert_eq!(world.serves(30), [0, 15, 15]);
}

#[test]
fn a_near_member_that_is_not_well_is_left_for_the_next_nearest() {
    let mut world = World::spread(&[Elsewhere, SameZone, Local]);
    world.tell(Event::Refused, 2);
    assert_eq!(world.order(), [1, 0, 2]);
    world.tell(Event::Refused, 1);
    assert_eq!(world.order()[0], 0);
}

#[test]
fn a_near_member_that_left_a_client_waiting_comes_after_the_others_until_it_answers() {
    let mut world = World::spread(&[Elsewhere, Elsewhere, Local]);
    world.tell(Event::OpenOverdue, 2);
    assert_eq!(world.order()[2], 2);
    world.probed(2, Outcome::Ready);
    assert_eq!(world.order()[0], 2);
}

#[test]
fn where_nobody_is_up_the_nearest_of_the_least_sick_is_tried_first() {
    let mut world = World::spread(&[Elsewhere, Local, SameZone]);
    for index in 0..3 {
        world.probed(index, Outcome::NotReady);
    }
    assert_eq!(world.order(), [1, 2, 0]);
}

#[test]
fn a_new_distance_moves_new_connections_only() {
    let mut world = World::spread(&[Local, Elsewhere]);
    assert_eq!(world.serves(5), [5, 0]);
    assert_eq!(
        world.move_to(&[Elsewhere, Local]),
        [],
        "nothing is closed or probed anew"
    );
    assert_eq!(world.state(0), (State::Up, Reason::Answering));
    assert_eq!(world.serves(5), [0, 5]);
}

fn distance() -> impl Strategy<Value = Distance> {
    prop_oneof![Just(Local), Just(SameZone), Just(Elsewhere)]
}

proptest! {
    #[test]
    fn distance_loses_no_pick_and_never_beats_health(
        distances in prop::collection::vec(distance(), 4),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::with(4);
        for happening in &happenings {
            world.happens(happening);
            world.move_to(&distances);
            let views = world.balance.view();
            let of = |index: usize| views.iter().find(|view| view.id == world.ids[index]).unwrap();
            let order = world.order();
            prop_assert_eq!(order.len(), 4);
            let wellness: Vec<_> = order.iter().map(|index| (!of(*index).proven, of(*index).state)).collect();
            prop_assert!(wellness.is_sorted(), "{wellness:?}");
        }
    }
}
