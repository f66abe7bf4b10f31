//! How far an upstream is from its next change of state, for people who ask.

use tokio::time::Instant;

use super::Health;

/// What its health has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In its state since then.
    pub since: Instant,
    /// Good answers in a row.
    pub passes: u32,
    /// Questions in a row that stayed without an answer.
    pub silent: u32,
    /// Good answers do not bring it back before then, if it fell.
    pub held_until: Option<Instant>,
}

impl Health {
    /// How far it is from its next change of state.
    pub fn progress(&self) -> Progress {
        Progress {
            since: self.since,
            passes: self.passes,
            silent: self.silent,
            held_until: self.hold.until(),
        }
    }
}
