//! What may happen next.

use super::{
    channel::Task,
    world::{Part, Run, TAKERS, Who, World},
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The giver finds a taker.
    Connect(usize),
    /// The giver sends the next batch, or ends its channel.
    Offer,
    /// The giver reads `Taken`, or the end.
    ReadTaken,
    /// The giver's timer elapses.
    Overdue,
    /// The giver sends `Abort`.
    Abort,
    /// A taker reads a record of a channel, or the end.
    Read(u8),
    /// A taker sends `Taken`.
    Confirm(u8),
    /// A stopped process goes on.
    Continue(Who),
    /// A fault.
    Fault(Fault),
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// SIGKILL.
    Crash(Who),
    /// SIGSTOP.
    Stop(Who),
    /// A taker does not want the batch that it has read, or ends while it waits for a giver that is stopped.
    Refuse(u8),
}

/// All steps that are possible now.
pub(crate) fn possible(world: &World) -> Vec<Step> {
    let mut steps = unforced(world);
    let left = world.faults;
    for who in World::processes() {
        let run = world.run(who);
        if left.crashes > 0 && run != Run::Dead {
            steps.push(Step::Fault(Fault::Crash(who)));
        }
        if left.stops > 0 && run == Run::Awake {
            steps.push(Step::Fault(Fault::Stop(who)));
        }
    }
    if left.refusals > 0 {
        let held = steps.iter().filter_map(|step| match step {
            Step::Confirm(id) => Some(Step::Fault(Fault::Refuse(*id))),
            _ => None,
        });
        steps.extend(held.collect::<Vec<_>>());
        let undecided = world.channels.iter().filter(|channel| {
            let waits = matches!(channel.task, Task::Waits(..)) && channel.next_for_taker().is_none();
            waits && world.run(Who::Taker(channel.taker)) == Run::Awake
        });
        steps.extend(undecided.map(|channel| Step::Fault(Fault::Refuse(channel.id))));
    }
    steps
}

/// The steps that are no faults.
pub(crate) fn unforced(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    if world.run(Who::Giver) == Run::Awake {
        of_giver(world, &mut steps);
    }
    for channel in &world.channels {
        if world.run(Who::Taker(channel.taker)) != Run::Awake || !channel.is_open_at_taker() {
            continue;
        }
        match channel.task {
            Task::Holds(_) => steps.push(Step::Confirm(channel.id)),
            Task::Reads | Task::Waits(..) if channel.next_for_taker().is_some() => {
                steps.push(Step::Read(channel.id));
            }
            Task::Reads | Task::Waits(..) => {}
        }
    }
    let stopped = World::processes().filter(|who| world.run(*who) == Run::Stopped);
    steps.extend(stopped.map(Step::Continue));
    steps
}

fn of_giver(world: &World, steps: &mut Vec<Step>) {
    if world.may_connect() {
        // The takers are alike: the first one that is found is the first.
        let known = if world.giver.channels == 0 { 1 } else { TAKERS };
        let awake = (0..known).filter(|taker| world.run(Who::Taker(*taker)) == Run::Awake);
        steps.extend(awake.map(Step::Connect));
    }
    let Some(channel) = world.givers_channel() else {
        return;
    };
    let can_read = channel.next_for_giver().is_some();
    match world.giver.part {
        Part::Idle => steps.push(Step::Offer),
        Part::Waits(..) => {
            // `Taken` may come in the moment before the timer elapses.
            steps.push(Step::Overdue);
            steps.extend(can_read.then_some(Step::ReadTaken));
        }
        Part::Empties(..) => steps.push(Step::ReadTaken),
        Part::Aborts(_) => steps.push(Step::Abort),
    }
}

/// The node after this step.
pub(crate) fn after(world: &World, step: Step) -> World {
    let mut world = world.clone();
    match step {
        Step::Connect(taker) => world.connect(taker),
        Step::Offer => world.offer(),
        Step::ReadTaken => world.read_by_giver(),
        Step::Overdue => world.overdue(),
        Step::Abort => world.abort(),
        Step::Read(id) => world.read_by_taker(id),
        Step::Confirm(id) => world.confirm(id),
        Step::Continue(who) => world.set_run(who, Run::Awake),
        Step::Fault(fault) => befall(&mut world, fault),
    }
    world
}

fn befall(world: &mut World, fault: Fault) {
    match fault {
        Fault::Crash(who) => {
            world.faults.crashes -= 1;
            world.crash(who);
        }
        Fault::Stop(who) => {
            world.faults.stops -= 1;
            world.set_run(who, Run::Stopped);
        }
        Fault::Refuse(id) => {
            world.faults.refusals -= 1;
            world.refuse(id);
        }
    }
}
