//! The members in the status, and the condition MembersAvailable.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trivet_crds::pool::{MemberHealth, MemberStatus, PoolMemberState};

use super::Seen;
use super::undated::{Holds, Undated};
use crate::health::sighting::Sighting;
use crate::plan::Member;
use crate::reports::words::NAMES_LIMIT;

/// The longest message of a member that the schema allows.
const MESSAGE_LIMIT: usize = 1024;

/// A message tells of up to this many members.
const MEMBERS_LIMIT: usize = 5;

/// One member.
pub(super) fn status(member: &Member, seen: &Seen<'_>) -> MemberStatus {
    let is_disabled = member.state == PoolMemberState::Disabled;
    let known = seen
        .healths
        .of(&member.addresses, member.port)
        .filter(|_| !is_disabled);
    let sighting = sighting(member, seen);
    let by_operator = known.map(|known| known.state);
    let health = if is_disabled {
        MemberHealth::Unknown
    } else {
        sighting.health(by_operator)
    };
    let before = seen
        .previous
        .iter()
        .flat_map(|status| &status.members)
        .find(|old| old.name == member.name);
    let unchanged_since = before
        .filter(|old| old.health == health)
        .and_then(|old| old.last_transition_time.clone());
    let probed = known.map_or("", |known| known.message.as_str());
    let probed = match probed {
        "" => String::new(),
        probed if sighting.reporting == 0 => probed.to_owned(),
        probed => format!("as seen from the operator {probed}"),
    };
    let disabled = if is_disabled {
        "it is Disabled: no proxy uses it"
    } else {
        ""
    };
    let by_nodes = if is_disabled { None } else { not_up(&sighting) };
    let by_nodes = by_nodes.unwrap_or_default();
    let message: Vec<_> = [disabled, &by_nodes, &probed, &member.note]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    MemberStatus {
        name: member.name.clone(),
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        port: member.port,
        source: member.source,
        node_name: member.node_name.clone(),
        zone: member.zone.clone(),
        state: member.state,
        health,
        version: seen
            .healths
            .version(&member.addresses, member.port)
            .unwrap_or_default()
            .to_owned(),
        reachable_nodes: count(sighting.reachable),
        reporting_nodes: count(sighting.reporting),
        last_transition_time: Some(unchanged_since.unwrap_or(Time(seen.now))),
        message: message.join("; ").chars().take(MESSAGE_LIMIT).collect(),
    }
}

/// Healthy members of all active ones.
pub(super) fn summary(members: &[MemberStatus]) -> String {
    let active: Vec<_> = members
        .iter()
        .filter(|member| member.state == PoolMemberState::Active)
        .collect();
    let up = active
        .iter()
        .filter(|member| member.health == MemberHealth::Up)
        .count();
    format!("{up}/{}", active.len())
}

/// The condition MembersAvailable.
pub(super) fn available(seen: &Seen<'_>) -> Undated {
    let active: Vec<_> = seen
        .plan
        .members
        .iter()
        .filter(|member| member.state == PoolMemberState::Active)
        .map(|member| (member, sighting(member, seen)))
        .collect();
    let by_operator = |member: &Member| {
        let health = seen.healths.of(&member.addresses, member.port);
        health.map(|health| health.state)
    };
    let reporting = active
        .iter()
        .map(|(_, sighting)| sighting.reporting)
        .max()
        .unwrap_or(0);
    let where_ = match reporting {
        0 => "as seen from the operator, because no node reports".to_owned(),
        1 => "on the node that reports".to_owned(),
        nodes => format!("on all of {nodes} nodes that report"),
    };
    let is_up = |(member, sighting): &&(&Member, Sighting)| match sighting.reporting {
        0 => by_operator(member) == Some(MemberHealth::Up),
        nodes => sighting.up == nodes,
    };
    let ailing: Vec<_> = active.iter().filter(|member| !is_up(member)).collect();
    if !active.is_empty() && ailing.is_empty() {
        return Undated {
            holds: Holds::True,
            reason: "Available",
            message: format!("{0}/{0} members are Up {where_}", active.len()),
        };
    }
    let is_nowhere_up = |(member, sighting): &&&(&Member, Sighting)| match sighting.reporting {
        0 => by_operator(member) != Some(MemberHealth::Up),
        _ => sighting.up == 0,
    };
    let nowhere = ailing.iter().filter(is_nowhere_up).count();
    let is_known = |(member, sighting): &&&(&Member, Sighting)| {
        sighting.reporting > 0
            || by_operator(member).unwrap_or(MemberHealth::Unknown) != MemberHealth::Unknown
    };
    let known = ailing.iter().filter(is_known).count();
    let reason = match nowhere {
        0 if active.is_empty() => "NoMembers",
        0 => "NotUpOnSomeNodes",
        nowhere if nowhere == active.len() => "NoMemberUp",
        _ => "MemberDown",
    };
    let words = ailing.iter().take(MEMBERS_LIMIT).map(|(member, sighting)| {
        let words = not_up(sighting).unwrap_or_else(|| {
            let health = by_operator(member).unwrap_or(MemberHealth::Unknown);
            format!("{health:?} as seen from the operator, and no node reports it")
        });
        format!("{} is {words}", member.name)
    });
    let mut words: Vec<_> = words.collect();
    if let Some(more) = ailing.len().checked_sub(MEMBERS_LIMIT).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    if words.is_empty() {
        words.push("no member is Active".to_owned());
    }
    let message = words.join("; ");
    if known == 0 && !ailing.is_empty() {
        return Undated::unknown("NotReported", message);
    }
    Undated::no(reason, message)
}

fn sighting(member: &Member, seen: &Seen<'_>) -> Sighting {
    seen.sightings.of(&member.addresses, member.port)
}

/// On which nodes a member is not Up, and why on the first of them.
fn not_up(sighting: &Sighting) -> Option<String> {
    let first = sighting.ailing.first()?;
    let count = sighting.not_up();
    let names: Vec<_> = sighting
        .ailing
        .iter()
        .map(|ailing| format!("{} ({})", ailing.node, ailing.health.0.as_str()))
        .collect();
    let more = match usize::try_from(count)
        .unwrap_or(usize::MAX)
        .saturating_sub(NAMES_LIMIT)
    {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let why = if first.why.is_empty() {
        String::new()
    } else {
        format!("; {} says: {}", first.node, first.why)
    };
    Some(format!(
        "not Up on {count} of {} nodes: {}{more}{why}",
        sighting.reporting,
        names.join(", ")
    ))
}

fn count(nodes: u32) -> i32 {
    i32::try_from(nodes).unwrap_or(i32::MAX)
}
