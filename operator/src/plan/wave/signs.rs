//! The signs that a template is bad, wherever it is.

use super::facts::{Aside, NodeFacts, WaveFacts};
use super::usage::excess;
use crate::reports::words::listed;

/// How many ends of the container of one pod are a bad sign. One is none: the node's containerd may have restarted (seen), or
/// the node. A soak begins anew with it.
const ENDS_LIMIT: u32 = 2;

/// How many nodes may become not Ready with the new proxy: machines fail, but seldom two during one rollout.
const LOST_LIMIT: usize = 2;

/// After the soak, how many nodes must have a new proxy whose files or memory run away. What happens on one of many nodes may
/// come from what its clients do; a leak that is slower than a soak is on all of them.
const RUNAWAY_LIMIT: usize = 2;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    /// The node.
    pub(super) node: String,
    /// What is wrong.
    pub(super) cause: String,
}

/// The first sign of a template, if there is any.
pub(super) fn any(facts: &WaveFacts, template: &str, has_soaked: bool) -> Option<Sign> {
    let nodes = &facts.nodes;
    nodes.iter().find_map(ended).or_else(|| {
        if has_soaked {
            lost(nodes).or_else(|| run_away(facts, template))
        } else {
            runs_away(facts, template)
        }
    })
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

/// The first node ends its soak at once only where the end is certain: a doubt is waited for.
fn runs_away(facts: &WaveFacts, template: &str) -> Option<Sign> {
    facts.nodes.iter().find_map(|node| {
        node.counted()?;
        let excess = excess(node.report.as_ref()?, template, facts)?;
        excess.is_certain.then(|| Sign {
            node: node.name.clone(),
            cause: excess.cause,
        })
    })
}

/// On several nodes a doubt is none any more, unless proxies of the template before do the same.
fn run_away(facts: &WaveFacts, template: &str) -> Option<Sign> {
    let nodes = facts.nodes.iter().filter(|node| node.aside.is_none());
    let excesses = nodes.filter_map(|node| {
        let report = node.report.as_ref()?;
        Some((node, report, excess(report, &report.template, facts)?))
    });
    let (new, old): (Vec<_>, Vec<_>) = excesses.partition(|(_, report, _)| report.template == template);
    let (node, _, excess) = new
        .first()
        .filter(|_| new.len() >= RUNAWAY_LIMIT && old.is_empty())?;
    let names = new.iter().map(|(node, ..)| node.name.clone());
    Some(Sign {
        node: node.name.clone(),
        cause: format!("{} (so on {})", excess.cause, listed(names)),
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
