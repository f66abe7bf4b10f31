//! What must hold in each state of the node.

use std::hash::{DefaultHasher, Hash, Hasher};

use trivet_proxy::handover::record::Message;

use super::{
    steps,
    world::{Process, Run, World},
};

/// How many states there are to one from which a walk is made.
const SAMPLE: u64 = 200;

/// Far more steps than a walk takes.
const WALK: usize = 500;

/// One process serves. While it gives, the one that takes does so too: until the giver has read that, which it does before
/// anything else when it was stopped.
pub(crate) fn one_serves(world: &World) -> bool {
    let serving: Vec<usize> = world
        .living()
        .filter(|(number, process)| {
            let knows_not = is_told_of_take(world, *number) && !is_awake(process);
            process.serves() && process.lock == Some(world.lock_file) && !knows_not
        })
        .map(|(number, _)| number)
        .collect();
    match serving[..] {
        [] | [_] => true,
        [first, second] => took_from(world, first, second) || took_from(world, second, first),
        _ => false,
    }
}

fn is_awake(process: &Process) -> bool {
    process.run == Run::Awake
}

fn is_told_of_take(world: &World, giver: usize) -> bool {
    (0..world.processes.len()).any(|taker| took_from(world, taker, giver))
}

fn took_from(world: &World, taker: usize, giver: usize) -> bool {
    let mut between = world
        .channels
        .iter()
        .filter(|channel| channel.peer.process == taker && channel.holder.process == giver);
    between.any(|channel| {
        let mut unread = channel.holder.unread.iter();
        unread.any(|(message, _)| matches!(message, Message::Taken { .. }))
    })
}

/// At most two accept: the holder and one that takes from it or accepts beside it. One whose lock file is gone comes on top
/// until it notices.
pub(crate) fn two_accept_at_most(world: &World) -> bool {
    let acceptors = world.living().filter(|(_, process)| {
        let is_cut_off = process.lock.is_some_and(|file| file != world.lock_file);
        process.accepts && is_awake(process) && !is_cut_off
    });
    acceptors.count() <= 2
}

/// A process accepts exactly if its machine says so, and only with the socket.
pub(crate) fn all_agree_with_the_kernel(world: &World) -> bool {
    world.living().all(|(_, process)| {
        process.accepts == process.machine.accepts()
            && process.has_socket != process.machine.listeners().is_empty()
            && (!process.serves() || process.lock.is_some())
    })
}

/// Nothing happens any more without a fault.
pub(crate) fn is_quiet(world: &World) -> bool {
    if world
        .living()
        .any(|(number, process)| process.run == Run::Stopped || world.is_readable_by(number))
    {
        return false;
    }
    let steps = steps::unforced(world);
    steps.into_iter().all(|step| steps::after(world, step) == *world)
}

/// Without another fault things come to rest: no two processes pass something back and forth for ever. It is looked at from
/// one state in [`SAMPLE`], because it is a walk of its own: of all that changes anything, what comes soonest happens.
pub(crate) fn it_comes_to_rest(world: &World) -> bool {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    if !hasher.finish().is_multiple_of(SAMPLE) {
        return true;
    }
    let mut world = world.clone();
    for _ in 0..WALK {
        let mut possible = steps::unforced(&world);
        possible.sort_by_key(|step| steps::delay(&world, *step));
        let mut worlds = possible.into_iter().map(|step| steps::after(&world, step));
        let Some(next) = worlds.find(|next| *next != world) else {
            return true;
        };
        world = next;
    }
    false
}

/// Once nothing happens any more, one from which no other would take by its rank serves alone, and it has the lock alone.
pub(crate) fn the_highest_serves_in_the_end(world: &World) -> bool {
    let staying: Vec<usize> = world
        .living()
        .filter(|(_, process)| !process.is_leaving())
        .map(|(number, _)| number)
        .collect();
    if staying.is_empty() || !is_quiet(world) {
        return true;
    }
    let with_lock: Vec<(usize, &Process)> = world
        .living()
        .filter(|(_, process)| process.lock.is_some())
        .collect();
    let acceptors = world.living().filter(|(_, process)| process.accepts).count();
    match with_lock[..] {
        [(number, holder)] => {
            holder.serves()
                && !holder.is_leaving()
                && !staying.iter().any(|other| world.may_take(*other, number))
                && acceptors == 1
        }
        _ => false,
    }
}
