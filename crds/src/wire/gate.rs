//! The gate of a rollout: on which nodes the pods of the named template may take from the proxy that serves.

use serde::{Deserialize, Serialize};

/// On which nodes the pods of [`super::RolloutTarget::template`] may take by their rank. On the others they hold the
/// listeners, unready, and take only from a proxy that leaves, has died or hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Whether the gate is open everywhere, on some nodes, or nowhere.
    #[serde(default = "GatePolicy::of_a_gate_without")]
    pub policy: GatePolicy,
    /// The nodes where it is open, with the policy Nodes; at most [`super::MAX_GATE_NODES`], each name 1 to 253 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// Where a gate is open. An unknown policy of a later release reads as [`GatePolicy::Closed`]: a rollout that stands harms
/// nobody, and one that goes on may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatePolicy {
    /// On every node.
    #[default]
    Open,
    /// On the nodes that are listed.
    Nodes,
    /// Nowhere.
    #[serde(other)]
    Closed,
}

impl GatePolicy {
    /// What a gate says that names no policy: no release writes one, so it is of a later one.
    fn of_a_gate_without() -> Self {
        Self::Closed
    }

    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Nodes => "Nodes",
            Self::Closed => "Closed",
        }
    }
}

impl Gate {
    /// The gate that is closed everywhere.
    pub fn closed() -> Self {
        Self {
            policy: GatePolicy::Closed,
            nodes: Vec::new(),
        }
    }

    /// The gate that is open on this node alone.
    pub fn of_node(node: &str) -> Self {
        Self {
            policy: GatePolicy::Nodes,
            nodes: vec![node.to_owned()],
        }
    }

    /// Whether it is as an absent one.
    pub(super) fn says_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is open on every node.
    pub fn is_open(&self) -> bool {
        self.policy == GatePolicy::Open
    }

    /// Whether it is open on this node.
    pub fn admits(&self, node: &str) -> bool {
        match self.policy {
            GatePolicy::Open => true,
            GatePolicy::Nodes => self.nodes.iter().any(|open| open == node),
            GatePolicy::Closed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(gate: serde_json::Value) -> Gate {
        serde_json::from_value(gate).unwrap()
    }

    #[test]
    fn a_gate_is_open_on_all_on_some_or_on_no_nodes() {
        let on = |gate: &Gate| ["w1", "w2"].map(|node| gate.admits(node));
        assert_eq!(on(&Gate::default()), [true, true]);
        assert_eq!(on(&Gate::of_node("w1")), [true, false]);
        assert_eq!(on(&Gate::closed()), [false, false]);
        // The list counts with the policy Nodes only.
        assert_eq!(
            on(&read(json!({ "policy": "Closed", "nodes": ["w1"] }))),
            [false, false]
        );
        assert_eq!(
            on(&read(json!({ "policy": "Open", "nodes": ["w1"] }))),
            [true, true]
        );
    }

    #[test]
    fn a_gate_that_this_release_does_not_understand_is_closed() {
        for later in [
            json!({ "policy": "Zones", "zones": ["a"] }),
            json!({ "zones": ["a"] }),
            json!({}),
        ] {
            assert_eq!(read(later).policy, GatePolicy::Closed);
        }
    }

    #[test]
    fn every_policy_reads_back() {
        for policy in [GatePolicy::Open, GatePolicy::Nodes, GatePolicy::Closed] {
            assert_eq!(read(json!({ "policy": policy.as_str() })).policy, policy);
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.as_str());
        }
    }
}
