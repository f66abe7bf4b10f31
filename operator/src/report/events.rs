//! Which events a pass has to publish. Pure.

use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, MemberStatus};

use crate::api::events::Notice;
use crate::plan::shrink::REFUSED_SHRINK;
use crate::plan::{Plan, Verdict};

/// What changed from the status `before` to the status `after`, and every refusal that is not in `reported` yet.
pub fn notices(
    plan: &Plan,
    before: Option<&ApiserverPoolStatus>,
    after: &ApiserverPoolStatus,
    reported: &[String],
) -> Vec<Notice> {
    let mut notices = Vec::new();
    for name in &plan.changes.added {
        let note = format!("{name} is a member since revision {}", plan.revision);
        notices.push(Notice {
            is_warning: false,
            reason: "MemberAdded",
            member: name.clone(),
            note,
        });
    }
    for name in &plan.changes.removed {
        let note = format!("{name} is no longer a member since revision {}", plan.revision);
        notices.push(Notice {
            is_warning: false,
            reason: "MemberRemoved",
            member: name.clone(),
            note,
        });
    }
    notices.extend(
        after
            .members
            .iter()
            .filter_map(|member| health_change(member, before)),
    );
    for (reason, note) in refusals(plan)
        .into_iter()
        .filter(|(_, note)| !reported.contains(note))
    {
        notices.push(Notice {
            is_warning: true,
            reason,
            member: String::new(),
            note,
        });
    }
    notices
}

/// Everything that the plan refuses, with its reason word.
pub fn refusals(plan: &Plan) -> Vec<(&'static str, String)> {
    match &plan.verdict {
        Verdict::Refused(refusal) => vec![(refusal.reason(), refusal.to_string())],
        Verdict::Accepted { refused_removals, .. } => refused_removals
            .iter()
            .map(|note| (REFUSED_SHRINK, note.clone()))
            .collect(),
    }
}

/// Tells that a member is no longer Up, or is Up again.
fn health_change(member: &MemberStatus, before: Option<&ApiserverPoolStatus>) -> Option<Notice> {
    let known = before
        .iter()
        .flat_map(|status| &status.members)
        .find(|old| old.name == member.name);
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
        (Some(true) | None, MemberHealth::Unready | MemberHealth::Down) => {
            let note = format!(
                "{} is {:?} as seen from the operator: {}",
                member.name, member.health, member.message
            );
            notice(true, "MemberUnhealthy", note)
        }
        (Some(false), MemberHealth::Up) => notice(
            false,
            "MemberRecovered",
            format!("{} is Up as seen from the operator", member.name),
        ),
        (Some(_) | None, MemberHealth::Up | MemberHealth::Unknown)
        | (Some(false), MemberHealth::Unready | MemberHealth::Down) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Changes, Memory, Refusal};

    fn plan(verdict: Verdict, changes: Changes) -> Plan {
        Plan {
            verdict,
            rollout: None,
            members: Vec::new(),
            changes,
            revision: 4,
            endpoints: Vec::new(),
            memory: Memory::default(),
            next_look: None,
        }
    }

    fn unchanged() -> Plan {
        plan(
            Verdict::Accepted {
                notes: Vec::new(),
                refused_removals: Vec::new(),
            },
            Changes::default(),
        )
    }

    fn status(health: &str) -> ApiserverPoolStatus {
        let member = json!({ "name": "cp1", "addresses": ["10.0.0.1"], "port": 6443, "source": "Node",
                             "state": "Active", "health": health });
        serde_json::from_value(json!({ "members": [member] })).unwrap()
    }

    fn reasons(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| notice.reason).collect()
    }

    #[test]
    fn members_that_come_and_go_are_named() {
        let changes = Changes {
            added: vec!["cp4".to_owned()],
            removed: vec!["cp1".to_owned()],
        };
        let accepted = Verdict::Accepted {
            notes: Vec::new(),
            refused_removals: Vec::new(),
        };
        let notices = notices(
            &plan(accepted, changes),
            None,
            &ApiserverPoolStatus::default(),
            &[],
        );
        assert_eq!(reasons(&notices), ["MemberAdded", "MemberRemoved"]);
        assert_eq!(
            (notices[0].member.as_str(), notices[1].member.as_str()),
            ("cp4", "cp1")
        );
    }

    #[test]
    fn only_a_change_of_health_is_an_event() {
        let reported = |before: &str, after: &str| {
            let notices = notices(&unchanged(), Some(&status(before)), &status(after), &[]);
            reasons(&notices).first().map(ToString::to_string)
        };
        assert_eq!(reported("Up", "Down").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(reported("Up", "Unready").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(reported("Unready", "Down"), None);
        assert_eq!(reported("Down", "Up").as_deref(), Some("MemberRecovered"));
        assert_eq!(reported("Up", "Up"), None);
    }

    #[test]
    fn a_refusal_gets_one_event() {
        let refusal = Refusal::NoMembers { notes: Vec::new() };
        let note = refusal.to_string();
        let plan = plan(Verdict::Refused(refusal), Changes::default());
        let status = ApiserverPoolStatus::default();
        assert_eq!(reasons(&notices(&plan, None, &status, &[])), ["NoMembers"]);
        assert!(notices(&plan, None, &status, &[note]).is_empty());
    }
}
