//! The members in a report. Pure.

use std::net::{IpAddr, SocketAddr};

use trivet_crds::report::{
    LastAnswer, MAX_MEMBERS, MAX_OVERVIEW, ReportedHealth, ReportedMember, ReportedStanding,
};

use super::{
    bounds::{count, short},
    elsewhere::Held,
};
use crate::{
    balance::{
        Standing,
        health::{Outcome, State},
    },
    status::{Observation, PathStatus, UpstreamStatus},
};

/// The members as this node reaches them, with the connections that other processes of the node have, and those of extra
/// listeners: who switches a member off must know of all.
///
/// Where they are too many, those go that have no connections and are of earlier documents.
pub(super) fn members(upstreams: &[UpstreamStatus], elsewhere: &[Held]) -> Vec<ReportedMember> {
    let mut members: Vec<_> = upstreams
        .iter()
        .map(|upstream| member(upstream, elsewhere))
        .collect();
    for held in elsewhere {
        let is_known = upstreams.iter().any(|upstream| upstream.member == held.member);
        if !is_known {
            add_unknown(&mut members, held);
        }
    }
    // Stable, so the others keep their order.
    members.sort_by_key(|member| {
        member.connections == 0 && member.standing == Some(ReportedStanding::LastResort)
    });
    members.truncate(MAX_MEMBERS);
    members
}

/// Members that are Up, of all active ones.
pub(super) fn summary(members: &[ReportedMember]) -> String {
    let active = members.iter().filter(|member| is_active(member));
    let up = active
        .clone()
        .filter(|member| member.health == ReportedHealth::Up);
    format!("{}/{}", up.count(), active.count())
}

/// The same with the active ones that are not Up, the worst first, and with those that must lose connections.
pub(super) fn overview(members: &[ReportedMember]) -> String {
    let mut ailing: Vec<_> = members
        .iter()
        .filter(|member| is_active(member) && member.health != ReportedHealth::Up)
        .collect();
    ailing.sort_by_key(|member| (std::cmp::Reverse(member.health), &member.name));
    let ailing = ailing
        .into_iter()
        .map(|member| format!("{} {}", member.name, member.health.as_str()));
    let leaving = members
        .iter()
        .filter(|member| member.leaving_connections > 0)
        .map(|member| format!("{} leaves", member.name));
    let words: Vec<_> = ailing.chain(leaving).collect();
    let summary = summary(members);
    if words.is_empty() {
        return summary;
    }
    let whole = format!("{summary} {}", words.join(", "));
    if whole.chars().count() <= MAX_OVERVIEW {
        return whole;
    }
    let kept: String = whole.chars().take(MAX_OVERVIEW.saturating_sub(3)).collect();
    format!("{kept}...")
}

fn is_active(member: &ReportedMember) -> bool {
    member.standing == Some(ReportedStanding::Active)
}

fn member(upstream: &UpstreamStatus, elsewhere: &[Held]) -> ReportedMember {
    let health = health(&upstream.state);
    let probe = upstream.last_probe.as_ref();
    let detail = probe
        .map(|probe| probe.detail.as_str())
        .filter(|detail| !detail.is_empty())
        .unwrap_or(&upstream.reason);
    let elsewhere: Vec<_> = elsewhere
        .iter()
        .filter(|held| held.member == upstream.member)
        .collect();
    let own = upstream.paths.iter().filter(|path| leaves(path));
    let own: u64 = own.map(|path| path.connections).sum();
    let others = elsewhere.iter().filter(|held| !is_active_at(upstream, held));
    let others: u64 = others.map(|held| held.connections).sum();
    let all: u64 = elsewhere.iter().map(|held| held.connections).sum();
    ReportedMember {
        name: upstream.member.clone(),
        address: upstream.address.clone(),
        standing: Some(standing(&upstream.standing)),
        health,
        last_answer: probe.and_then(last_answer),
        last_probe_milliseconds: probe
            .and_then(|probe| probe.latency_microseconds)
            .map(|microseconds| count(microseconds.div_ceil(1000))),
        connections: count(upstream.connections.saturating_add(all)),
        leaving_connections: count(own.saturating_add(others)),
        last_error: match health {
            ReportedHealth::Up => String::new(),
            ReportedHealth::Unready | ReportedHealth::Down => short(detail),
        },
        certificate: upstream.certificate.clone(),
    }
}

/// Adds connections of another process to a member that this one does not know.
fn add_unknown(members: &mut Vec<ReportedMember>, held: &Held) {
    let connections = count(held.connections);
    if let Some(known) = members.iter_mut().find(|member| member.name == held.member) {
        known.connections = known.connections.saturating_add(connections);
        known.leaving_connections = known.connections;
        return;
    }
    members.push(ReportedMember {
        name: held.member.clone(),
        address: held.address.clone(),
        standing: Some(ReportedStanding::Removed),
        health: ReportedHealth::Unready,
        last_answer: None,
        last_probe_milliseconds: None,
        connections,
        leaving_connections: connections,
        last_error: "only a proxy of this node that hands over or ends has connections to it".to_owned(),
        certificate: None,
    });
}

fn leaves(path: &PathStatus) -> bool {
    path.standing != Standing::Active.as_str()
}

/// Another server of the member has a port of its own.
fn is_active_at(upstream: &UpstreamStatus, held: &Held) -> bool {
    let is_there = |path: &PathStatus| {
        if held.is_of_extra {
            ip(&path.address).is_some_and(|address| ip(&held.address) == Some(address))
        } else {
            path.address == held.address
        }
    };
    let mut paths = upstream.paths.iter();
    paths.any(|path| is_there(path) && !leaves(path))
}

fn ip(address: &str) -> Option<IpAddr> {
    let address: SocketAddr = address.parse().ok()?;
    Some(address.ip())
}

fn standing(word: &str) -> ReportedStanding {
    let known = [
        (Standing::Active, ReportedStanding::Active),
        (Standing::Draining, ReportedStanding::Draining),
        (Standing::Removed, ReportedStanding::Removed),
        (Standing::LastResort, ReportedStanding::LastResort),
        (Standing::Disabled, ReportedStanding::Disabled),
    ];
    let known = known.into_iter().find(|(standing, _)| standing.as_str() == word);
    known.map_or(ReportedStanding::Unknown, |(_, standing)| standing)
}

/// What a probe brought; none where it could not be sent.
fn last_answer(probe: &Observation) -> Option<LastAnswer> {
    let outcome = Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.as_str() == probe.outcome)?;
    Some(match outcome {
        Outcome::Ready | Outcome::Withheld | Outcome::NotReady | Outcome::Late | Outcome::EtcdFailed => {
            LastAnswer::Verified
        }
        Outcome::Untrusted => LastAnswer::Unverified,
        Outcome::Refused | Outcome::Silent => LastAnswer::NoAnswer,
    })
}

fn health(state: &str) -> ReportedHealth {
    if state == State::Up.as_str() {
        ReportedHealth::Up
    } else if state == State::Unready.as_str() {
        ReportedHealth::Unready
    } else {
        ReportedHealth::Down
    }
}

#[cfg(test)]
mod tests;
