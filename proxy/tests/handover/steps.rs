//! What may happen next on the node.

use std::time::Duration;

use trivet_proxy::handover::machine::{ChannelId, Event, State, Timer};

use super::world::{Process, Run, World};

/// A timer that is not longer may elapse while others have something to read. A running process has read all before a longer one
/// elapses.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// A process reads a record or an end of file.
    Read(usize, ChannelId),
    /// A timer elapses.
    Elapse(usize, Timer),
    /// A connection of its own is answered.
    Prove(usize),
    /// It sees that nobody drains the accept queue.
    Stall(usize),
    /// It sees that the holder is alive.
    Turn(usize),
    /// It sees that its lock file is not at the path.
    NoticeLostLock(usize),
    /// It sees that the socket at the path is not its own.
    NoticeLostPath(usize),
    /// A stopped process goes on.
    Continue(usize),
    /// A fault.
    Fault(Fault),
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// SIGKILL.
    Crash(usize),
    /// SIGSTOP.
    Stop(usize),
    /// SIGTERM.
    Terminate(usize),
    /// `rm -rf` of the directory.
    LoseDirectory,
    /// A process finds a record that it cannot read.
    Break(usize, ChannelId),
    /// The rollout reaches the node.
    OpenGate,
}

/// All steps that are possible now.
pub(crate) fn possible(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    let busy: Vec<usize> = busy(world).collect();
    for (number, process) in world.living() {
        if process.run == Run::Stopped {
            steps.push(Step::Continue(number));
            continue;
        }
        let readable = world
            .channels
            .iter()
            .filter(|channel| channel.is_readable_by(number));
        steps.extend(readable.map(|channel| Step::Read(number, channel.id)));
        let others_are_busy = busy.iter().any(|other| *other != number);
        if process.run == Run::Awake && !others_are_busy {
            // `Taken` may come in the moment before the timer elapses.
            steps.extend(
                process
                    .timers
                    .contains_key(&Timer::Give)
                    .then_some(Step::Elapse(number, Timer::Give)),
            );
        }
        if !world.is_readable_by(number) {
            unprompted(world, number, process, !busy.is_empty(), &mut steps);
        }
    }
    faults(world, &mut steps);
    steps
}

/// The steps that are no faults.
pub(crate) fn unforced(world: &World) -> Vec<Step> {
    let mut steps = possible(world);
    steps.retain(|step| !matches!(step, Step::Fault(_)));
    steps
}

/// After how long it comes.
pub(crate) fn delay(world: &World, step: Step) -> Duration {
    match step {
        Step::Read(..) => Duration::ZERO,
        Step::Elapse(number, timer) => world.processes[number].as_ref().unwrap().timers[&timer],
        Step::Prove(_) => Duration::from_millis(500),
        Step::Stall(_) | Step::Turn(_) | Step::NoticeLostLock(_) | Step::NoticeLostPath(_) => {
            Duration::from_secs(1)
        }
        Step::Continue(_) => Duration::from_secs(20),
        Step::Fault(_) => Duration::MAX,
    }
}

/// What a process does that has read all it can.
fn unprompted(world: &World, number: usize, process: &Process, is_busy: bool, steps: &mut Vec<Step>) {
    let timers = process.timers.iter();
    let due = timers.filter(|(timer, after)| **after <= SHORT || (!is_busy && **timer != Timer::Give));
    steps.extend(due.map(|(&timer, _)| Step::Elapse(number, timer)));
    let proves = matches!(process.state(), State::Newcomer | State::Gated);
    if proves && process.has_socket && !process.is_proven {
        steps.push(Step::Prove(number));
    }
    if is_busy {
        return;
    }
    let mut acceptors = world
        .living()
        .filter(|(_, other)| other.accepts && other.run != Run::Stopped);
    if process.may_assist() && acceptors.next().is_none() {
        steps.push(Step::Stall(number));
    }
    if process.machine.is_assisting() && holder_runs(world, number) {
        steps.push(Step::Turn(number));
    }
    if process.lock.is_some_and(|file| file != world.lock_file) {
        steps.push(Step::NoticeLostLock(number));
    } else if process.lock.is_some() && world.path != Some(number) {
        steps.push(Step::NoticeLostPath(number));
    }
}

