//! What happens in a run, drawn from its seed.

use std::time::Duration;

use crate::random::Random;

/// What makes the processes hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The newcomer starts, and takes over.
    Newcomer,
    /// The process that serves gets SIGTERM.
    Terminate,
    /// The process that serves is killed.
    Kill,
    /// The process that serves is stopped for this long.
    Stop(Duration),
}

impl Trigger {
    /// Whether it is one of the faults itself.
    pub(crate) fn is_harm(self) -> bool {
        matches!(self, Self::Kill | Self::Stop(_))
    }
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this long.
    Stop(Duration),
    /// It can open no more files for this long.
    NoFiles(Duration),
}

/// Which side of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that sends it.
    Sender,
    /// The process that receives it.
    Receiver,
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The message.
    pub(crate) message: &'static str,
    /// Whose line.
    pub(crate) side: Side,
}

/// A fault at a boundary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Where.
    pub(crate) at: Boundary,
    /// The first, the second or the third such line.
    pub(crate) occurrence: u64,
    /// How long after the line.
    pub(crate) delay: Duration,
    /// What is done.
    pub(crate) harm: Harm,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What makes the processes hand over.
    pub(crate) trigger: Trigger,
    /// Whether there is a newcomer, and how long before the trigger it starts.
    pub(crate) newcomer: Option<Duration>,
    /// What comes before the fault, so that its message is sent.
    pub(crate) before: Option<Fault>,
    /// The fault.
    pub(crate) fault: Fault,
}

/// All that is sent while a proxy hands over; the others are of documents that change, of other pools and of people.
pub(crate) const MESSAGES: [&str; 14] = [
    "Hello", "Lend", "Snapshot", "Warm", "Ask", "Leaving", "Offer", "Ack", "Commit", "Taken", "Abort",
    "Assist", "Ping", "Pong",
];

impl Plan {
    /// The run of a seed. Seeds that follow each other go through all messages, sides and faults.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let mut rest = seed;
        let mut next = |count: u64| {
            let index = rest % count;
            rest /= count;
            usize::try_from(index).unwrap()
        };
        let message = MESSAGES[next(14)];
        let harm = match next(3) {
            0 => Harm::Kill,
            1 => Harm::Stop(stop(&mut random)),
            _ => Harm::NoFiles(milliseconds(&mut random, 200, 1000)),
        };
        let side = [Side::Sender, Side::Receiver][next(2)];
        let trigger = trigger(message, &mut random);
        let is_with_newcomer = trigger == Trigger::Newcomer || random.once_in(2);
        Self {
            trigger,
            newcomer: is_with_newcomer.then(|| milliseconds(&mut random, 0, 400)),
            before: (message == "Abort").then(|| late_taker(&mut random)),
            fault: Fault {
                at: Boundary { message, side },
                occurrence: if random.once_in(4) {
                    random.between(2, 4)
                } else {
                    1
                },
                delay: random.time(Duration::ZERO, Duration::from_millis(2)),
                harm,
            },
        }
    }
}

/// What makes a process send this message.
fn trigger(message: &str, random: &mut Random) -> Trigger {
    let any = match message {
        "Leaving" => 1,
        "Assist" => 3,
        "Ask" | "Offer" | "Ack" | "Commit" | "Taken" | "Abort" => random.between(0, 2),
        _ => random.between(0, 4),
    };
    match any {
        0 => Trigger::Newcomer,
        1 => Trigger::Terminate,
        2 => Trigger::Kill,
        _ => Trigger::Stop(milliseconds(random, 1300, 2200)),
    }
}

/// A process that is offered the listeners, and answers too late.
fn late_taker(random: &mut Random) -> Fault {
    Fault {
        at: Boundary {
            message: "Offer",
            side: Side::Receiver,
        },
        occurrence: 1,
        delay: Duration::ZERO,
        harm: Harm::Stop(milliseconds(random, 1100, 1400)),
    }
}

/// Most are short, because the runs are many.
fn stop(random: &mut Random) -> Duration {
    if random.once_in(3) {
        milliseconds(random, 1000, 3000)
    } else {
        milliseconds(random, 500, 1000)
    }
}

fn milliseconds(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.between(low, high))
}
