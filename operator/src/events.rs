//! Events about pools. Pools are cluster-scoped, so these land in namespace `default`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus, MemberHealth, MemberStatus};

use crate::context::Context;
use crate::logging::chain;
use crate::plan::shrink::REFUSED_SHRINK;
use crate::plan::{Plan, Verdict};

/// Something to tell about a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether someone may need to act.
    pub is_warning: bool,
    /// One fixed word.
    pub reason: &'static str,
    /// The member it is about, or nothing.
    pub member: String,
    /// The sentence.
    pub note: String,
}

/// What has happened between two passes. `told` are the refusals that have been told already. Pure.
pub fn news(
    plan: &Plan,
    before: Option<&ApiserverPoolStatus>,
    after: &ApiserverPoolStatus,
    told: &[String],
) -> Vec<News> {
    let mut news = Vec::new();
    for name in &plan.changes.added {
        let note = format!("{name} is a member from revision {} on", plan.revision);
        news.push(News {
            is_warning: false,
            reason: "MemberAdded",
            member: name.clone(),
            note,
        });
    }
    for name in &plan.changes.removed {
        let note = format!("{name} is no member from revision {} on", plan.revision);
        news.push(News {
            is_warning: false,
            reason: "MemberRemoved",
            member: name.clone(),
            note,
        });
    }
    news.extend(after.members.iter().filter_map(|member| turn(member, before)));
    for (reason, note) in refusals(plan)
        .into_iter()
        .filter(|(_, note)| !told.contains(note))
    {
        news.push(News {
            is_warning: true,
            reason,
            member: String::new(),
            note,
        });
    }
    news
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

/// A member's turn for the worse or the better.
fn turn(member: &MemberStatus, before: Option<&ApiserverPoolStatus>) -> Option<News> {
    let known = before
        .iter()
        .flat_map(|status| &status.members)
        .find(|old| old.name == member.name);
    let was_up = known.map(|old| old.health == MemberHealth::Up);
    let news = |is_warning, reason, note| {
        Some(News {
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
            news(true, "MemberUnhealthy", note)
        }
        (Some(false), MemberHealth::Up) => news(
            false,
            "MemberRecovered",
            format!("{} is Up as seen from the operator", member.name),
        ),
        (Some(_) | None, MemberHealth::Up | MemberHealth::Unknown)
        | (Some(false), MemberHealth::Unready | MemberHealth::Down) => None,
    }
}

/// Publishes `news`. An event that is lost is a pity and no reason to stop.
pub async fn publish(ctx: &Context, pool: &ApiserverPool, news: Vec<News>) {
    let regarding = pool.object_ref(&());
    for News {
        is_warning,
        reason,
        member,
        note,
    } in news
    {
        if is_warning {
            tracing::warn!(
                pool = pool.metadata.name,
                reason,
                note,
                "warning to the pool's owner"
            );
        } else {
            tracing::info!(pool = pool.metadata.name, reason, note, "news of the pool");
        }
        // The recorder takes events that differ in their note alone for one: a member tells them apart.
        let secondary = (!member.is_empty()).then(|| ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(member),
            ..ObjectReference::default()
        });
        let event = Event {
            type_: if is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(note.chars().take(1024).collect()),
            action: "Reconcile".to_owned(),
            secondary,
        };
        if let Err(error) = ctx.recorder.publish(&event, &regarding).await {
            tracing::warn!(
                pool = pool.metadata.name,
                reason,
                error = chain(&error),
                "event is lost"
            );
        }
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

    fn quiet() -> Plan {
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

    fn reasons(news: &[News]) -> Vec<&str> {
        news.iter().map(|news| news.reason).collect()
    }

    #[test]
    fn members_that_come_and_go_are_told_by_name() {
        let changes = Changes {
            added: vec!["cp4".to_owned()],
            removed: vec!["cp1".to_owned()],
        };
        let accepted = Verdict::Accepted {
            notes: Vec::new(),
            refused_removals: Vec::new(),
        };
        let news = news(
            &plan(accepted, changes),
            None,
            &ApiserverPoolStatus::default(),
            &[],
        );
        assert_eq!(reasons(&news), ["MemberAdded", "MemberRemoved"]);
        assert_eq!((news[0].member.as_str(), news[1].member.as_str()), ("cp4", "cp1"));
    }

    #[test]
    fn only_a_turn_in_a_member_s_health_is_news() {
        let told = |before: &str, after: &str| {
            let news = news(&quiet(), Some(&status(before)), &status(after), &[]);
            reasons(&news).first().map(ToString::to_string)
        };
        assert_eq!(told("Up", "Down").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(told("Up", "Unready").as_deref(), Some("MemberUnhealthy"));
        assert_eq!(told("Unready", "Down"), None);
        assert_eq!(told("Down", "Up").as_deref(), Some("MemberRecovered"));
        assert_eq!(told("Up", "Up"), None);
    }

    #[test]
    fn a_refusal_is_told_once() {
        let refusal = Refusal::NoMembers { notes: Vec::new() };
        let note = refusal.to_string();
        let plan = plan(Verdict::Refused(refusal), Changes::default());
        let status = ApiserverPoolStatus::default();
        assert_eq!(reasons(&news(&plan, None, &status, &[])), ["NoMembers"]);
        assert!(news(&plan, None, &status, &[note]).is_empty());
    }
}
