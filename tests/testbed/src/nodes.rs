//! The cluster's own view of the hosts.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::output;

/// The parts of a Node that the testbed uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ready: bool,
}

/// Lists the Nodes, through one master after the other until one answers.
pub(crate) fn list(cluster: &Cluster) -> Result<Vec<Node>> {
    let mut last = None;
    for master in cluster.masters() {
        let mut kubectl = cluster.kubectl_through(&master.name().to_string())?;
        match output::of(kubectl.args(["get", "nodes", "--output=json", "--request-timeout=3s"])) {
            Ok(json) => return parse(&json),
            Err(error) => last = Some(error),
        }
    }
    last.map_or_else(|| Ok(Vec::new()), Err)
}

fn parse(json: &str) -> Result<Vec<Node>> {
    let list: Value = serde_json::from_str(json).context("failed to understand the list of nodes")?;
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .context("the list of nodes has no items")?;
    let node = |item: &Value| {
        let name = item.pointer("/metadata/name")?.as_str()?.to_owned();
        let conditions = item.pointer("/status/conditions")?.as_array()?;
        let ready = conditions.iter().any(|condition| {
            condition.get("type").and_then(Value::as_str) == Some("Ready")
                && condition.get("status").and_then(Value::as_str) == Some("True")
        });
        Some(Node { name, ready })
    };
    Ok(items.iter().filter_map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_only_when_its_condition_says_true() {
        let json = r#"{"items": [
            {"metadata": {"name": "cp1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "w1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        ]}"#;
        let nodes = parse(json).unwrap();
        assert_eq!(
            nodes[0],
            Node {
                name: "cp1".to_owned(),
                ready: true
            }
        );
        assert_eq!(
            nodes[1],
            Node {
                name: "w1".to_owned(),
                ready: false
            }
        );
        assert!(parse("{}").is_err());
    }
}
