//! Remembers what the guard needs to know of earlier passes.
//!
//! Every pass adds what it has seen, also a pass whose spec is rejected or whose writes fail. What a plan has removed is
//! counted when the ConfigMap shows it: a write whose answer is lost may have arrived, and one that was answered is the
//! same to the next pass.
//!
//! A spec that may still be rejected does not weaken the guard of the last good one: the time of absence begins when
//! neither finds a member, and removals are counted for the longer of both delays.

use std::time::Duration;

use trivet_crds::pool::{ApiserverPool, MemberSource};
use trivet_crds::wire;

use super::facts::{Facts, Memory};
use super::{last_good, members, sight};

/// The memory with what this pass has seen. `dropped` are the members in force that discovery's source has not by the spec
/// of `pool`.
pub fn remember(facts: &Facts, dropped: &[&wire::Member], pool: &ApiserverPool) -> Memory {
    let mut memory = facts.memory.clone();
    let generation = pool.metadata.generation;
    if generation < memory.generation {
        // A restored pool gives the numbers of its later generations to other edits.
        memory.judged = None;
        memory.used_permission.clear();
    }
    memory.generation = generation;
    let leaving = std::mem::take(&mut memory.leaving).into_iter();
    let gone = leaving.filter(|old| !facts.current.has(old));
    memory.removals.extend(gone.map(|old| (old, facts.now)));
    let by_last_good = last_good::discovery(&facts.current).removal_delay_seconds;
    let delay = members::removal_delay(&pool.spec).max(Duration::from_secs(by_last_good.into()));
    memory
        .removals
        .retain(|(_, at)| facts.now.saturating_duration_since(*at) < delay);

    // Where nothing is known to be gone, the time of absence has not begun.
    let is_known = facts.discovered.has_masters() && !facts.current.marks.has_unread_discovery();
    let mut last_good = last_good::members(facts);
    // An entry alone is no source: what it lists is in force, whether or not its node is still there.
    last_good.retain(|member| member.source != MemberSource::Spec || !member.node_name.is_empty());
    let is_absent = |old: &&&wire::Member| is_known && !members::have(&last_good, old);
    let absent = dropped.iter().filter(is_absent).map(|old| {
        let since = facts.memory.absent.get(&old.name).copied();
        (old.name.clone(), since.unwrap_or(facts.now))
    });
    memory.absent = absent.collect();

    memory.unseen_since =
        sight::reaches_no_member(facts).then(|| facts.memory.unseen_since.unwrap_or(facts.now));

    memory.vigil.observe(facts.now);
    let proxies = &facts.bootstrap.proxies;
    memory
        .soak
        .observe(&proxies.template, proxies.is_complete, facts.now);

    if !facts.current.marks.used_permission.is_empty() {
        memory
            .used_permission
            .clone_from(&facts.current.marks.used_permission);
    }
    memory
}
