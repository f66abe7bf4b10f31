//! What happens in a run, drawn from its seed.

use std::time::Duration;

use crate::random::Random;

/// What makes the processes hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The newcomer starts, and takes over.
    Newcomer,
    /// The processes with these names get SIGTERM: the one that serves, or one that stands by and has connections.
    Terminate(&'static [&'static str]),
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
    /// The connections that clients keep.
    pub(crate) kept: Connections,
    /// Whether there is a newcomer, and how long before the trigger it starts.
    pub(crate) newcomer: Option<Duration>,
    /// What comes before the fault, so that its message is sent.
    pub(crate) before: Option<Fault>,
    /// The fault.
    pub(crate) fault: Fault,
}

/// The connections that clients keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    /// How many there are with each process that has some.
    pub(crate) count: u64,
    /// How often each client says something.
    pub(crate) pace: Duration,
    /// Whether another process has served before, which stands by and still has its connections.
    pub(crate) are_spread: bool,
}

/// A batch of connections.
pub(crate) const PAIRS: &str = "Pairs";

/// The `Taken` of a batch of connections.
pub(crate) const PAIRS_TAKEN: &str = "PairsTaken";

/// The `Abort` of a batch of connections.
pub(crate) const PAIRS_ABORT: &str = "PairsAbort";

/// What a process answers before it gets connections.
pub(crate) const STATUS: &str = "Status";

/// All that is sent while a proxy hands over; the others are of documents that change, of other pools and of people.
pub(crate) const MESSAGES: [&str; 17] = [
    "Hello",
    "Lend",
    "Snapshot",
    "Warm",
    "Ask",
    "Leaving",
    "Offer",
    "Ack",
    "Commit",
    "Taken",
    "Abort",
    "Assist",
    "Ping",
    "Pong",
    PAIRS,
    PAIRS_TAKEN,
    PAIRS_ABORT,
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
        let message = MESSAGES[next(17)];
        let is_of_pairs = matches!(message, PAIRS | PAIRS_TAKEN | PAIRS_ABORT);
        let harm = harm(next(3), is_of_pairs, &mut random);
        let side = [Side::Sender, Side::Receiver][next(2)];
        let trigger = trigger(message, &mut random);
        let is_with_newcomer = trigger == Trigger::Newcomer || random.once_in(2);
        // So that connections are given before it takes, while it does, and when it has taken.
        let latest = if is_of_pairs { 1200 } else { 400 };
        Self {
            trigger,
            kept: Connections {
                count: 4,
                pace: Duration::from_millis(8),
                are_spread: is_of_pairs,
            },
            newcomer: is_with_newcomer.then(|| milliseconds(&mut random, 0, latest)),
            before: late_taker(message, &mut random),
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

    /// The run of a seed in which many connections go from one process to the next, and the fault comes at any moment of it.
    pub(crate) fn within_pairs(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let harm = harm(usize::try_from(seed % 3).unwrap(), true, &mut random);
        let side = [Side::Sender, Side::Receiver][usize::try_from(seed / 3 % 2).unwrap()];
        Self {
            trigger: Trigger::Terminate(&["first"]),
            kept: Connections {
                count: 300,
                pace: Duration::from_millis(80),
                are_spread: false,
            },
            newcomer: random.once_in(3).then(|| milliseconds(&mut random, 0, 1200)),
            before: None,
            fault: Fault {
                at: Boundary { message: PAIRS, side },
                occurrence: random.between(1, 4),
                delay: random.time(Duration::ZERO, BATCH),
                harm,
            },
        }
    }
}

/// What a batch takes, from the message to the next one's.
const BATCH: Duration = Duration::from_millis(8);

fn harm(kind: usize, is_of_pairs: bool, random: &mut Random) -> Harm {
    match kind {
        0 => Harm::Kill,
        1 if is_of_pairs && random.once_in(6) => Harm::Stop(LONG_STOP),
        1 => Harm::Stop(stop(random)),
        _ => Harm::NoFiles(milliseconds(random, 200, 1000)),
    }
}

/// As long as a process that ends tries to give its connections.
const LONG_STOP: Duration = Duration::from_secs(10);

/// What makes a process send this message.
fn trigger(message: &str, random: &mut Random) -> Trigger {
    let any = match message {
        PAIRS | PAIRS_TAKEN | PAIRS_ABORT => {
            let those: [&[&str]; 3] = [&["first"], &["elder"], &["elder", "first"]];
            return Trigger::Terminate(those[usize::try_from(random.between(0, 3)).unwrap()]);
        }
        "Leaving" => 1,
        "Assist" => 3,
        "Ask" | "Offer" | "Ack" | "Commit" | "Taken" | "Abort" => random.between(0, 2),
        _ => random.between(0, 4),
    };
    match any {
        0 => Trigger::Newcomer,
        1 => Trigger::Terminate(&["first"]),
        2 => Trigger::Kill,
        _ => Trigger::Stop(milliseconds(random, 1300, 2200)),
    }
}

/// What makes a giver send `Abort`: the process that was offered the listeners, or that is about to get connections, answers
/// too late.
fn late_taker(message: &str, random: &mut Random) -> Option<Fault> {
    let (message, side) = match message {
        "Abort" => ("Offer", Side::Receiver),
        PAIRS_ABORT => (STATUS, Side::Sender),
        _ => return None,
    };
    Some(Fault {
        at: Boundary { message, side },
        occurrence: 1,
        delay: Duration::ZERO,
        harm: Harm::Stop(milliseconds(random, 1100, 1400)),
    })
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
