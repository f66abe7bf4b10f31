//! The signs that a template is bad, wherever it is.

use super::facts::{Aside, NodeFacts};
use crate::reports::words::listed;

/// How many ends of the container of one pod are a bad sign. One is none: the node's containerd may have restarted (seen), or
/// the node. A soak begins anew with it.
const ENDS_LIMIT: u32 = 2;

/// How many nodes may become not Ready with the new proxy: machines fail, but seldom two during one rollout.
const LOST_LIMIT: usize = 2;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    /// The node.
    pub(super) node: String,
    /// What is wrong.
    pub(super) cause: String,
}

/// The first sign, if there is any.
pub(super) fn any(nodes: &[NodeFacts], has_soaked: bool) -> Option<Sign> {
    nodes
        .iter()
        .find_map(ended)
        .or_else(|| lost(nodes).filter(|_| has_soaked))
}

fn ended(node: &NodeFacts) -> Option<Sign> {
    let newcomer = node.counted().filter(|newcomer| newcomer.ends >= ENDS_LIMIT)?;
    let times = newcomer.ends;
    let words = newcomer.in_its_words();
    Some(Sign {
        node: node.name.clone(),
        cause: format!("its new proxy has ended {times} times{words}"),
    })
}

fn lost(nodes: &[NodeFacts]) -> Option<Sign> {
    let is_lost = |node: &&NodeFacts| {
        let has_run = node
            .newcomer
            .as_ref()
            .is_some_and(|newcomer| newcomer.has_started);
        node.aside == Some(Aside::NotReady) && has_run
    };
    let lost: Vec<_> = nodes.iter().filter(is_lost).collect();
    let first = lost.first().filter(|_| lost.len() >= LOST_LIMIT)?;
    Some(Sign {
        node: first.name.clone(),
        cause: format!(
            "nodes are not Ready since their new proxy runs: {}",
            listed(lost.iter().map(|node| node.name.clone()))
        ),
    })
}
