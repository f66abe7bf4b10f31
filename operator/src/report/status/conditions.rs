//! The conditions. Ready summarises Accepted and ProxiesAvailable.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, PoolMemberState};

use super::undated::{Holds, Undated};
use super::{Seen, certificates, condition, dns, drained, members, progress, proxies, synced};
use crate::apply::Kind;
use crate::plan::Verdict;
use crate::plan::fitness;
use crate::plan::shrink::REFUSED_SHRINK;

/// The spec is obeyed.
pub const ACCEPTED: &str = "Accepted";

/// Every Ready node that should have a proxy has an available one of the newest template.
pub const PROXIES_AVAILABLE: &str = "ProxiesAvailable";

/// The proxies, and the standbys if there are any, are as the spec wants them, or on their way there.
pub const PROGRESSING: &str = "Progressing";

/// Accepted, proxies available, and at least one active member Up as far as the operator can judge.
pub const READY: &str = "Ready";

/// Every active member is Up on every node that reports.
pub const MEMBERS_AVAILABLE: &str = "MembersAvailable";

/// Every proxy of a Ready node follows the newest document.
pub const CONFIG_SYNCED: &str = "ConfigSynced";

/// No member that leaves has a client left.
pub const MEMBERS_DRAINED: &str = "MembersDrained";

/// The members' certificates are valid and cover the listeners.
pub const CERTIFICATE_MATCHES: &str = "CertificateMatches";

/// The names of the pool in DNS are published as the spec wants them. Only pools that ask for names have it.
pub const DNS_PUBLISHED: &str = "DNSPublished";

/// The types of the conditions that every pool has, in the order in which people look at them.
pub const ALL: [&str; 8] = [
    READY,
    ACCEPTED,
    MEMBERS_AVAILABLE,
    PROXIES_AVAILABLE,
    CONFIG_SYNCED,
    MEMBERS_DRAINED,
    CERTIFICATE_MATCHES,
    PROGRESSING,
];

/// The longest message: short enough for people to read. The API server allows 32 KiB.
const MESSAGE_LIMIT: usize = 2048;

/// All conditions, in the order of [`ALL`], and [`DNS_PUBLISHED`].
pub fn conditions(seen: &Seen<'_>, status: &ApiserverPoolStatus) -> Vec<Condition> {
    let accepted = accepted(seen);
    let available = proxies::available(seen);
    let ready = ready(&accepted, &available, seen, status);
    let of_every_pool = [
        (READY, ready),
        (ACCEPTED, accepted),
        (MEMBERS_AVAILABLE, members::available(seen)),
        (PROXIES_AVAILABLE, available),
        (CONFIG_SYNCED, synced::synced(seen)),
        (MEMBERS_DRAINED, drained::drained(seen)),
        (CERTIFICATE_MATCHES, certificates::matches(seen)),
        (PROGRESSING, progress::progressing(seen)),
    ];
    let published = dns::published(seen).map(|undated| (DNS_PUBLISHED, undated));
    let all = of_every_pool.into_iter().chain(published);
    all.map(|(type_, undated)| dated(type_, undated, seen)).collect()
}

fn accepted(seen: &Seen<'_>) -> Undated {
    let of_document = seen.refused.filter(|refused| refused.kind == Kind::ConfigMap);
    let refused = of_document.map(|refused| refused.words.as_str());
    let mut accepted = match (&seen.plan.verdict, refused) {
        (Verdict::Rejected { rejection, notes }, refused) => {
            let sentences = notes.iter().map(String::as_str).chain(refused);
            let message = sentences.fold(rejection.to_string(), |text, sentence| {
                format!("{text}; {sentence}")
            });
            Undated::no(rejection.reason(), message)
        }
        (Verdict::Accepted { .. } | Verdict::Paused { .. }, Some(words)) => Undated::no(
            "ApplyFailed",
            format!("{words}; the last good configuration stays in force"),
        ),
        (Verdict::Paused { notes }, None) => Undated {
            holds: Holds::True,
            reason: progress::PAUSED,
            message: notes.join("; "),
        },
        (
            Verdict::Accepted {
                notes,
                refused_removals,
            },
            None,
        ) => in_force(seen, notes, refused_removals),
    };
    for hindrance in &seen.plan.hindrances {
        accepted.message = format!("{}; {}", accepted.message, hindrance.note);
    }
    accepted
}

/// The spec is obeyed. What the guard refuses is the reason before what keeps the operator from following the cluster.
fn in_force(seen: &Seen<'_>, notes: &[String], refused_removals: &[String]) -> Undated {
    let hindrance = seen.plan.hindrances.first();
    let reason = match refused_removals {
        [] => hindrance.map_or("Accepted", |hindrance| hindrance.reason),
        [_, ..] => REFUSED_SHRINK,
    };
    let sentences: Vec<_> = refused_removals.iter().chain(notes).map(String::as_str).collect();
    let message = if sentences.is_empty() {
        "the spec is in force".to_owned()
    } else {
        sentences.join("; ")
    };
    Undated {
        holds: Holds::True,
        reason,
        message,
    }
}

fn ready(accepted: &Undated, available: &Undated, seen: &Seen<'_>, status: &ApiserverPoolStatus) -> Undated {
    if let Some(missing) = [accepted, available]
        .into_iter()
        .find(|undated| undated.holds != Holds::True)
    {
        return Undated::no(missing.reason, missing.message.clone());
    }
    let is_up = status
        .members
        .iter()
        .any(|member| member.state == PoolMemberState::Active && member.health == MemberHealth::Up);
    if !is_up {
        if let Some(why) = fitness::unreached(&seen.plan.members, seen.healths) {
            return cannot_judge(&why, seen, status);
        }
        let message = "no active member is Up; status.members says why".to_owned();
        return Undated::no("NoMemberUp", message);
    }
    let message = format!(
        "{} members are up, {} proxies ready{}",
        status.members_summary,
        status.proxies_summary,
        proxies::names(seen.uncounted)
    );
    Undated {
        holds: Holds::True,
        reason: "Ready",
        message,
    }
}

/// Ready although the operator's pod reaches no member, for example behind a NetworkPolicy: the spec is obeyed and the
/// proxies are available. Some apiserver answers, because otherwise this status could not be written.
fn cannot_judge(why: &str, seen: &Seen<'_>, status: &ApiserverPoolStatus) -> Undated {
    let message = format!(
        "{} proxies ready{}; the operator cannot judge the members, because it reaches none of them: {why}",
        status.proxies_summary,
        proxies::names(seen.uncounted)
    );
    Undated {
        holds: Holds::True,
        reason: "CannotJudge",
        message,
    }
}

/// The condition, with the time at which its status last changed.
fn dated(type_: &str, undated: Undated, seen: &Seen<'_>) -> Condition {
    let status = undated.holds.as_str();
    let before = seen.previous.and_then(|previous| condition(previous, type_));
    let unchanged_since = before
        .filter(|old| old.status == status)
        .map(|old| old.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: undated.reason.to_owned(),
        message: undated.message.chars().take(MESSAGE_LIMIT).collect(),
        observed_generation: seen.generation,
        last_transition_time: unchanged_since.unwrap_or(Time(seen.now)),
    }
}
