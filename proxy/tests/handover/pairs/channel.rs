//! A channel between the giver and a taker as the kernel has it (`SOCK_SEQPACKET`), and how far the taker is on it.

use std::collections::VecDeque;

use trivet_proxy::handover::pairs::taking::Taking;

/// What the giver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// A batch, with duplicates of its sockets.
    Pairs(Offer),
    /// The giver goes on with the batch of this number.
    Abort(u64),
}

/// A batch under its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Offer {
    /// The number, another for each attempt.
    pub(crate) number: u64,
    /// Which batch it is.
    pub(crate) batch: usize,
}

/// What the taker does on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// It waits for the next record.
    Reads,
    /// It has read a batch and is about to send `Taken`.
    Holds(Offer),
    /// `Taken` could not be sent: it waits for what the giver has said.
    Waits(Taking, Offer),
}

/// What a read brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Read<T> {
    /// The next record.
    Record(T),
    /// All was read, and the other end is closed.
    End,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Channel {
    /// The giver has made so many channels before it.
    pub(crate) id: u8,
    /// Who listened.
    pub(crate) taker: usize,
    /// How far the taker is.
    pub(crate) task: Task,
    to_taker: VecDeque<Said>,
    /// The numbers of `Taken`.
    to_giver: VecDeque<u64>,
    giver_is_open: bool,
    giver_reads: bool,
    taker_is_open: bool,
    /// The last number for which `Abort` was sent.
    aborted: u64,
}

impl Channel {
    /// A channel that has just been made.
    pub(crate) fn new(id: u8, taker: usize) -> Self {
        Self {
            id,
            taker,
            task: Task::Reads,
            to_taker: VecDeque::new(),
            to_giver: VecDeque::new(),
            giver_is_open: true,
            giver_reads: true,
            taker_is_open: true,
            aborted: 0,
        }
    }

    /// Whether either end is open.
    pub(crate) fn is_open(&self) -> bool {
        self.giver_is_open || self.taker_is_open
    }

    /// Whether the taker has its end.
    pub(crate) fn is_open_at_taker(&self) -> bool {
        self.taker_is_open
    }

    /// Whether the giver may go on with the batch of this number.
    pub(crate) fn lets_giver_go_on(&self, number: u64) -> bool {
        self.aborted == number || !self.taker_is_open
    }

    /// The giver sends a record. It fails once the taker's end is closed.
    pub(crate) fn send_to_taker(&mut self, said: Said) -> bool {
        if self.taker_is_open {
            self.to_taker.push_back(said);
            if let Said::Abort(number) = said {
                self.aborted = number;
            }
        }
        self.taker_is_open
    }

    /// The taker sends `Taken`. It fails once the giver's end is closed, or shut down for reading.
    pub(crate) fn send_to_giver(&mut self, number: u64) -> bool {
        let is_sent = self.giver_is_open && self.giver_reads;
        if is_sent {
            self.to_giver.push_back(number);
        }
        is_sent
    }

    /// What the taker can read now, which stays.
    pub(crate) fn next_for_taker(&self) -> Option<Read<Said>> {
        next(&self.to_taker, self.giver_is_open)
    }

    /// The same for the giver. One that has shut the channel down finds its end once it is empty.
    pub(crate) fn next_for_giver(&self) -> Option<Read<u64>> {
        next(&self.to_giver, self.taker_is_open && self.giver_reads)
    }

    /// The taker reads.
    pub(crate) fn read_by_taker(&mut self) -> Option<Read<Said>> {
        let read = self.next_for_taker();
        self.to_taker.pop_front();
        read
    }

    /// The giver reads.
    pub(crate) fn read_by_giver(&mut self) -> Option<Read<u64>> {
        let read = self.next_for_giver();
        self.to_giver.pop_front();
        read
    }

    /// The giver shuts the channel down for reading. What came before stays.
    pub(crate) fn shut_by_giver(&mut self) {
        self.giver_reads = false;
    }

    /// The giver closes its end, or dies: what it has not read is lost.
    pub(crate) fn close_by_giver(&mut self) {
        self.giver_is_open = false;
        self.to_giver.clear();
    }

    /// The taker closes its end, or dies: what it has not read is lost, and so are its duplicates that it does not serve.
    pub(crate) fn close_by_taker(&mut self) {
        self.taker_is_open = false;
        self.task = Task::Reads;
        self.to_taker.clear();
    }

    /// Whether a duplicate of the batch is on its way here, or with the taker, who has not decided.
    pub(crate) fn carries(&self, batch: usize) -> bool {
        let is_unread = self
            .to_taker
            .iter()
            .any(|said| matches!(said, Said::Pairs(offer) if offer.batch == batch));
        let is_held = match self.task {
            Task::Reads => false,
            Task::Holds(offer) | Task::Waits(_, offer) => offer.batch == batch,
        };
        is_unread || is_held
    }
}

fn next<T: Copy>(unread: &VecDeque<T>, may_grow: bool) -> Option<Read<T>> {
    match unread.front() {
        Some(record) => Some(Read::Record(*record)),
        None if may_grow => None,
        None => Some(Read::End),
    }
}
