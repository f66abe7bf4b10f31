//! The current content of the edited pool, as far as the next edit depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

/// The pool as its author left it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The entries of `spec.members` by name.
    pub(super) members: BTreeMap<String, Value>,
    /// The masters' nodes without the label by which they are discovered.
    pub(super) unlabelled: BTreeSet<String>,
    /// Whether there is another pool that wants this pool's port.
    pub(super) has_rival: bool,
    /// The mistakes that the author has made and not corrected yet.
    pub(super) mistakes: Vec<Mistake>,
}

/// A mistake in the spec, until it is corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The proxies' scope leaves out nodes that have one.
    Scope,
    /// Discovery is off and no listed member is an apiserver.
    Alone,
    /// Nothing listens on the port of discovered members.
    Port,
}

impl Draft {
    /// Lists a member; without addresses the entry overrides the discovered one of its name.
    pub(super) fn put(&mut self, name: &str, addresses: &[IpAddr], port: u16, state: &str) {
        let entry = if addresses.is_empty() {
            json!({ "name": name, "port": port, "state": state })
        } else {
            json!({ "name": name, "port": port, "state": state, "addresses": addresses })
        };
        self.members.insert(name.to_owned(), entry);
    }

    /// `spec.members`.
    pub(super) fn members(&self) -> Vec<Value> {
        self.members.values().cloned().collect()
    }
}
