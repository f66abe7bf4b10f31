//! What becomes of a pool whose owner has paused its management: nothing is changed, and a rollout that has begun goes to no
//! further node. One that fails still comes back.

use trivet_crds::pool::{ApiserverPool, PoolRollout, RolloutPolicy};
use trivet_crds::wire;

use super::facts::{Facts, Memory};
use super::{Plan, Verdict, stand_still};

/// The plan that leaves in force what is. Once the management goes on, members that are gone from discovery then are kept for
/// the whole delay of removals: the owner may have caused it, and sees it only now.
pub(super) fn plan(pool: &ApiserverPool, facts: &Facts, mut memory: Memory) -> Result<Plan, wire::Error> {
    memory.absent.clear();
    let rollout = PoolRollout {
        policy: RolloutPolicy::Paused,
        ..pool.spec.rollout.clone()
    };
    let notes = vec![match &facts.current.document {
        Some(document) => format!(
            "spec.management is Paused: members and proxies stay as they are, with revision {}; set it to Managed to go on",
            document.revision
        ),
        None => {
            "spec.management is Paused, and nothing is in force yet: set it to Managed to begin".to_owned()
        }
    }];
    stand_still(Verdict::Paused { notes }, None, &rollout, pool, facts, memory)
}
