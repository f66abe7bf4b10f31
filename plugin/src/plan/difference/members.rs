//! What happens to the members. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use trivet_crds::pool::PoolMemberState;
use trivet_crds::wire::MemberState;
use trivet_operator::plan::{Facts, Plan};

/// What happens to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plan) struct MemberChange {
    pub(in crate::plan) name: String,
    pub(in crate::plan) change: Change,
    pub(in crate::plan) from: String,
    pub(in crate::plan) to: String,
}

/// What happens to a member, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::plan) enum Change {
    Added,
    Removed,
    Drained,
    Disabled,
    Activated,
    Moved,
}

/// A member in force, or as it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    state: PoolMemberState,
    addresses: Vec<String>,
}

/// What the plan does to the members in force, by name.
pub(super) fn changes(facts: &Facts, plan: &Plan) -> Vec<MemberChange> {
    let before = in_force(facts);
    let after: BTreeMap<_, _> = plan
        .members
        .iter()
        .map(|member| {
            let place = Place {
                state: member.state,
                addresses: member.sockets().map(|socket| socket.to_string()).collect(),
            };
            (member.name.as_str(), place)
        })
        .collect();
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let changes = names.into_iter().filter_map(|name| {
        let (old, new) = (before.get(name), after.get(name));
        Some(MemberChange {
            name: name.to_owned(),
            change: change(old, new)?,
            from: old.map(Place::told).unwrap_or_default(),
            to: new.map(Place::told).unwrap_or_default(),
        })
    });
    changes.collect()
}

fn in_force(facts: &Facts) -> BTreeMap<&str, Place> {
    let members = facts.current.members.iter().map(|member| {
        let place = Place {
            state: match member.state {
                MemberState::Active => PoolMemberState::Active,
                MemberState::Draining => PoolMemberState::Draining,
            },
            addresses: member.sockets().map(|socket| socket.to_string()).collect(),
        };
        (member.name.as_str(), place)
    });
    let document = facts.current.document.iter();
    let disabled = document
        .flat_map(|document| &document.disabled_members)
        .map(|member| {
            let place = Place {
                state: PoolMemberState::Disabled,
                addresses: member.sockets.iter().map(ToString::to_string).collect(),
            };
            (member.name.as_str(), place)
        });
    members.chain(disabled).collect()
}

fn change(old: Option<&Place>, new: Option<&Place>) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        (Some(old), Some(new)) if old.state == new.state => {
            (old.addresses != new.addresses).then_some(Change::Moved)
        }
        (Some(_), Some(new)) => Some(match new.state {
            PoolMemberState::Active => Change::Activated,
            PoolMemberState::Draining => Change::Drained,
            PoolMemberState::Disabled => Change::Disabled,
        }),
    }
}

impl Place {
    fn told(&self) -> String {
        format!("{:?} at {}", self.state, self.addresses.join(" "))
    }
}
