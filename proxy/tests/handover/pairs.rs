//! Explores the hand-over of connections: one process that gives two batches, two that take, in every order of records,
//! timers and faults within bounds, on the machines that ship ([`trivet_proxy::handover::pairs`]). The channels are modelled.

mod channel;
mod giver;
mod promises;
mod steps;
mod taker;
mod world;

use stateright::{Checker, Model, Property};
use tokio::time::Instant;

use self::{
    steps::Step,
    world::{Faults, World},
};

/// A giver and its takers.
struct Pairs {
    faults: Faults,
}

impl Model for Pairs {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.faults)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(steps::possible(world));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(steps::after(world, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one relays", |_, world| promises::one_relays(world)),
            Property::always("nothing is lost", |_, world| promises::nothing_is_lost(world)),
            Property::always("the giver goes on only after it said so", |_, world: &World| {
                !world.went_on_unsaid
            }),
            Property::always("all are relayed in the end", |_, world| {
                promises::all_are_relayed_in_the_end(world)
            }),
            // Else the promises before them would be empty.
            Property::sometimes("nothing happens any more", |_, world| promises::is_quiet(world)),
            Property::sometimes("another takes", |_, world| promises::is_given_to_another(world)),
            Property::sometimes("a taker goes on for a dead giver", |_, world| {
                promises::is_inherited(world)
            }),
        ]
    }
}

#[test]
fn each_connection_is_relayed_by_one_process_whichever_two_die_and_whichever_are_stopped() {
    let begun = Instant::now();
    let faults = Faults {
        crashes: 2,
        stops: 2,
        refusals: 1,
    };
    let checker = Pairs { faults }.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, up to {} steps, {:?}: {faults:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    checker.assert_properties();
}
