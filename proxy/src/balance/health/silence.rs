//! Whose fault a silence is: the upstream's, or ours.
//!
//! If everybody falls silent in the same instant it is this node, or its way to all of them, and cutting connections
//! would turn a hiccup into a stampede. So a silence is an upstream's own only if another upstream was heard while this
//! one let us wait, and this one then left a question unanswered that was put to it after that: whoever is well when a
//! common silence ends answers it. Only the order of these things counts, so no jump of the clock passes for silence.

use tokio::time::Instant;

/// The silence of one upstream, from the first question that waits too long to the next word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    witnessed: Option<Instant>,
    its_own: bool,
}

impl Silence {
    /// Another upstream was heard.
    pub(super) fn hear_another(&mut self, now: Instant) {
        self.witnessed.get_or_insert(now);
    }

    /// A question that was put at `asked` found no answer.
    pub(super) fn go_on(&mut self, asked: Instant) {
        self.its_own |= self.witnessed.is_some_and(|heard| asked > heard);
    }

    /// Whether it is the upstream's own.
    pub(super) fn is_its_own(self) -> bool {
        self.its_own
    }
}
