//! One edit, and its expected fate.

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
    /// Its expected fate.
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
    /// Another pool whose listener has this port, and which must not get it. None deletes that pool.
    Rival(Option<u16>),
}

/// The expected fate of an edit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// The API server refuses it.
    Invalid,
    /// The operator rejects it for one of these reasons. If a spec has two mistakes, either may be the reason.
    Refused(Vec<&'static str>),
    /// The operator obeys or rejects it, depending on which members answer at that moment.
    Judged,
    /// It is no edit of the pool.
    Elsewhere,
}
