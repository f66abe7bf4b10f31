//! One edit, and what must become of it.

use std::net::IpAddr;

use serde_json::Value;

/// A master of the cluster that is edited.
#[derive(Debug, Clone)]
pub(super) struct Master {
    /// Its name, which its node and its discovered member have too.
    pub(super) name: String,
    /// Its addresses: IPv4, then IPv6.
    pub(super) addresses: [IpAddr; 2],
}

/// One edit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edit {
    /// What it does, for people.
    pub(super) what: String,
    /// The change itself.
    pub(super) change: Change,
    /// What must become of it.
    pub(super) fate: Fate,
}

/// What an edit changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// The pool, by a JSON merge patch.
    Pool(Value),
    /// Whether a node has the label by which discovery finds masters.
    Label {
        /// The node.
        node: String,
        /// Whether it has the label afterwards.
        present: bool,
    },
    /// Another pool with a listener on this port, which must not get it; none takes it away.
    Rival(Option<u16>),
}

/// What must become of an edit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// The API server refuses it.
    Invalid,
    /// The operator refuses it, for one of these reasons: a spec with two mistakes is refused for either.
    Refused(Vec<&'static str>),
    /// The operator obeys it, or refuses it because of who answers at the moment: both are right.
    Judged,
    /// It is no edit of the pool.
    Elsewhere,
}
