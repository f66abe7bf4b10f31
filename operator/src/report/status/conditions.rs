//! The conditions: Accepted, ProxiesAvailable, and Ready, which summarises them.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, PoolMemberState};

use super::{Seen, condition};
use crate::plan::Verdict;
use crate::plan::shrink::REFUSED_SHRINK;

/// The spec is obeyed.
pub const ACCEPTED: &str = "Accepted";

/// Every node that should have a proxy has an available one of the newest template.
pub const PROXIES_AVAILABLE: &str = "ProxiesAvailable";

/// Accepted, proxies available, and at least one active member Up as seen from the operator.
pub const READY: &str = "Ready";

/// People read a condition's message. The API server would take 32 KiB.
const MESSAGE_LIMIT: usize = 2048;

/// A condition without its times.
struct Undated {
    holds: bool,
    reason: &'static str,
    message: String,
}

/// All conditions, the summary first.
pub fn conditions(seen: &Seen<'_>, status: &ApiserverPoolStatus) -> Vec<Condition> {
    let accepted = accepted(&seen.plan.verdict);
    let available = available(seen.daemon_set, seen.failures);
    let ready = ready(&accepted, &available, status);
    [
        (READY, ready),
        (ACCEPTED, accepted),
        (PROXIES_AVAILABLE, available),
    ]
    .map(|(type_, undated)| dated(type_, undated, seen))
    .into()
}

fn accepted(verdict: &Verdict) -> Undated {
    match verdict {
        Verdict::Refused(refusal) => Undated {
            holds: false,
            reason: refusal.reason(),
            message: refusal.to_string(),
        },
        Verdict::Accepted {
            notes,
            refused_removals,
        } => {
            let reason = if refused_removals.is_empty() {
                "Accepted"
            } else {
                REFUSED_SHRINK
            };
            let sentences: Vec<_> = refused_removals.iter().chain(notes).map(String::as_str).collect();
            let message = if sentences.is_empty() {
                "the spec is in force".to_owned()
            } else {
                sentences.join("; ")
            };
            Undated {
                holds: true,
                reason,
                message,
            }
        }
    }
}

fn available(daemon_set: Option<&DaemonSet>, failures: &[String]) -> Undated {
    let Some(daemon_set) = daemon_set else {
        let message = "there is no DaemonSet: it is created once the spec is accepted".to_owned();
        return Undated {
            holds: false,
            reason: "NotCreated",
            message,
        };
    };
    let status = daemon_set.status.clone().unwrap_or_default();
    if status.observed_generation < daemon_set.metadata.generation {
        let message = "the DaemonSet controller has not seen the newest template yet".to_owned();
        return Undated {
            holds: false,
            reason: "Progressing",
            message,
        };
    }
    let desired = status.desired_number_scheduled;
    if desired == 0 {
        let message = "no node matches spec.proxy.nodeScope and spec.proxy.nodeSelector".to_owned();
        return Undated {
            holds: false,
            reason: "NoNodes",
            message,
        };
    }
    let available = status.number_available.unwrap_or_default();
    let updated = status.updated_number_scheduled.unwrap_or_default();
    let counts =
        format!("{available} of {desired} nodes have an available proxy, {updated} have the newest template");
    if available >= desired && updated >= desired {
        return Undated {
            holds: true,
            reason: "Available",
            message: counts,
        };
    }
    if failures.is_empty() {
        return Undated {
            holds: false,
            reason: "Progressing",
            message: counts,
        };
    }
    Undated {
        holds: false,
        reason: "Unavailable",
        message: format!("{counts}: {}", failures.join("; ")),
    }
}

fn ready(accepted: &Undated, available: &Undated, status: &ApiserverPoolStatus) -> Undated {
    if let Some(missing) = [accepted, available].into_iter().find(|undated| !undated.holds) {
        return Undated {
            holds: false,
            reason: missing.reason,
            message: missing.message.clone(),
        };
    }
    let is_up = status
        .members
        .iter()
        .any(|member| member.state == PoolMemberState::Active && member.health == MemberHealth::Up);
    if !is_up {
        let message = "no active member is Up as seen from the operator; status.members says why".to_owned();
        return Undated {
            holds: false,
            reason: "NoMemberUp",
            message,
        };
    }
    let message = format!(
        "{} members are up, {} proxies ready",
        status.members_summary, status.proxies_summary
    );
    Undated {
        holds: true,
        reason: "Ready",
        message,
    }
}

/// The condition, with the time at which its status last changed.
fn dated(type_: &str, undated: Undated, seen: &Seen<'_>) -> Condition {
    let status = if undated.holds { "True" } else { "False" };
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
