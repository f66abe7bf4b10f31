//! What the giver of a batch does, as a state machine without I/O.

/// A batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Giving {
    number: u64,
    /// Whether the channel was shut down for reading.
    is_shut: bool,
}

/// What the giver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `Taken` with this number has come.
    Taken(u64),
    /// The taker has closed the channel, or is dead. All that it sent was told before.
    Closed,
    /// The answer is overdue.
    Overdue,
    /// The channel was shut down for reading, and all that was left on it was told.
    Emptied,
}

/// What the giver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It waits.
    Wait,
    /// It shuts the channel down for reading, reads what is left, and says when that is empty.
    Empty,
    /// The taker has the batch: it closes its sockets.
    Given,
    /// The same, and the channel ends: there the next batch would seem to be refused, while its taker waits for `Abort`.
    GivenLast,
    /// It sends `Abort`, and goes on with the batch once that is sent. The channel ends.
    Abort,
    /// It goes on with the batch. The channel has ended.
    Keep,
}

impl Giving {
    /// The batch with this number was sent.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            is_shut: false,
        }
    }

    /// Takes in what happened and says what to do.
    pub fn observe(&mut self, event: Event) -> Step {
        match event {
            Event::Taken(number) if number == self.number && self.is_shut => Step::GivenLast,
            Event::Taken(number) if number == self.number => Step::Given,
            // Of an earlier batch.
            Event::Taken(_) => Step::Wait,
            Event::Closed => Step::Keep,
            Event::Overdue => {
                self.is_shut = true;
                Step::Empty
            }
            Event::Emptied => Step::Abort,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_is_given_on_a_channel_that_was_shut_down_before_taken_was_read() {
        let mut giving = Giving::new(2);
        assert_eq!(giving.observe(Event::Overdue), Step::Empty);
        assert_eq!(giving.observe(Event::Taken(1)), Step::Wait);
        assert_eq!(giving.observe(Event::Taken(2)), Step::GivenLast);
        assert_eq!(Giving::new(2).observe(Event::Taken(2)), Step::Given);
    }
}
