//! Decides what happens next to a fleet whose pool may be gone. Pure.
//!
//! A pool, its CRD or the release may be deleted by accident, so a fleet stays while a client uses it. A fleet without clients
//! is retired in steps. Until the proxies are deleted each step can be undone: by the pool, when it comes back, or
//! by a client. The proxies are the last to go, because a kubelet may reach the API through them.

use super::facts::{Begun, Fleet, NodeFacts, Owner, Remover};

/// How long a retirement by the annotation waits for nodes that are not Ready, in seconds. A reboot and a restart of kubelet
/// take less. A retirement without the annotation waits for all nodes.
const UNREADY_SECONDS: i64 = 600;

/// What the decision depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The fleet.
    pub fleet: Fleet,
    /// Whether it has a pool.
    pub owner: Owner,
    /// The nodes on which it has pods.
    pub nodes: Vec<NodeFacts>,
    /// How long every node must have been without a client, in seconds.
    pub retire_after: u32,
    /// Now, in Unix seconds.
    pub now: i64,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay(Stay),
    /// Somebody asks for a retirement, and the pool exists: the annotation is taken away, so that it does not stay until the
    /// pool is deleted by accident.
    Ignore,
    /// What has begun is undone: the pool is back, or a client is.
    Undo(Stay),
    /// It is noted that the retirement begins.
    Begin(Begun),
    /// The writer of manifests goes, so that none is written any more.
    DeleteWriter,
    /// The remover comes.
    Place(Begun),
    /// The remover is not ready on these nodes.
    AwaitRemovers(Vec<Wait>),
    /// The proxies go.
    DeleteProxies,
    /// Something is left on these nodes.
    AwaitEnd(Vec<Wait>),
    /// What is left in the API goes. On these nodes files may be left.
    Finish(Vec<String>),
}

/// Why a fleet stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It has a pool.
    Owned,
    /// It has no proxies, and none were retired.
    NoProxies,
    /// The CRD of pools is gone: the pools may come back with it.
    KindAbsent,
    /// It is in use, or may be.
    InUse(Vec<Busy>),
}

/// A node whose proxy is in use, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The node.
    pub node: String,
    /// What is known.
    pub why: Why,
}

/// What is known of a proxy that may be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has this many connections.
    Clients(u32),
    /// It has had none for this many seconds, which is not long enough.
    IdleFor(u32),
    /// Nobody reports of it.
    Unreported,
}

/// A node that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The node.
    pub node: String,
    /// What is not done there.
    pub why: String,
}

/// Decides the next step.
pub fn decide(facts: &Facts) -> Step {
    let fleet = &facts.fleet;
    let begun = fleet.begun();
    let has_begun = begun.is_some() || fleet.remover.is_some();
    match reason_to_stay(facts) {
        Some(stay) if has_begun => Step::Undo(stay),
        Some(Stay::Owned) if fleet.is_asked() => Step::Ignore,
        Some(stay) => Step::Stay(stay),
        None => next(facts, begun),
    }
}

fn reason_to_stay(facts: &Facts) -> Option<Stay> {
    let fleet = &facts.fleet;
    match facts.owner {
        Owner::Exists => return Some(Stay::Owned),
        Owner::Absent | Owner::KindAbsent => {}
    }
    if fleet.proxies.is_none() {
        // The remover alone: they are deleted, and nothing can be undone.
        return fleet.remover.is_none().then_some(Stay::NoProxies);
    }
    if fleet.is_asked() {
        return None;
    }
    match facts.owner {
        Owner::KindAbsent => return Some(Stay::KindAbsent),
        Owner::Exists | Owner::Absent => {}
    }
    let busy = busy(&facts.nodes, facts.retire_after);
    (!busy.is_empty()).then_some(Stay::InUse(busy))
}

fn next(facts: &Facts, begun: Option<Begun>) -> Step {
    let fleet = &facts.fleet;
    let is_asked = fleet.is_asked();
    let begun = begun.map(|begun| Begun {
        is_asked: begun.is_asked || is_asked,
        ..begun
    });
    match (&fleet.proxies, &fleet.remover, begun) {
        (Some(_), _, None) => Step::Begin(Begun {
            since: facts.now,
            is_asked,
            directory: fleet.directory(),
        }),
        (Some(_), _, Some(_)) if fleet.writer.is_some() => Step::DeleteWriter,
        (Some(_), None, Some(begun)) => Step::Place(begun),
        (_, _, begun) => {
            let waits = |is_done: fn(&NodeFacts) -> Option<String>| waits(facts, begun.as_ref(), is_done);
            if fleet.proxies.is_some() {
                match waits(not_placed) {
                    missing if missing.is_empty() => Step::DeleteProxies,
                    missing => Step::AwaitRemovers(missing),
                }
            } else {
                match waits(not_ended) {
                    left if left.is_empty() => Step::Finish(left_alone(facts)),
                    left => Step::AwaitEnd(left),
                }
            }
        }
    }
}

/// The nodes that use their proxy, or may.
pub fn busy(nodes: &[NodeFacts], retire_after: u32) -> Vec<Busy> {
    let why = |node: &NodeFacts| match node.report {
        None => Some(Why::Unreported),
        Some(used) if used.connections > 0 => Some(Why::Clients(used.connections)),
        Some(used) if used.idle_seconds < retire_after => Some(Why::IdleFor(used.idle_seconds)),
        Some(_idle) => None,
    };
    let with_proxy = nodes.iter().filter(|node| node.has_proxy);
    let busy = with_proxy.filter_map(|node| {
        let node_name = node.name.clone();
        why(node).map(|why| Busy { node: node_name, why })
    });
    busy.collect()
}

/// The nodes on which something is not done, but for those that are not waited for any more.
fn waits(facts: &Facts, begun: Option<&Begun>, not_done: fn(&NodeFacts) -> Option<String>) -> Vec<Wait> {
    let is_overdue =
        begun.is_some_and(|begun| begun.is_asked && facts.now.saturating_sub(begun.since) >= UNREADY_SECONDS);
    let waited_for = facts.nodes.iter().filter(|node| node.is_ready || !is_overdue);
    let waits = waited_for.filter_map(|node| {
        let why = not_done(node)?;
        let why = if node.is_ready {
            why
        } else {
            format!("the node is not Ready, and {why}")
        };
        let node = node.name.clone();
        Some(Wait { node, why })
    });
    waits.collect()
}

fn not_placed(node: &NodeFacts) -> Option<String> {
    match &node.remover {
        Remover::Waits | Remover::Done => None,
        Remover::Absent => Some("it has no pod of the remover yet".to_owned()),
        Remover::Starts(None) => Some("standbys end".to_owned()),
        Remover::Starts(Some(why)) => Some(why.clone()),
    }
}

fn not_ended(node: &NodeFacts) -> Option<String> {
    match &node.remover {
        _ if node.has_proxy => Some("its proxy ends".to_owned()),
        Remover::Done => None,
        Remover::Waits => Some("the remover waits for the end of a proxy; its log has more".to_owned()),
        Remover::Absent => Some("it has no pod of the remover".to_owned()),
        Remover::Starts(why) => Some(why.clone().unwrap_or_else(|| "the remover starts".to_owned())),
    }
}

/// The nodes that were not waited for.
fn left_alone(facts: &Facts) -> Vec<String> {
    let left = facts.nodes.iter().filter(|node| not_ended(node).is_some());
    left.map(|node| node.name.clone()).collect()
}

#[cfg(test)]
mod tests;
