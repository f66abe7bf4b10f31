//! Holds the addresses of an entry that its names have lost, while they answer: a wrong answer of a DNS server must not take
//! an apiserver away.

use std::mem;
use std::net::IpAddr;

use trivet_crds::pool::ApiserverPoolSpec;
use trivet_crds::wire::{self, MAX_ADDRESSES};

use super::{Claim, in_force};
use crate::plan::facts::Facts;
use crate::plan::members::{Member, list, removal_delay};

/// Adds the addresses in force to which an entry's names no longer resolve, unless they have not answered for the removal
/// delay. An address that the owner removes from the entry, or that discovery has of another apiserver, is not held.
pub(super) fn hold<'a>(
    mut claim: Claim<'a>,
    spec: &ApiserverPoolSpec,
    facts: &Facts,
    discovered: &[Member],
) -> Claim<'a> {
    let entry = claim.entry;
    let is_unedited = facts.current.marks.named.get(&entry.name) == Some(&entry.addresses);
    let Some(old) = in_force(entry, facts).filter(|_| is_unedited) else {
        return claim;
    };
    let is_held = |ip: &&IpAddr| {
        let is_gone = facts.healths.is_gone(&[**ip], entry.port, removal_delay(spec));
        !claim.addresses.contains(ip) && !is_gone && !is_of_another(**ip, &claim, old, discovered)
    };
    let held: Vec<IpAddr> = old.addresses.iter().filter(is_held).copied().collect();
    if held.is_empty() {
        return claim;
    }
    let mut notes = vec![format!(
        "its name no longer resolves to {}: kept until it has not answered for removalDelaySeconds",
        list(&held)
    )];
    let mut found = mem::take(&mut claim.addresses);
    let is_believed = facts.healths.is_verified(&found, entry.port);
    if !is_believed && facts.healths.is_verified(&held, entry.port) {
        let is_used = |ip: &IpAddr| claim.spells_out(*ip) || old.addresses.contains(ip);
        let (used, unused): (Vec<_>, Vec<_>) = found.into_iter().partition(is_used);
        found = used;
        if !unused.is_empty() {
            notes.push(format!(
                "it resolves to {}, where nothing answers: not used",
                list(&unused)
            ));
        }
    }
    notes.extend(Some(claim.note).filter(|note| !note.is_empty()));
    let ordered = if is_believed {
        in_order(found, &held, MAX_ADDRESSES - 1)
    } else {
        in_order(held.clone(), &found, 1)
    };
    // Probes that differ from pass to pass must not change the order.
    let is_same = old.addresses.len() == ordered.len() && old.addresses.iter().all(|ip| ordered.contains(ip));
    Claim {
        entry,
        addresses: if is_same { old.addresses.clone() } else { ordered },
        held,
        note: notes.join("; "),
    }
}

/// Whether discovery has this address of another apiserver than the claim's.
fn is_of_another(ip: IpAddr, claim: &Claim<'_>, old: &wire::Member, discovered: &[Member]) -> bool {
    let entry = claim.entry;
    let mut others = discovered
        .iter()
        .filter(|member| member.name != entry.name && member.node_name != old.node_name);
    others.any(|member| member.port == entry.port && member.addresses.contains(&ip))
}

/// All of both, `first` before `second`; but of what a member has room for, up to `reserved` are for `second`.
fn in_order(mut first: Vec<IpAddr>, second: &[IpAddr], reserved: usize) -> Vec<IpAddr> {
    let room = MAX_ADDRESSES.saturating_sub(second.len().min(reserved));
    let rest = first.split_off(first.len().min(room));
    first.extend(second);
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_has_what_is_reserved_and_the_first_the_rest() {
        let ips = |numbers: &[u8]| -> Vec<IpAddr> {
            let ip = |number: &u8| IpAddr::from([10, 0, 0, *number]);
            numbers.iter().map(ip).collect()
        };
        for (first, second, reserved, expected) in [
            (&[1, 2][..], &[3][..], 3, &[1, 2, 3][..]),
            (&[1, 2, 3, 4], &[5, 6], 3, &[1, 2, 5, 6, 3, 4]),
            (&[1, 2, 3, 4], &[5, 6], 1, &[1, 2, 3, 5, 6, 4]),
            (&[1], &[2, 3, 4, 5], 3, &[1, 2, 3, 4, 5]),
        ] {
            assert_eq!(in_order(ips(first), &ips(second), reserved), ips(expected));
        }
    }
}
