//! What is told of a retirement. Pure.

use kube::runtime::events::EventType;

use super::decision::{Busy, Stay, Step, Wait, Why};
use crate::reports::words::listed;

/// An event: its type, its reason and its sentence.
pub type Told = (EventType, &'static str, String);

/// What a step is, for the log. `None` where there is nothing to tell.
pub fn progress(step: &Step) -> Option<String> {
    Some(match step {
        Step::Stay(Stay::Owned | Stay::NoProxies) => return None,
        Step::Stay(stay) => format!("the pool is gone and its proxies stay: {}", reason(stay)),
        Step::Ignore => ignored().2,
        Step::Undo(stay) => format!(
            "the retirement is undone: {}; manifests of standbys that were removed come back only with the pool",
            reason(stay)
        ),
        Step::Begin(begun) if begun.is_asked => {
            "the proxies are retired, as the annotation trivet.dev/retire asks".to_owned()
        }
        Step::Begin(_) => "the proxies are retired: the pool is gone, and nobody uses them".to_owned(),
        Step::DeleteWriter => "deleting the writer of manifests".to_owned(),
        Step::Place(_) => "placing the remover on every node".to_owned(),
        Step::AwaitRemovers(waits) => format!("waiting for the remover on {}", waited(waits)),
        Step::DeleteProxies => "deleting the proxies: the remover waits on every node".to_owned(),
        Step::AwaitEnd(waits) => format!("waiting until nothing is left on {}", waited(waits)),
        Step::Finish(left) => retired("", left).2,
    })
}

/// Why a fleet stays.
pub fn reason(stay: &Stay) -> String {
    match stay {
        Stay::Owned => "the pool exists".to_owned(),
        Stay::NoProxies => "there are none".to_owned(),
        Stay::KindAbsent => {
            "the CRD apiserverpools.trivet.dev is gone, and the pool may come back with it".to_owned()
        }
        Stay::InUse(busy) => {
            let nodes = busy
                .iter()
                .map(|Busy { node, why }| format!("{node} ({})", use_in_words(*why)));
            format!("they are in use, or may be, on {}", listed(nodes))
        }
    }
}

/// What the annotation does while the pool exists.
pub fn ignored() -> Told {
    let note = "the annotation trivet.dev/retire had no effect and was removed: the pool exists; delete the pool first";
    (EventType::Warning, "RetireIgnored", note.to_owned())
}

/// That a pool is retired, and what may be left.
pub fn retired(pool: &str, left: &[String]) -> Told {
    if left.is_empty() {
        let note = "the proxies are retired, and nothing of them is left on a node".to_owned();
        return (EventType::Normal, "PoolRetired", note);
    }
    let of_pool = if pool.is_empty() { "POOL" } else { pool };
    let note = format!(
        "the proxies are retired, but for nodes that were not Ready: {}; remove there trivet-{of_pool}-*.yaml from \
         kubelet's directory of static pods, /var/lib/trivet/{of_pool} and /run/trivet/{of_pool}",
        listed(left.iter().cloned())
    );
    (EventType::Warning, "PoolRetired", note)
}

fn use_in_words(why: Why) -> String {
    match why {
        Why::Clients(count) => format!("{count} connections"),
        Why::IdleFor(seconds) => format!("no client for {seconds} s"),
        Why::Unreported => "no report".to_owned(),
    }
}

fn waited(waits: &[Wait]) -> String {
    listed(waits.iter().map(|Wait { node, why }| format!("{node} ({why})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_stays_says_on_which_nodes_it_is_in_use() {
        let busy = |node: &str, why| Busy {
            node: node.to_owned(),
            why,
        };
        let stay = Stay::InUse(vec![busy("w1", Why::Clients(3)), busy("w2", Why::Unreported)]);
        let told = progress(&Step::Stay(stay)).unwrap();
        assert_eq!(
            told,
            "the pool is gone and its proxies stay: they are in use, or may be, on w1 (3 connections), w2 (no report)"
        );
        assert_eq!(progress(&Step::Stay(Stay::Owned)), None);
    }

    #[test]
    fn nodes_that_were_left_are_named_with_what_to_remove_there() {
        let (type_, reason, note) = retired("default", &["w2".to_owned()]);
        assert!(matches!(type_, EventType::Warning));
        assert_eq!(reason, "PoolRetired");
        assert!(
            note.contains("w2") && note.contains("/var/lib/trivet/default"),
            "{note}"
        );
        let (type_, _, note) = retired("default", &[]);
        assert!(matches!(type_, EventType::Normal) && note.contains("nothing of them is left"));
    }
}
