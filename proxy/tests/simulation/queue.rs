//! What is yet to happen, in the order of its time.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::schedule::Time;

/// Something that happens on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The prober of this upstream takes its next step, unless it was woken since.
    Probe { member: usize, turn: u32 },
    /// Connections to this upstream may have waited too long.
    Look { member: usize },
    /// The connections to this upstream are cut.
    Cut { member: usize },
    /// The next connection to this upstream is closed, unless that was called off.
    Move { member: usize, turn: u32 },
    /// A client connects.
    Open { client: usize, serial: u32 },
    /// A client's connection that is being opened has waited enough for what it waits for.
    Wait { client: usize, serial: u32 },
    /// The kernel gives up on a client's connection, if its upstream is still gone.
    GiveUp { client: usize, serial: u32 },
    /// A client closes its connection and opens another.
    Renew { client: usize, serial: u32 },
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// On a node, in this life of its proxy.
    Node { node: usize, life: u32, what: What },
    /// This fault of this member begins.
    Fault { member: usize, index: usize },
    /// It is time to see what this fault has left.
    Aftermath { member: usize, index: usize },
    /// All proxies restart.
    Restart,
    /// The connections of each member are counted.
    Census,
}

/// The queue. What happens at the same time happens in the order in which it was put here.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Time, u64, Event)>>,
    put: u64,
}

impl Queue {
    pub(crate) fn put(&mut self, at: Time, event: Event) {
        self.put += 1;
        self.heap.push(Reverse((at, self.put, event)));
    }

    pub(crate) fn next(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
