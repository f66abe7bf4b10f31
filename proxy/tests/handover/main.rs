//! Explores the hand-over between the processes of a node: every order of messages, timers and faults within bounds, on the
//! machine that ships ([`trivet_proxy::handover::machine`]). Lock, socket path, channels and listeners are modelled.
//!
//! Time is left out but for this: a timer of more than [`steps::SHORT`] elapses once each process that runs has read all it
//! can. Explorations that would take minutes are ignored; `cargo test -p trivet-proxy --test handover -- --ignored
//! --nocapture` runs them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

mod pairs;
mod promises;
mod steps;
mod world;

use stateright::{Checker, Model, Property};
use tokio::time::Instant;
use trivet_proxy::handover::rank::{Class, Rank};

use self::{
    steps::Step,
    world::{Faults, World},
};

/// A node to explore.
struct Node {
    ranks: Vec<Rank>,
    is_gated: bool,
    faults: Faults,
}

impl Model for Node {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.ranks, self.is_gated, self.faults)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(steps::possible(world));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(steps::after(world, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one serves", |_, world| promises::one_serves(world)),
            Property::always("two accept at most", |_, world| {
                promises::two_accept_at_most(world)
            }),
            Property::always("all agree with the kernel", |_, world| {
                promises::all_agree_with_the_kernel(world)
            }),
            Property::always("the highest serves in the end", |_, world| {
                promises::the_highest_serves_in_the_end(world)
            }),
            Property::always("it comes to rest", |_, world| promises::it_comes_to_rest(world)),
            // Else the promise before it would be empty.
            Property::sometimes("nothing happens any more", |_, world| promises::is_quiet(world)),
        ]
    }
}

/// Explores all that may happen to three processes of these ranks.
fn explore(ranks: [(Class, u64); 3], faults: Faults) {
    explore_from(ranks, false, faults);
}

/// The same where the gate of the first process is closed or not.
fn explore_from(ranks: [(Class, u64); 3], is_gated: bool, faults: Faults) {
    let begun = Instant::now();
    let ranks = ranks.map(|(class, generation)| Rank {
        class,
        matches_document: true,
        generation,
    });
    let node = Node {
        ranks: ranks.to_vec(),
        is_gated,
        faults,
    };
    let checker = node.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, up to {} steps, {:?}: {faults:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    checker.assert_properties();
}

const NONE: Faults = Faults {
    crashes: 0,
    stops: 0,
    terminations: 0,
    lost_directories: 0,
    broken_channels: 0,
    openings: 0,
};

mod a_pod_and_two_standbys {
    use super::*;

    const RANKS: [(Class, u64); 3] = [(Class::DaemonSet, 1), (Class::Static, 0), (Class::Static, 0)];

    #[test]
    fn serve_whichever_two_die_and_whichever_is_stopped() {
        let faults = Faults {
            crashes: 2,
            stops: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_whichever_two_die_and_whichever_two_are_ended() {
        let faults = Faults {
            crashes: 2,
            terminations: 2,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_though_a_record_is_bad_while_one_is_stopped() {
        let faults = Faults {
            stops: 1,
            broken_channels: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_though_the_directory_is_lost_while_one_is_stopped_and_one_dies() {
        let faults = Faults {
            crashes: 1,
            stops: 1,
            lost_directories: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    #[ignore = "half a million states"]
    fn serve_though_one_dies_one_is_stopped_and_one_is_ended() {
        let faults = Faults {
            crashes: 1,
            stops: 1,
            terminations: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    #[ignore = "half a million states"]
    fn serve_though_the_directory_is_lost_and_a_record_is_bad_while_one_is_stopped() {
        let faults = Faults {
            stops: 1,
            lost_directories: 1,
            broken_channels: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }
}

mod two_pods_and_a_standby {
    use super::*;

    const RANKS: [(Class, u64); 3] = [(Class::DaemonSet, 2), (Class::DaemonSet, 1), (Class::Static, 0)];

    #[test]
    fn serve_whichever_two_die_and_whichever_is_stopped() {
        let faults = Faults {
            crashes: 2,
            stops: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_whichever_dies_and_whichever_two_are_ended() {
        let faults = Faults {
            crashes: 1,
            terminations: 2,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_though_a_record_is_bad_while_one_is_stopped() {
        let faults = Faults {
            stops: 1,
            broken_channels: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    fn serve_though_the_directory_is_lost_a_record_is_bad_and_one_dies() {
        let faults = Faults {
            crashes: 1,
            lost_directories: 1,
            broken_channels: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }

    #[test]
    #[ignore = "more than a million states"]
    fn serve_though_one_dies_one_is_stopped_and_one_is_ended() {
        let faults = Faults {
            crashes: 1,
            stops: 1,
            terminations: 1,
            ..NONE
        };
        explore(RANKS, faults);
    }
}

mod a_pod_behind_its_gate_a_pod_and_a_standby {
    use super::*;

    const RANKS: [(Class, u64); 3] = [(Class::DaemonSet, 2), (Class::DaemonSet, 1), (Class::Static, 0)];

    #[test]
    fn serve_whichever_two_die_and_whenever_the_gate_opens() {
        let faults = Faults {
            crashes: 2,
            openings: 1,
            ..NONE
        };
        explore_from(RANKS, true, faults);
    }

    #[test]
    fn serve_whichever_is_ended_and_whichever_is_stopped() {
        let faults = Faults {
            stops: 1,
            terminations: 1,
            ..NONE
        };
        explore_from(RANKS, true, faults);
    }
}