/// The processes to which something happens within milliseconds: they read, or find a holder or a lock when they seek.
fn busy(world: &World) -> impl Iterator<Item = usize> {
    let busy = world.living().filter(|(number, process)| {
        let seeks = process
            .timers
            .get(&Timer::Seek)
            .is_some_and(|after| *after <= SHORT);
        let finds = seeks && process.machine.is_seeking() && world.would_find(*number);
        process.run != Run::Stopped && (finds || world.is_readable_by(*number))
    });
    busy.map(|(number, _)| number)
}

fn holder_runs(world: &World, number: usize) -> bool {
    let process = world.processes[number].as_ref().unwrap();
    let id = process.machine.holder_channel();
    let mut channels = world.channels.iter().filter(|channel| Some(channel.id) == id);
    channels.any(|channel| {
        let holder = world.processes[channel.holder.process].as_ref();
        channel.holder.is_open && holder.is_some_and(|holder| holder.run != Run::Stopped)
    })
}

fn faults(world: &World, steps: &mut Vec<Step>) {
    let left = world.faults;
    for (number, process) in world.living() {
        if left.crashes > 0 {
            steps.push(Step::Fault(Fault::Crash(number)));
        }
        if left.stops > 0 && process.run != Run::Stopped {
            steps.push(Step::Fault(Fault::Stop(number)));
        }
        if left.terminations > 0 && process.run != Run::Stopped && !process.is_leaving() {
            steps.push(Step::Fault(Fault::Terminate(number)));
        }
        if left.broken_channels > 0 && process.run != Run::Stopped {
            let open = world.channels.iter().filter(|channel| channel.is_open_at(number));
            steps.extend(open.map(|channel| Step::Fault(Fault::Break(number, channel.id))));
        }
    }
    if left.openings > 0 {
        steps.push(Step::Fault(Fault::OpenGate));
    }
    if left.lost_directories > 0 && world.path.is_some() {
        steps.push(Step::Fault(Fault::LoseDirectory));
    }
}

/// The node after this step.
pub(crate) fn after(world: &World, step: Step) -> World {
    let mut world = world.clone();
    match step {
        Step::Read(number, id) => world.read(number, id),
        Step::Elapse(number, timer) => {
            world.process(number).timers.remove(&timer);
            world.tell(number, Event::Elapsed(timer));
        }
        Step::Prove(number) => {
            world.process(number).is_proven = true;
            world.tell(number, Event::Proven);
        }
        Step::Stall(number) => world.tell(number, Event::Stalled),
        Step::Turn(number) => world.tell(number, Event::Turning),
        Step::NoticeLostLock(number) => world.tell(number, Event::LockLost),
        Step::NoticeLostPath(number) => world.tell(number, Event::PathLost),
        Step::Continue(number) => {
            let is_behind = world.is_readable_by(number);
            let process = world.process(number);
            process.run = if is_behind { Run::CatchingUp } else { Run::Awake };
        }
        Step::Fault(fault) => befall(&mut world, fault),
    }
    world
}

fn befall(world: &mut World, fault: Fault) {
    match fault {
        Fault::Crash(number) => {
            world.faults.crashes -= 1;
            world.end(number);
        }
        Fault::Stop(number) => {
            world.faults.stops -= 1;
            world.process(number).run = Run::Stopped;
        }
        Fault::Terminate(number) => {
            world.faults.terminations -= 1;
            world.tell(number, Event::Terminated);
        }
        Fault::LoseDirectory => {
            world.faults.lost_directories -= 1;
            world.lock_file += 1;
            world.path = None;
        }
        Fault::OpenGate => {
            world.faults.openings -= 1;
            world.open_gate();
        }
        Fault::Break(number, id) => {
            world.faults.broken_channels -= 1;
            world.tell(number, Event::Broken(id));
        }
    }
}
