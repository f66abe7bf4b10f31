//! What holds after every pass, whatever was edited and whatever has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;
use trivet_crds::pool::{DiscoveryPolicy, PoolMemberState};
use trivet_crds::wire::{self, Document, MemberState};
use trivet_operator::health::Answer;
use trivet_operator::plan::permission::ALLOW_SHRINK;
use trivet_operator::plan::{Facts, Verdict, sight};

use crate::hosts::{Host, PORT};
use crate::world::{Passed, World, template_of};

/// The types of the conditions that every pool has.
const CONDITIONS: [&str; 8] = [
    "Accepted",
    "CertificateMatches",
    "ConfigSynced",
    "MembersAvailable",
    "MembersDrained",
    "ProxiesAvailable",
    "Progressing",
    "Ready",
];

/// What the API server allows, and what people can read.
const LONGEST_MESSAGE: usize = 32 * 1024;

/// Checks a pass. `is_edited`: the spec or a permission has changed since the last pass.
pub(crate) fn hold(world: &World, passed: &Passed, is_edited: bool) {
    let before = passed.facts.current.document.as_ref();
    let after = world.document();
    document_is_good(before, after.as_ref());
    if let Some(after) = &after {
        a_healthy_member_is_left(world, passed, after);
        no_disabled_apiserver_is_a_further_endpoint(world, passed, after);
    }
    if let (Some(before), Some(after)) = (before, &after) {
        if !matches!(passed.plan.verdict, Verdict::Accepted { .. }) {
            what_is_not_obeyed_takes_nothing_away(world, passed, before, after);
        } else if !is_edited && was_obeyed(world, passed) {
            what_answers_stays(world, passed, before, after);
        }
    }
    status_is_true_to_the_conventions(world, passed);
    nodes_depend_on_no_owner(world);
}

/// A document has members, is one that proxies take, and has a higher revision if and only if it is another one.
fn document_is_good(before: Option<&Document>, after: Option<&Document>) {
    let Some(after) = after else {
        assert!(before.is_none(), "the document is lost: {before:?}");
        return;
    };
    assert!(!after.members.is_empty());
    let Some(before) = before else { return };
    if after == before {
        return;
    }
    assert!(after.revision > before.revision, "{before:?}, then {after:?}");
    assert!(!after.same_content(before), "a revision for nothing: {after:?}");
}

fn is_up(member: &wire::Member, facts: &Facts) -> bool {
    member.state == MemberState::Active && facts.healths.is_up(&member.addresses, member.port)
}

/// An edit leaves a member that is ready, as far as the operator and most nodes see, unless its owner permits otherwise.
fn a_healthy_member_is_left(world: &World, passed: &Passed, after: &Document) {
    let facts = &passed.facts;
    let was_there = facts.current.members.iter().any(|member| is_up(member, facts));
    let is_left = after.members.iter().any(|member| is_up(member, facts));
    let is_permitted = world.pool.annotations().contains_key(ALLOW_SHRINK);
    assert!(
        !was_there || is_left || is_permitted || sight::is_blind(facts),
        "no healthy member is left: {:?}, then {:?}, by {:?}",
        facts.current.members,
        after.members,
        passed.plan.verdict,
    );
}

/// Proxies are told of no further endpoint that is an apiserver which the spec in force disables by its node or its address.
fn no_disabled_apiserver_is_a_further_endpoint(world: &World, passed: &Passed, after: &Document) {
    let is_obeyed = matches!(passed.plan.verdict, Verdict::Accepted { .. });
    if !is_obeyed || passed.facts.endpoints.is_none() {
        return;
    }
    let disabled = |host: &Host| {
        let entries = world.pool.spec.members.iter();
        let mut entries = entries.filter(|entry| entry.state == PoolMemberState::Disabled);
        entries.any(|entry| {
            let has = |ip: &IpAddr| entry.addresses.contains(&ip.to_string());
            entry.addresses.is_empty() && entry.name == host.name() || host.addresses().iter().any(has)
        })
    };
    let is_member = |host: &Host| {
        let mut members = after.members.iter();
        members.any(|member| host.addresses().iter().any(|ip| member.addresses.contains(ip)))
    };
    for host in world
        .hosts
        .iter()
        .filter(|host| disabled(host) && !is_member(host))
    {
        let told = after.further_endpoints.iter();
        let told: Vec<_> = told
            .filter(|socket| host.addresses().contains(&socket.ip()))
            .collect();
        assert!(
            told.is_empty(),
            "{} is disabled and told: {told:?}, by {:?}",
            host.name(),
            world.pool.spec.members
        );
    }
}

