//! What the ConfigMap tells of a spec is what the spec asks for.

use std::net::IpAddr;

use proptest::prelude::*;
use trivet_crds::pool::ApiserverPool;

use super::*;
use crate::plan::facts::Discovered;
use crate::plan::masters::Master;
use crate::plan::plan;
use crate::plan::tests::facts;

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn current(pool: &ApiserverPool, facts: &Facts) -> Current {
    let rollout = plan(pool, facts).unwrap().rollout.unwrap();
    Current {
        members: rollout.document.members.clone(),
        document: Some(rollout.document),
        marks: rollout.marks,
        ..Current::default()
    }
}

fn pool(spec: ApiserverPoolSpec) -> ApiserverPool {
    ApiserverPool::new("default", spec)
}

fn three_masters() -> Facts {
    let master = |number| Master {
        name: format!("cp{number}"),
        addresses: vec![ip(number)],
        ..Master::default()
    };
    Facts {
        discovered: Discovered::Masters((1..=3).map(master).collect()),
        ..facts()
    }
}

#[test]
fn the_discovery_is_that_of_the_accepted_spec() {
    let discovery = Discovery {
        policy: DiscoveryPolicy::EndpointSlices,
        port: 6444,
        ..Discovery::default()
    };
    let spec = ApiserverPoolSpec {
        discovery: discovery.clone(),
        ..ApiserverPoolSpec::default()
    };
    assert_eq!(
        super::discovery(&current(&pool(spec), &three_masters())),
        discovery
    );
    assert_eq!(
        super::discovery(&Current::default()).policy,
        DiscoveryPolicy::None
    );
}

#[test]
fn a_server_name_or_authorities_that_are_not_those_in_force_are_told_from_them() {
    let current = current(&pool(ApiserverPoolSpec::default()), &three_masters());
    let in_force = current.document.as_ref().unwrap().tls.clone();
    assert_eq!(other_tls(&in_force, &current), None);
    let other_name = Tls {
        server_name: "api.example.com".to_owned(),
        ..in_force.clone()
    };
    let other_authorities = Tls {
        ca_bundle: "another PEM".to_owned(),
        ..in_force.clone()
    };
    for asked in [other_name, other_authorities] {
        assert_eq!(other_tls(&asked, &current), Some(&in_force));
        assert_eq!(other_tls(&asked, &Current::default()), None);
    }
}

#[test]
fn without_a_mark_the_members_tell_the_discovery() {
    let guessed = |change: fn(&mut Document, &mut Marks)| {
        let mut current = current(&pool(ApiserverPoolSpec::default()), &three_masters());
        current.marks.discovery = None;
        change(current.document.as_mut().unwrap(), &mut current.marks);
        let discovery = discovery(&current);
        (discovery.policy, discovery.port)
    };
    assert_eq!(guessed(|_, _| {}), (DiscoveryPolicy::Nodes, 6443));
    let other_port = guessed(|document, _| document.members[0].port = 6444);
    assert_eq!(other_port, (DiscoveryPolicy::Nodes, 6444));
    let endpoints = guessed(|document, _| {
        for member in &mut document.members {
            member.name = member.addresses[0].to_string();
        }
    });
    assert_eq!(endpoints.0, DiscoveryPolicy::EndpointSlices);
    let listed = guessed(|document, marks| {
        for member in &mut document.members {
            member.node_name.clear();
            marks.explicit.insert(member.name.clone());
        }
    });
    assert_eq!(listed.0, DiscoveryPolicy::None);
}

fn any_entry() -> impl Strategy<Value = PoolMember> {
    let state = prop_oneof![
        3 => Just(PoolMemberState::Active),
        1 => Just(PoolMemberState::Draining),
        1 => Just(PoolMemberState::Disabled),
    ];
    let numbers = proptest::collection::btree_set(1..=6u8, 0..2);
    (1..=5u8, numbers, state).prop_map(|(name, numbers, state)| PoolMember {
        name: format!("cp{name}"),
        addresses: numbers.into_iter().map(|number| ip(number).to_string()).collect(),
        port: 6443,
        state,
        zone: String::new(),
    })
}

proptest! {
    /// As long as discovery says the same, the last good spec asks for what is in force.
    #[test]
    fn what_is_told_of_a_spec_asks_for_what_is_in_force(entries in proptest::collection::vec(any_entry(), 0..4)) {
        let mut spec = ApiserverPoolSpec::default();
        for entry in entries {
            spec.members.retain(|other| other.name != entry.name);
            spec.members.push(entry);
        }
        let mut facts = three_masters();
        let Some(_) = plan(&pool(spec.clone()), &facts).unwrap().rollout else { return Ok(()) };
        facts.current = current(&pool(spec), &facts);
        facts.discovered_by_last_good = facts.discovered.clone();
        let used = |member: &members::Member| member.state != PoolMemberState::Disabled;
        let mut asked: Vec<_> = members(&facts).into_iter().filter(used).map(|member| (member.name, member.addresses)).collect();
        asked.sort();
        let in_force = facts.current.members.iter();
        let in_force: Vec<_> = in_force.map(|member| (member.name.clone(), member.addresses.clone())).collect();
        prop_assert_eq!(asked, in_force);
    }
}
