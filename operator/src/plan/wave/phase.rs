//! How far a rollout is, for those who tell people of it.

use super::record::Halt;

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The template in place is good, and it is the one that the spec asks for.
    #[default]
    Settled,
    /// Pods are replaced without waves: nobody served before, or the template is known to be good.
    Ungated,
    /// The new template waits for a Ready node with a running pod of it.
    Starts,
    /// One node has the new template, and waits for something.
    First {
        /// The node.
        node: String,
        /// What for.
        awaits: String,
    },
    /// The new template has soaked, and the other nodes get it.
    Rest {
        /// How many nodes have a ready proxy of it.
        done: usize,
        /// Those that have none yet and are waited for.
        awaited: Vec<String>,
        /// Those that cannot start one, and are not waited for.
        stuck: Vec<String>,
    },
    /// The owner has paused rollouts, and this template waits.
    Paused,
    /// The template has failed, and the last good one comes back.
    RollsBack(Halt),
    /// It has failed, and nothing more happens until the next edit.
    Halted {
        /// Why.
        halt: Halt,
        /// Whether the last good one is back. It is not where it cannot be read.
        is_rolled_back: bool,
    },
}

impl Phase {
    /// Whether the template in place is good, and is the one that the spec asks for.
    pub fn is_settled(&self) -> bool {
        *self == Self::Settled
    }

    /// The failed template, if the rollout stands because of one.
    pub fn halt(&self) -> Option<&Halt> {
        match self {
            Self::RollsBack(halt) | Self::Halted { halt, .. } => Some(halt),
            Self::Settled
            | Self::Ungated
            | Self::Starts
            | Self::First { .. }
            | Self::Rest { .. }
            | Self::Paused => None,
        }
    }
}