/// A spec that is rejected, or whose management is paused, keeps what is in force. While it is rejected, members and
/// addresses are added. A rollout that has begun before goes on, and no template comes that has never been there.
fn what_is_not_obeyed_takes_nothing_away(
    world: &World,
    passed: &Passed,
    before: &Document,
    after: &Document,
) {
    let unchanged = |document: &Document| Document {
        members: Vec::new(),
        rollout: wire::RolloutTarget::default(),
        revision: 0,
        hash: String::new(),
        ..document.clone()
    };
    assert_eq!(unchanged(before), unchanged(after));
    let is_paused = matches!(passed.plan.verdict, Verdict::Paused { .. });
    for old in &before.members {
        let new = after.members.iter().find(|new| new.name == old.name);
        let kept = new.is_some_and(|new| {
            let with_first = wire::Member {
                addresses: old.addresses.clone(),
                ..new.clone()
            };
            new.addresses.starts_with(&old.addresses) && with_first == *old
        });
        assert!(kept, "{old:?} became {new:?}");
    }
    assert!(!is_paused || before.members == after.members, "{after:?}");
    let (old, new) = (&passed.before.daemon_set, &world.daemon_set);
    assert_eq!(old.is_some(), new.is_some());
    if let Some(new) = new {
        assert!(
            passed.before.templates.contains(&template_of(new)),
            "a new template: {new:?}"
        );
    }
    assert_eq!(shape(passed.before.writer.as_ref()), shape(world.writer.as_ref()));
}

fn shape(set: Option<&DaemonSet>) -> Option<DaemonSet> {
    set.map(|set| DaemonSet {
        status: None,
        ..set.clone()
    })
}

/// Whether the spec as it is was already obeyed before this pass: one that was rejected may be obeyed later, as an edit is.
fn was_obeyed(world: &World, passed: &Passed) -> bool {
    let mut conditions = passed.before.status.iter().flat_map(|status| &status.conditions);
    let accepted = conditions.find(|condition| condition.type_ == "Accepted");
    accepted.is_some_and(|accepted| {
        let is_of_this = accepted.observed_generation == world.pool.metadata.generation;
        is_of_this && accepted.status == "True" && accepted.reason != "Paused"
    })
}

/// Without an edit, and a permission that may be open, no master that answers is lost, whatever nodes, names and endpoints say.
fn what_answers_stays(world: &World, passed: &Passed, before: &Document, after: &Document) {
    let has = |document: &Document, host: &Host| {
        let mut members = document.members.iter().filter(|member| member.port == PORT);
        members.any(|member| {
            member
                .addresses
                .iter()
                .any(|ip| host.answer_at(*ip).is_some_and(Answer::is_verified))
        })
    };
    // An entry that disables a member may come to mean another one when nodes and names change.
    let mut entries = world.pool.spec.members.iter();
    let is_disabled = entries.any(|entry| entry.state == PoolMemberState::Disabled);
    // An open permission switches the guard off for the next removal.
    if is_disabled || world.is_blind || world.pool.annotations().contains_key(ALLOW_SHRINK) {
        return;
    }
    for host in world
        .hosts
        .iter()
        .filter(|host| host.answer.is_verified() && has(before, host))
    {
        assert!(
            has(after, host),
            "{} answers and is lost: {:?}, then {:?}, by {:?} and {:?}",
            host.name(),
            before.members,
            after.members,
            passed.facts.discovered,
            world.pool.spec.members,
        );
    }
}

