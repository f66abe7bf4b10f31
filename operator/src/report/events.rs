//! Which events a pass has to publish. Pure.

use std::collections::BTreeSet;

use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, MemberStatus};

use super::status::certificates::{EXPIRED, EXPIRES_SOON, NOT_YET_VALID};
use super::status::condition;
use super::status::conditions::{CERTIFICATE_MATCHES, DNS_PUBLISHED};
use super::status::progress::failed;
use crate::api::events::Notice;
use crate::apply;
use crate::plan::shrink::REFUSED_SHRINK;
use crate::plan::wave::ROLLOUT_HALTED;
use crate::plan::{Plan, Verdict};

/// The reasons of CertificateMatches that have an event, and its reason.
const CERTIFICATE_REASONS: [(&str, &str); 3] = [
    (EXPIRED, "CertificateExpired"),
    (NOT_YET_VALID, "CertificateNotYetValid"),
    (EXPIRES_SOON, "CertificateExpiresSoon"),
];

/// A warning: its reason word and its sentence.
pub type Warning = (&'static str, String);

/// The members that were added or removed since the last such events; `told` are the names in force at that time.
pub fn membership_changes(
    told: &BTreeSet<String>,
    in_force: &BTreeSet<String>,
    revision: u64,
) -> Vec<Notice> {
    let notice = |reason, verb, name: &String| Notice {
        is_warning: false,
        reason,
        member: name.clone(),
        note: format!("{name} {verb} a member since revision {revision}"),
    };
    let added = in_force.difference(told);
    let removed = told.difference(in_force);
    added
        .map(|name| notice("MemberAdded", "is", name))
        .chain(removed.map(|name| notice("MemberRemoved", "is no longer", name)))
        .collect()
}

/// The members that stopped being Up, or are Up again, from one status to the next. `is_proven`: an apiserver of the cluster has
/// answered there.
pub fn health_changes(
    before: Option<&ApiserverPoolStatus>,
    after: &ApiserverPoolStatus,
    is_proven: impl Fn(&MemberStatus) -> bool,
) -> Vec<Notice> {
    let members = after.members.iter();
    members
        .filter_map(|member| health_change(member, before, is_proven(member)))
        .collect()
}

/// The event for a certificate that has begun to be a problem, or to become one soon.
pub fn certificate(before: Option<&ApiserverPoolStatus>, after: &ApiserverPoolStatus) -> Option<Notice> {
    let reason_in = |status| condition(status, CERTIFICATE_MATCHES).map(|found| found.reason.as_str());
    let reason = CERTIFICATE_REASONS
        .into_iter()
        .find(|(word, _)| reason_in(after) == Some(*word));
    let (word, reason) = reason?;
    (before.and_then(reason_in) != Some(word)).then(|| Notice {
        is_warning: true,
        reason,
        member: String::new(),
        note: condition(after, CERTIFICATE_MATCHES).map_or_else(String::new, |found| found.message.clone()),
    })
}

/// The event for names in DNS that are not published as the spec wants them any more, or are again.
pub fn dns_names(before: Option<&ApiserverPoolStatus>, after: &ApiserverPoolStatus) -> Option<Notice> {
    let reason_in = |status| {
        let found = condition(status, DNS_PUBLISHED)?;
        (found.status == "False").then_some(found.reason.as_str())
    };
    let was = before.and_then(reason_in);
    let now = condition(after, DNS_PUBLISHED)?;
    let is_warning = now.status == "False";
    let has_changed = if is_warning {
        was != Some(now.reason.as_str())
    } else {
        was.is_some() && now.status == "True"
    };
    has_changed.then(|| Notice {
        is_warning,
        reason: if is_warning {
            "DNSNotPublished"
        } else {
            DNS_PUBLISHED
        },
        member: String::new(),
        note: now.message.clone(),
    })
}

/// Everything that the plan refuses, what keeps the operator from following the cluster, and the object that the API server
/// refuses.
pub fn warnings(plan: &Plan, failure: Option<&apply::Error>) -> Vec<Warning> {
    let mut warnings = match &plan.verdict {
        Verdict::Rejected { rejection, .. } => vec![(rejection.reason(), rejection.to_string())],
        Verdict::Paused { .. } => Vec::new(),
        Verdict::Accepted { refused_removals, .. } => refused_removals
            .iter()
            .map(|note| (REFUSED_SHRINK, note.clone()))
            .collect(),
    };
    let hindrances = plan.hindrances.iter();
    warnings.extend(hindrances.map(|hindrance| (hindrance.reason, hindrance.note.clone())));
    warnings.extend(plan.waves.halt().map(|halt| (ROLLOUT_HALTED, failed(halt))));
    warnings.extend(failure.and_then(|failure| Some((failure.reason(), failure.refusal()?))));
    warnings
}

/// The event for a template that begins to be rolled out.
pub fn begins(plan: &Plan) -> Option<Notice> {
    let template = plan.begins.as_ref()?;
    Some(Notice {
        is_warning: false,
        reason: "RolloutStarted",
        member: String::new(),
        note: format!(
            "the template {template} of the proxies is rolled out: one node first, then the others"
        ),
    })
}

/// The event for a warning.
pub fn notice((reason, note): &Warning) -> Notice {
    Notice {
        is_warning: true,
        reason,
        member: String::new(),
        note: note.clone(),
    }
}

/// The warnings that have no event yet.
pub fn unreported<'a>(warnings: &'a [Warning], reported: &[String]) -> Vec<&'a Warning> {
    warnings
        .iter()
        .filter(|(_, note)| !reported.contains(note))
        .collect()
}

