//! What is written, what is refused, and when a drain is done.

use trivet_crds::pool::{MemberHealth, PoolMember};
use trivet_crds::report::ReportedHealth;

use super::*;
use crate::doctor::tests::{facts, pool, with_condition};
use crate::read::Facts;

fn members(change: Change) -> Vec<PoolMember> {
    match change {
        Change::Members(members) => members,
        Change::None => panic!("nothing changes"),
    }
}

fn entry(name: &str, state: PoolMemberState, addresses: &[&str]) -> PoolMember {
    PoolMember {
        name: name.to_owned(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        port: 6443,
        state,
        zone: String::new(),
    }
}

#[test]
fn a_drain_of_a_discovered_member_adds_one_entry_and_its_undoing_removes_it() {
    let mut pool = pool();
    let before = vec![entry("extra", PoolMemberState::Active, &["10.0.0.9"])];
    pool.spec.members.clone_from(&before);
    let drained = members(with_state(&pool, "cp2", PoolMemberState::Draining).unwrap());
    assert_eq!(
        drained,
        [before[0].clone(), entry("cp2", PoolMemberState::Draining, &[])]
    );
    pool.spec.members = drained;
    assert_eq!(
        with_state(&pool, "cp2", PoolMemberState::Draining).unwrap(),
        Change::None
    );
    assert_eq!(
        members(with_state(&pool, "cp2", PoolMemberState::Active).unwrap()),
        before
    );
}

#[test]
fn an_entry_with_addresses_or_a_zone_stays_when_it_is_active_again() {
    let mut pool = pool();
    let mut zoned = entry("cp1", PoolMemberState::Disabled, &[]);
    zoned.zone = "a".to_owned();
    pool.spec.members = vec![entry("extra", PoolMemberState::Draining, &["10.0.0.9"]), zoned];
    for name in ["extra", "cp1"] {
        let members = members(with_state(&pool, name, PoolMemberState::Active).unwrap());
        let found = members.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!((members.len(), found.state), (2, PoolMemberState::Active));
    }
}

#[test]
fn an_unknown_member_is_refused_with_the_names_that_there_are() {
    let refusal = with_state(&pool(), "cp9", PoolMemberState::Draining).unwrap_err();
    assert!(refusal.is::<BadUsage>());
    assert_eq!(
        refusal.to_string(),
        "there is no member \"cp9\"; there are: cp1, cp2, cp3"
    );
}

#[test]
fn a_member_goes_only_while_another_one_is_up() {
    let mut pool = pool();
    safety::check(&pool, "cp1", &[]).unwrap();
    let status = pool.status.as_mut().unwrap();
    status.members[1].health = MemberHealth::Down;
    status.members[2].state = PoolMemberState::Draining;
    let refusal = safety::check(&pool, "cp1", &[]).unwrap_err().to_string();
    assert!(
        refusal.contains("no other active member is Up (cp2 is Down)"),
        "{refusal}"
    );
    pool.status
        .as_mut()
        .unwrap()
        .members
        .retain(|member| member.name != "cp2");
    let refusal = safety::check(&pool, "cp1", &[]).unwrap_err().to_string();
    assert!(refusal.contains("only active member"), "{refusal}");
}

#[test]
fn where_the_operator_cannot_judge_the_nodes_do() {
    let mut pool = pool();
    for member in &mut pool.status.as_mut().unwrap().members {
        member.health = MemberHealth::Unknown;
    }
    let mut reports = facts().reports.unwrap();
    safety::check(&pool, "cp1", &reports).unwrap();
    for report in &mut reports[..3] {
        report.content.members[1].health = ReportedHealth::Down;
        report.content.members[2].health = ReportedHealth::Down;
    }
    assert!(
        safety::check(&pool, "cp1", &reports).is_err(),
        "three of five nodes reach no other"
    );
    assert!(safety::check(&pool, "cp1", &[]).is_err(), "nobody knows");
}

/// The facts while cp1 drains.
fn draining() -> Facts {
    let mut facts = facts();
    let pool = &mut facts.pools.as_mut().unwrap()[0];
    pool.status.as_mut().unwrap().members[0].state = PoolMemberState::Draining;
    facts
}

fn no_connections(facts: &mut Facts) {
    for report in facts.reports.as_mut().unwrap() {
        report.content.members[0].connections = 0;
    }
}

fn told(facts: &Facts) -> Progress {
    progress(facts, "default", "cp1").unwrap()
}

#[test]
fn a_drain_is_done_when_every_node_reports_no_connection_at_the_revision() {
    let mut facts = draining();
    let progress = told(&facts);
    assert!(!progress.is_done);
    assert_eq!(
        progress.message,
        "10 connections left on 5 nodes (cp1 2, cp2 2, cp3 2, w1 2, w2 2)"
    );
    no_connections(&mut facts);
    let progress = told(&facts);
    assert!(
        progress.is_done && progress.message.contains("safe to switch off"),
        "{progress:?}"
    );
    facts.reports.as_mut().unwrap()[4].content.revision -= 1;
    let progress = told(&facts);
    assert!(!progress.is_done);
    assert_eq!(
        progress.message,
        "waiting for reports of revision 1795900000 from 1 node: w2"
    );
    facts.reports.as_mut().unwrap().pop();
    assert!(
        !told(&facts).is_done,
        "a node that does not report may have connections"
    );
}

#[test]
fn a_drain_is_not_done_before_the_operator_has_seen_it() {
    let mut facts = draining();
    no_connections(&mut facts);
    facts.pools.as_mut().unwrap()[0].metadata.generation = Some(4);
    assert_eq!(
        told(&facts).message,
        "waiting for the operator to see generation 4"
    );
    let mut facts = draining();
    no_connections(&mut facts);
    facts.pools.as_mut().unwrap()[0].status.as_mut().unwrap().members[0].state = PoolMemberState::Active;
    assert_eq!(told(&facts).message, "waiting for the operator to drain cp1");
    facts.daemon_sets = None;
    facts.pools.as_mut().unwrap()[0].status.as_mut().unwrap().members[0].state = PoolMemberState::Draining;
    assert!(!told(&facts).is_done, "which nodes must report is not known");
}

#[test]
fn the_condition_decides_where_there_is_one() {
    let mut facts = draining();
    no_connections(&mut facts);
    let members = facts.pools.as_ref().unwrap()[0]
        .status
        .as_ref()
        .unwrap()
        .members
        .clone();
    for (status, is_done) in [("False", false), ("Unknown", false), ("True", true)] {
        let mut pool = with_condition("MembersDrained", status, "Reason", "the operator's words");
        pool.status.as_mut().unwrap().members.clone_from(&members);
        facts.pools = Some(vec![pool]);
        let progress = told(&facts);
        assert_eq!(
            (progress.is_done, progress.message.as_str()),
            (is_done, "the operator's words"),
            "{status}"
        );
    }
    // One of an earlier generation says nothing.
    let drained = facts.pools.as_mut().unwrap()[0]
        .status
        .as_mut()
        .unwrap()
        .conditions
        .last_mut()
        .unwrap();
    drained.observed_generation = Some(2);
    drained.message = "old".to_owned();
    assert_ne!(told(&facts).message, "old");
}

#[test]
fn a_refused_spec_is_told_while_it_waits() {
    let mut facts = draining();
    let members = facts.pools.as_ref().unwrap()[0]
        .status
        .as_ref()
        .unwrap()
        .members
        .clone();
    let mut pool = with_condition("Accepted", "False", "NoHealthyMember", "the way out");
    pool.status.as_mut().unwrap().members = members;
    facts.pools = Some(vec![pool]);
    no_connections(&mut facts);
    let progress = told(&facts);
    assert!(
        !progress.is_done && progress.message.contains("NoHealthyMember: the way out"),
        "{progress:?}"
    );
}

#[test]
fn what_was_not_read_is_not_told() {
    let mut facts = draining();
    facts.reports = None;
    assert_eq!(progress(&facts, "default", "cp1"), None);
    assert_eq!(progress(&draining(), "gone", "cp1"), None);
}
