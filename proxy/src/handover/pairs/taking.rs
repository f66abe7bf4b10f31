//! What the taker of a batch does, as a state machine without I/O.

/// A batch that has come, and with which this process could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taking {
    number: u64,
}

/// What the taker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `Taken` was sent.
    Confirmed,
    /// `Taken` could not be sent, because the giver has shut the channel down or is dead.
    Unconfirmed,
    /// `Abort` with this number has come.
    Aborted(u64),
    /// The end of file: all that the giver sent was told before.
    Closed,
}

/// What the taker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It reads on.
    Wait,
    /// It goes on with the connections.
    Serve,
    /// It closes its duplicates: the giver goes on.
    Drop,
}

impl Taking {
    /// The batch with this number.
    pub fn new(number: u64) -> Self {
        Self { number }
    }

    /// Takes in what happened and says what to do.
    pub fn observe(self, event: Event) -> Step {
        match event {
            // A giver that is alive would have said that it goes on.
            Event::Confirmed | Event::Closed => Step::Serve,
            Event::Aborted(number) if number == self.number => Step::Drop,
            // An abort of an earlier batch says nothing of this one.
            Event::Unconfirmed | Event::Aborted(_) => Step::Wait,
        }
    }
}