fn health_change(
    member: &MemberStatus,
    before: Option<&ApiserverPoolStatus>,
    is_proven: bool,
) -> Option<Notice> {
    let known = before
        .iter()
        .flat_map(|status| &status.members)
        .find(|old| old.name == member.name)
        // Nothing was known of it, or it was Disabled.
        .filter(|old| old.health != MemberHealth::Unknown);
    let was_up = known.map(|old| old.health == MemberHealth::Up);
    let notice = |is_warning, reason, note| {
        Some(Notice {
            is_warning,
            reason,
            member: member.name.clone(),
            note,
        })
    };
    match (was_up, member.health) {
        (None, MemberHealth::Unready | MemberHealth::Down) if !is_proven => {
            let note = format!(
                "no apiserver of the cluster has answered at {}, port {}, of the new member {}, and proxies use it only once one \
                 has: {}",
                member.addresses.join(", "),
                member.port,
                member.name,
                member.message
            );
            notice(true, "MemberUnproven", note)
        }
        (Some(true) | None, MemberHealth::Unready | MemberHealth::Down) => {
            let note = format!("{} is {:?}: {}", member.name, member.health, member.message);
            notice(true, "MemberUnhealthy", note)
        }
        (Some(false), MemberHealth::Up) => notice(false, "MemberRecovered", format!("{} is Up", member.name)),
        (Some(_) | None, MemberHealth::Up | MemberHealth::Unknown)
        | (Some(false), MemberHealth::Unready | MemberHealth::Down) => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{accepted, settled};
    use crate::plan::{Rejection, wave};

    fn status(health: &str) -> ApiserverPoolStatus {
        let member = json!({ "name": "cp1", "addresses": ["10.0.0.1"], "port": 6443, "source": "Node",
                             "state": "Active", "health": health });
        serde_json::from_value(json!({ "members": [member] })).unwrap()
    }

    fn reasons(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| notice.reason).collect()
    }

    #[test]
    fn a_name_in_dns_that_is_not_published_has_one_event_for_each_reason_and_one_at_its_end() {
        let published = |status: &str, reason: &str| -> ApiserverPoolStatus {
            let condition = json!({ "type": "DNSPublished", "status": status, "reason": reason, "message": reason,
                                    "lastTransitionTime": "2026-11-30T00:00:00Z" });
            serde_json::from_value(json!({ "conditions": [condition] })).unwrap()
        };
        let (good, taken, refused) = (
            published("True", "Published"),
            published("False", "NameTaken"),
            published("False", "ApplyFailed"),
        );
        let reason = |before: Option<&ApiserverPoolStatus>, after| {
            let notice = dns_names(before, after);
            notice.map(|notice| (notice.reason, notice.is_warning))
        };
        assert_eq!(reason(None, &good), None);
        assert_eq!(reason(Some(&good), &taken), Some(("DNSNotPublished", true)));
        assert_eq!(reason(Some(&taken), &taken), None);
        assert_eq!(reason(Some(&taken), &refused), Some(("DNSNotPublished", true)));
        assert_eq!(reason(Some(&refused), &good), Some(("DNSPublished", false)));
        assert_eq!(reason(Some(&good), &good), None);
        assert_eq!(
            reason(Some(&good), &status("Up")),
            None,
            "the spec asks for no name"
        );
    }

    #[test]
    fn members_that_come_and_go_are_named() {
        let names = |numbers: [u8; 3]| numbers.map(|number| format!("cp{number}")).into();
        let notices = membership_changes(&names([1, 2, 3]), &names([2, 3, 4]), 4);
        assert_eq!(reasons(&notices), ["MemberAdded", "MemberRemoved"]);
        assert_eq!(
            (notices[0].member.as_str(), notices[1].member.as_str()),
            ("cp4", "cp1")
        );
        assert_eq!(notices[1].note, "cp1 is no longer a member since revision 4");
    }

    #[test]
    fn only_a_change_of_health_is_an_event() {
        let reported = |before: &str, after: &str| {
            let notices = health_changes(Some(&status(before)), &status(after), |_| false);
            reasons(&notices).first().map(ToString::to_string)
        };
        assert_eq!(reported("Up", "Down").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(reported("Up", "Unready").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(reported("Unready", "Down"), None);
        assert_eq!(reported("Down", "Up").as_deref(), Some("MemberRecovered"));
        assert_eq!(reported("Up", "Up"), None);
    }

    #[test]
    fn a_new_member_that_has_never_answered_is_unproven_and_one_that_has_is_unhealthy() {
        for (is_proven, expected) in [(false, "MemberUnproven"), (true, "MemberUnhealthy")] {
            let notices = health_changes(None, &status("Down"), |_| is_proven);
            assert_eq!(reasons(&notices), [expected]);
            assert!(notices[0].note.contains("cp1"), "{notices:?}");
        }
        let notices = health_changes(None, &status("Unknown"), |_| false);
        assert!(notices.is_empty(), "it has not been probed yet");
    }

    #[test]
    fn a_certificate_that_becomes_a_problem_gets_one_event() {
        let with = |reason: &str| -> ApiserverPoolStatus {
            let condition = json!({
                "type": "CertificateMatches", "status": "False", "reason": reason, "message": "cp1 expires",
                "lastTransitionTime": "2026-11-29T00:00:00Z",
            });
            serde_json::from_value(json!({ "conditions": [condition] })).unwrap()
        };
        let event = |before: Option<&str>, after: &str| {
            let before = before.map(with);
            certificate(before.as_ref(), &with(after)).map(|notice| (notice.reason, notice.note))
        };
        let soon = Some(("CertificateExpiresSoon", "cp1 expires".to_owned()));
        assert_eq!(event(None, "ExpiresSoon"), soon);
        assert_eq!(event(Some("NamesMissing"), "ExpiresSoon"), soon);
        assert_eq!(event(Some("ExpiresSoon"), "ExpiresSoon"), None);
        assert_eq!(
            event(Some("ExpiresSoon"), "Expired").unwrap().0,
            "CertificateExpired"
        );
        assert_eq!(event(None, "NamesMissing"), None);
    }

    #[test]
    fn a_warning_gets_one_event() {
        let rejection = Rejection::NoMembers { notes: Vec::new() };
        let note = rejection.to_string();
        let verdict = Verdict::Rejected {
            rejection,
            notes: Vec::new(),
        };
        let warnings = warnings(&settled(verdict, Vec::new()), None);
        assert_eq!(unreported(&warnings, &[]), [&("NoMembers", note.clone())]);
        assert!(unreported(&warnings, &[note]).is_empty());
    }

    #[test]
    fn a_refused_object_gets_an_event_with_the_words_of_the_api_server() {
        let failure = apply::Error {
            kind: apply::Kind::DaemonSet,
            name: "trivet-default".to_owned(),
            source: kube::Error::Api(Status::failure("no", "Forbidden").with_code(403).boxed()),
        };
        let warnings = warnings(&settled(accepted(), Vec::new()), Some(&failure));
        let note = "the API server refuses DaemonSet trivet-default: no".to_owned();
        assert_eq!(warnings, [("ApplyFailed", note)]);
    }

    #[test]
    fn a_rollout_that_begins_and_one_that_fails_are_events() {
        let mut plan = settled(accepted(), Vec::new());
        assert_eq!(begins(&plan), None);
        plan.begins = Some("b".to_owned());
        assert_eq!(begins(&plan).unwrap().reason, "RolloutStarted");
        let halt = wave::Halt {
            template: "b".to_owned(),
            node: "w1".to_owned(),
            cause: "no".to_owned(),
        };
        plan.waves = wave::Phase::RollsBack(halt.clone());
        let while_it_goes_back = warnings(&plan, None);
        assert_eq!(while_it_goes_back[0].0, "RolloutHalted");
        assert!(while_it_goes_back[0].1.contains("node w1"));
        let is_rolled_back = true;
        plan.waves = wave::Phase::Halted { halt, is_rolled_back };
        assert_eq!(warnings(&plan, None), while_it_goes_back, "one event for both");
    }
}
