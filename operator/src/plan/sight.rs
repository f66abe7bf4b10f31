//! What the operator sees of the members in force, with its own probes or by the reports of proxies.
//!
//! An operator that reaches none of them, as behind a NetworkPolicy or without their address family, is blind: that no
//! member answers says nothing about the members then.

use std::time::Duration;

use trivet_crds::wire;

use super::facts::Facts;

/// How long the operator must have reached none of the members in force before it calls itself unable to judge: some
/// rounds of probes, so that neither a start nor a short fault lets an edit pass.
pub const BLIND_AFTER: Duration = Duration::from_secs(10);

/// Whether the operator reaches a member in force.
pub fn reaches_a_member(facts: &Facts) -> bool {
    let mut members = facts.current.members.iter();
    members.any(|old| facts.healths.is_reached(&old.addresses, old.port))
}

/// Whether the operator has probed all members in force and reaches none of them.
pub fn reaches_no_member(facts: &Facts) -> bool {
    let is_probed = |old: &wire::Member| facts.healths.of(&old.addresses, old.port).is_some();
    facts.current.members.iter().all(is_probed) && !reaches_a_member(facts)
}

/// Whether the operator has reached none of the members in force for so long that it cannot judge.
pub fn is_blind(facts: &Facts) -> bool {
    let since = facts.memory.unseen_since;
    let unseen = since.map(|since| facts.now.saturating_duration_since(since));
    reaches_no_member(facts) && unseen.is_some_and(|unseen| unseen >= BLIND_AFTER)
}