/// Every condition is there once, speaks of this generation, has a reason of one word and a message that fits, and changes its
/// time with its status alone. The whole is what the CRD declares.
fn status_is_true_to_the_conventions(world: &World, passed: &Passed) {
    let status = world.pool.status.as_ref().unwrap();
    let found = world
        .api
        .violations_in_status(&serde_json::to_value(status).unwrap());
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(status.observed_generation, world.pool.metadata.generation);
    let told: BTreeSet<_> = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    let mut expected = BTreeSet::from(CONDITIONS);
    // Only pools with names have it.
    expected.extend(world.publishes().then_some("DNSPublished"));
    assert_eq!(told, expected);
    assert_eq!(status.conditions.len(), expected.len());
    let before = passed.before.status.iter().flat_map(|status| &status.conditions);
    let before: BTreeMap<_, _> = before
        .map(|condition| (condition.type_.as_str(), condition))
        .collect();
    for condition in &status.conditions {
        let type_ = condition.type_.as_str();
        assert_eq!(
            condition.observed_generation, world.pool.metadata.generation,
            "{type_}"
        );
        assert!(
            ["True", "False", "Unknown"].contains(&condition.status.as_str()),
            "{condition:?}"
        );
        let is_word = condition
            .reason
            .starts_with(|first: char| first.is_ascii_uppercase())
            && condition
                .reason
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric());
        assert!(is_word, "{condition:?}");
        let is_readable = !condition.message.is_empty() && condition.message.len() <= LONGEST_MESSAGE;
        assert!(is_readable, "{condition:?}");
        if let Some(old) = before.get(type_) {
            let is_same_time = old.last_transition_time == condition.last_transition_time;
            assert!(
                is_same_time || old.status != condition.status,
                "{old:?}, then {condition:?}"
            );
        }
    }
    let accepted = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Accepted")
        .unwrap();
    let is_rejected = matches!(passed.plan.verdict, Verdict::Rejected { .. });
    assert_eq!(accepted.status == "False", is_rejected, "{accepted:?}");
    let ways_out = [
        "spec.",
        "discovery.nodeSelector",
        "trivet.dev/",
        "give this pool another port",
    ];
    let has_way_out = ways_out.iter().any(|way_out| accepted.message.contains(way_out));
    assert!(!is_rejected || has_way_out, "{accepted:?}");
    let document = world.document();
    let revision = document.map(|document| i64::try_from(document.revision).unwrap());
    assert_eq!(status.config_revision, revision);
}

fn nodes_depend_on_no_owner(world: &World) {
    let sets = [&world.daemon_set, &world.writer].into_iter().flatten();
    let all = sets
        .map(|set| &set.metadata)
        .chain(world.map.iter().map(|map| &map.metadata));
    for metadata in all {
        assert!(metadata.owner_references.is_none() && metadata.finalizers.is_none());
    }
}

/// Where discovery alone decides and all masters answer at all their addresses, a member is what its node says: its name, its
/// zone, and its addresses of both families in the node's order.
pub(crate) fn discovered_members_are_their_nodes(world: &World, passed: &Passed) {
    let spec = &world.pool.spec;
    let is_plain = spec.members.is_empty()
        && spec.discovery.policy == DiscoveryPolicy::Nodes
        && spec.discovery.port == PORT
        && matches!(passed.plan.verdict, Verdict::Accepted { .. })
        && world.are_nodes_read
        && !world.is_blind;
    let Some(document) = world.document().filter(|_| is_plain) else {
        return;
    };
    let labels = |host: &&Host| {
        let node = host.node();
        let selector = &spec.discovery.node_selector;
        let is_selected = selector
            .iter()
            .all(|(key, value)| node.labels().get(key) == Some(value));
        host.has_node
            && if selector.is_empty() {
                host.is_master
            } else {
                is_selected
            }
    };
    for host in world.hosts.iter().filter(labels) {
        let reported = host.reported();
        let is_true = !reported.is_empty() && reported.iter().all(|ip| host.addresses().contains(ip));
        if !is_true || host.answer != Answer::Ready || host.deaf != [false; 3] {
            continue;
        }
        let member = document.members.iter().find(|member| member.name == host.name());
        let Some(member) = member else {
            panic!("{} is no member: {:?}", host.name(), document.members);
        };
        assert_eq!(
            (member.zone.as_str(), &member.addresses),
            (host.zone, &reported),
            "{}",
            host.name()
        );
    }
}
