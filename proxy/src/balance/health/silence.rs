//! Whose fault a silence is: the path's, or this node's.
//!
//! If all paths fall silent in the same instant the fault is this node's, or on its way to all of them, and cutting
//! connections would turn a hiccup into a stampede. So a silence is a path's own only if another path was heard while this
//! one was overdue, and this one then left a probe unanswered that was sent after that: a path that is well when a common
//! silence ends answers it. Only the order of these events counts, so no jump of the clock passes for silence.

use tokio::time::Instant;

/// The silence of one path, from the first probe that is overdue to the next answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    witnessed: Option<Instant>,
    its_own: bool,
}

impl Silence {
    /// Another path was heard.
    pub(super) fn hear_another(&mut self, now: Instant) {
        self.witnessed.get_or_insert(now);
    }

    /// A probe that was sent at `asked` got no answer.
    pub(super) fn go_on(&mut self, asked: Instant) {
        self.its_own |= self.witnessed.is_some_and(|heard| asked > heard);
    }

    /// Whether it is the path's own.
    pub(super) fn is_its_own(self) -> bool {
        self.its_own
    }
}
