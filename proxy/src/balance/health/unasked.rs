//! A path that cannot be asked: its probes fail for a fault of this node, which says nothing about the path.

use std::time::Duration;

use tokio::time::Instant;

use super::{Health, Reason, State};

/// For how long a path without any outcome gives hope while its probes cannot be sent. A burst that exhausts files or
/// connection tracking passes sooner; past it the fault may last for ever, as with a local rule that forbids the address.
/// It leaves the last resort most of the 30 s after which client-go gives up a dial.
const HOPE: Duration = Duration::from_secs(10);

/// Failures in a row to send a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unasked {
    since: Instant,
    last: Instant,
}

impl Health {
    /// Takes in that a probe could not be sent. After a while a path that is only remembered is so no longer. One that
    /// answered this process keeps its health: what fails is this node.
    pub fn stay_unasked(&mut self, now: Instant) {
        let since = self.unasked.map_or(now, |unasked| unasked.since);
        self.unasked = Some(Unasked { since, last: now });
        if self.reason == Reason::Remembered && self.is_unasked_for_long() {
            self.become_state(State::Unready, Reason::NotProbed, now);
        }
    }

    /// Whether it is expected to answer a new connection, or has not told yet and may.
    pub fn may_answer(&self) -> bool {
        let is_unknown = (self.state, self.reason) == (State::Unready, Reason::NotProbed);
        self.answers() || is_unknown && !self.is_unasked_for_long()
    }

    /// Whether its first outcome is still to come.
    pub fn is_awaited(&self) -> bool {
        !self.judged && !self.is_unasked_for_long()
    }

    fn is_unasked_for_long(&self) -> bool {
        self.unasked
            .is_some_and(|unasked| unasked.last.saturating_duration_since(unasked.since) >= HOPE)
    }
}
