//! Whether a member may go: another one must be left that serves. Pure.

use anyhow::{Result, bail};
use trivet_crds::pool::{ApiserverPool, MemberHealth, MemberStatus, PoolMemberState};
use trivet_crds::report::{ProxyReport, ReportedHealth};

/// Fails unless another Active member is Up: by the operator's probe, and where that cannot judge by what nodes report.
pub(super) fn check(pool: &ApiserverPool, member: &str, reports: &[ProxyReport]) -> Result<()> {
    let members = pool
        .status
        .as_ref()
        .map(|status| status.members.as_slice())
        .unwrap_or_default();
    let mut others = members
        .iter()
        .filter(|other| other.name != member && other.state == PoolMemberState::Active);
    if others.clone().any(|other| is_up(other, reports)) {
        return Ok(());
    }
    if others.clone().next().is_none() {
        bail!("{member} is the only active member: add another one to the pool first");
    }
    let states = others
        .by_ref()
        .map(|other| format!("{} is {:?}", other.name, other.health));
    let states = states.collect::<Vec<_>>().join(", ");
    bail!("no other active member is Up ({states}): repair one first, or edit spec.members yourself")
}

fn is_up(member: &MemberStatus, reports: &[ProxyReport]) -> bool {
    match member.health {
        MemberHealth::Up => true,
        MemberHealth::Unready | MemberHealth::Down => false,
        MemberHealth::Unknown => {
            let seen = reports.iter().flat_map(|report| &report.content.members);
            let seen: Vec<_> = seen.filter(|seen| seen.name == member.name).collect();
            let up = seen
                .iter()
                .filter(|seen| seen.health == ReportedHealth::Up)
                .count();
            up.saturating_mul(2) > seen.len()
        }
    }
}
