//! What must hold for the connections, in each state.

use super::{
    steps,
    world::{BATCHES, Run, Share, Who, World},
};

/// No two processes relay a batch. One that is stopped does not know that time has passed: it counts as soon as it would.
pub(crate) fn one_relays(world: &World) -> bool {
    (0..BATCHES).all(|batch| relaying(world, batch) <= 1)
}

/// Whose a batch is has its sockets, for as long as it lives.
pub(crate) fn nothing_is_lost(world: &World) -> bool {
    (0..BATCHES).all(|batch| {
        let owner = world.owners[batch];
        world.run(owner) == Run::Dead || world.has(owner, batch)
    })
}

/// Nothing happens any more without a fault.
pub(crate) fn is_quiet(world: &World) -> bool {
    steps::unforced(world).is_empty()
}

/// Once nothing happens any more, each batch is relayed by the one whose it is, unless that has died.
pub(crate) fn all_are_relayed_in_the_end(world: &World) -> bool {
    !is_quiet(world)
        || (0..BATCHES).all(|batch| {
            let owner = world.owners[batch];
            let is_dead = world.run(owner) == Run::Dead;
            let expected = usize::from(!is_dead);
            relaying(world, batch) == expected && world.relays(owner, batch) != is_dead
        })
}

/// A batch that one taker did not take has gone to the other.
pub(crate) fn is_given_to_another(world: &World) -> bool {
    world.giver.channels > 1 && world.served[1].iter().any(|served| *served)
}

/// The giver has died with a batch on its way, and the taker goes on with it.
pub(crate) fn is_inherited(world: &World) -> bool {
    let mut inherited = (0..BATCHES).filter(|batch| {
        let is_offered = world.giver.batches[*batch] == Share::Offered;
        is_offered && world.served.iter().any(|served| served[*batch])
    });
    world.run(Who::Giver) == Run::Dead && inherited.next().is_some()
}

fn relaying(world: &World, batch: usize) -> usize {
    World::processes().filter(|who| world.relays(*who, batch)).count()
}
