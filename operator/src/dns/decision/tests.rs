use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PLACE: Place<'static> = Place {
    pool: "default",
    namespace: "trivet-system",
};

fn candidate(number: u8, is_up: Option<bool>) -> Candidate {
    Candidate {
        socket: SocketAddr::from(([10, 0, 0, number], 6443)),
        member: format!("cp{number}"),
        node_name: format!("cp{number}"),
        zone: String::new(),
        drains: false,
        is_up,
    }
}

fn draining(number: u8, is_up: Option<bool>) -> Candidate {
    Candidate {
        drains: true,
        ..candidate(number, is_up)
    }
}

fn both() -> Wish {
    Wish {
        service: Some("default-apiservers".to_owned()),
        external: Some(Records {
            hostname: "api.example.com".to_owned(),
            ttl_seconds: 30,
        }),
    }
}

fn facts(candidates: Vec<Candidate>, wish: Option<Wish>) -> Facts {
    Facts { candidates, wish }
}

/// A cluster that knows DNSEndpoints and has none.
fn empty() -> Live {
    Live {
        records: Some(Vec::new()),
        ..Live::default()
    }
}

/// The API server takes what was decided.
fn carry_out(live: &mut Live, decision: &Decision) {
    for (object, _) in &decision.apply {
        live.note(object.clone());
    }
    for object in &decision.delete {
        live.forget(object);
    }
}

/// What is there after one look.
fn look(live: &mut Live, facts: &Facts, damping: &mut Damping, now: Instant) -> Decision {
    let decision = decide(PLACE, facts, live, damping, now);
    carry_out(live, &decision);
    decision
}

fn names(objects: impl IntoIterator<Item = Object>) -> Vec<String> {
    let names = objects
        .into_iter()
        .map(|object| format!("{} {}", object.kind(), object.name()));
    names.collect()
}

fn ready(live: &Live) -> Vec<u8> {
    let ready = live.ready("default-apiservers").into_iter();
    ready
        .map(|socket| {
            socket
                .to_string()
                .split(['.', ':'])
                .nth(3)
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

#[test]
fn the_slices_are_written_before_the_service_and_deleted_after_it() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let up = facts(vec![candidate(1, Some(true))], Some(both()));
    let decision = look(&mut live, &up, &mut damping, Instant::now());
    let written: Vec<_> = decision.apply.iter().map(|(object, _)| object.clone()).collect();
    let all = [
        "EndpointSlice default-apiservers-ipv4-6443",
        "Service default-apiservers",
        "DNSEndpoint trivet-default",
    ];
    assert_eq!(names(written), all);
    let disabled = facts(up.candidates, Some(Wish::default()));
    let decision = look(&mut live, &disabled, &mut damping, Instant::now());
    assert!(decision.apply.is_empty());
    assert_eq!(names(decision.delete), [all[1], all[0], all[2]]);
    assert!(live.is_empty());
}

#[test]
fn nothing_is_written_at_rest() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let facts = facts(
        vec![candidate(1, Some(true)), draining(2, Some(true))],
        Some(both()),
    );
    look(&mut live, &facts, &mut damping, Instant::now());
    let decision = look(&mut live, &facts, &mut damping, Instant::now());
    assert_eq!((decision.apply, decision.delete), (Vec::new(), Vec::new()));
}

#[test]
fn only_what_is_up_is_ready_and_all_are_while_nothing_is() {
    for (members, expected, is_open) in [
        (
            vec![candidate(1, Some(true)), candidate(2, Some(false))],
            vec![1],
            false,
        ),
        (
            vec![candidate(1, Some(false)), candidate(2, Some(false))],
            vec![1, 2],
            true,
        ),
        (
            vec![candidate(1, Some(true)), draining(2, Some(true))],
            vec![1],
            false,
        ),
        // Members that drain are the last resort.
        (
            vec![candidate(1, Some(false)), draining(2, Some(true))],
            vec![1],
            true,
        ),
        (
            vec![draining(1, Some(true)), draining(2, Some(false))],
            vec![1],
            false,
        ),
        (vec![draining(1, Some(false))], vec![1], true),
    ] {
        let mut live = empty();
        let facts = facts(members.clone(), Some(both()));
        let decision = look(&mut live, &facts, &mut Damping::default(), Instant::now());
        assert_eq!(
            (ready(&live), decision.is_open),
            (expected, is_open),
            "{members:?}"
        );
    }
}

#[test]
fn a_member_that_drains_serves_and_terminates() {
    let mut live = empty();
    let facts = facts(
        vec![candidate(1, Some(true)), draining(2, Some(true))],
        Some(both()),
    );
    look(&mut live, &facts, &mut Damping::default(), Instant::now());
    let conditions = live.slices[0].endpoints[1].conditions.clone().unwrap();
    let said = (conditions.ready, conditions.serving, conditions.terminating);
    assert_eq!(said, (Some(false), Some(true), Some(true)));
}

#[test]
fn what_is_not_known_stays_as_it_is_published() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let known = facts(
        vec![candidate(1, Some(true)), candidate(2, Some(false))],
        Some(both()),
    );
    look(&mut live, &known, &mut damping, Instant::now());
    let unknown = facts(vec![candidate(1, None), candidate(2, None)], Some(both()));
    // A new leader remembers nothing.
    let decision = look(&mut live, &unknown, &mut Damping::default(), Instant::now());
    assert_eq!((decision.apply, ready(&live)), (Vec::new(), vec![1]));
}

#[test]
fn a_spec_that_is_not_obeyed_changes_no_name_and_hides_no_fault() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let members = |two| vec![candidate(1, Some(true)), candidate(2, two)];
    look(
        &mut live,
        &facts(members(Some(true)), Some(both())),
        &mut damping,
        Instant::now(),
    );
    let decision = look(
        &mut live,
        &facts(members(Some(false)), None),
        &mut damping,
        Instant::now(),
    );
    assert_eq!((decision.wish, decision.delete), (both(), Vec::new()));
    assert_eq!(ready(&live), [1]);
    // Nor does it make one.
    let decision = decide(
        PLACE,
        &facts(members(Some(true)), None),
        &empty(),
        &mut damping,
        Instant::now(),
    );
    assert_eq!(decision.apply, Vec::new());
}

#[test]
fn without_members_what_is_published_stays() {
    let (mut live, mut damping) = (empty(), Damping::default());
    look(
        &mut live,
        &facts(vec![candidate(1, Some(true))], Some(both())),
        &mut damping,
        Instant::now(),
    );
    let decision = look(
        &mut live,
        &facts(Vec::new(), Some(both())),
        &mut damping,
        Instant::now(),
    );
    assert_eq!((decision.apply, decision.delete), (Vec::new(), Vec::new()));
}

#[test]
fn another_name_is_published_before_the_old_one_goes() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let members = vec![candidate(1, Some(true))];
    look(
        &mut live,
        &facts(members.clone(), Some(both())),
        &mut damping,
        Instant::now(),
    );
    let renamed = Wish {
        service: Some("masters".to_owned()),
        ..both()
    };
    let decision = look(
        &mut live,
        &facts(members, Some(renamed)),
        &mut damping,
        Instant::now(),
    );
    let written: Vec<_> = decision.apply.iter().map(|(object, _)| object.clone()).collect();
    assert_eq!(
        names(written),
        ["EndpointSlice masters-ipv4-6443", "Service masters"]
    );
    assert_eq!(
        names(decision.delete),
        [
            "Service default-apiservers",
            "EndpointSlice default-apiservers-ipv4-6443"
        ]
    );
}

#[test]
fn a_family_that_no_member_has_any_more_loses_its_slice() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let six = Candidate {
        socket: "[fd00::1]:6443".parse().unwrap(),
        ..candidate(1, Some(true))
    };
    let four = candidate(1, Some(true));
    look(
        &mut live,
        &facts(vec![four.clone(), six], Some(both())),
        &mut damping,
        Instant::now(),
    );
    assert_eq!(live.slices.len(), 2);
    let decision = look(
        &mut live,
        &facts(vec![four], Some(both())),
        &mut damping,
        Instant::now(),
    );
    assert_eq!(
        names(decision.delete),
        ["EndpointSlice default-apiservers-ipv6-6443"]
    );
    assert_eq!(live.targets().len(), 1);
}

#[test]
fn an_edit_by_hand_is_put_right_over_the_version_that_was_read() {
    let (mut live, mut damping) = (empty(), Damping::default());
    let facts = facts(vec![candidate(1, Some(true))], Some(both()));
    look(&mut live, &facts, &mut damping, Instant::now());
    live.slices[0].metadata.resource_version = Some("7".to_owned());
    live.slices[0].endpoints.clear();
    let decision = decide(PLACE, &facts, &live, &mut damping, Instant::now());
    let [(Object::Slice(slice), version)] = &decision.apply[..] else {
        panic!("{:?}", decision.apply);
    };
    assert_eq!((slice.endpoints.len(), version.as_deref()), (1, Some("7")));
}

#[test]
fn without_the_kind_of_external_dns_the_service_is_kept_all_the_same() {
    let mut live = Live::default();
    let facts = facts(vec![candidate(1, Some(true))], Some(both()));
    let decision = look(&mut live, &facts, &mut Damping::default(), Instant::now());
    assert_eq!(decision.apply.len(), 2);
    assert_eq!(live.records, None);
    // It is installed meanwhile.
    live.records = Some(Vec::new());
    look(&mut live, &facts, &mut Damping::default(), Instant::now());
    assert_eq!(live.targets(), ["10.0.0.1".parse().unwrap()].into());
}

fn member() -> impl Strategy<Value = (bool, Option<bool>)> {
    (
        prop::bool::weighted(0.2),
        prop::option::weighted(0.8, any::<bool>()),
    )
}

proptest! {
    #[test]
    fn no_name_is_ever_empty_and_none_has_another_address(
        looks in prop::collection::vec((0..40_u64, prop::collection::btree_map(1..=4_u8, member(), 1..=4), prop::bool::weighted(0.1)), 1..40),
    ) {
        let (mut live, mut damping, mut now) = (empty(), Damping::default(), Instant::now());
        for (seconds, members, restarts) in looks {
            now += Duration::from_secs(seconds);
            if restarts {
                damping = Damping::default();
            }
            let members: Vec<_> = members
                .into_iter()
                .map(|(number, (drains, is_up))| Candidate { drains, ..candidate(number, is_up) })
                .collect();
            let facts = facts(members.clone(), Some(both()));
            look(&mut live, &facts, &mut damping, now);
            let known: BTreeSet<_> = members.iter().map(|member| member.socket.ip()).collect();
            let is_active = |ip: &IpAddr| members.iter().any(|member| member.socket.ip() == *ip && !member.drains);
            let has_active = members.iter().any(|member| !member.drains);
            let by_service: BTreeSet<_> = live.ready("default-apiservers").iter().map(SocketAddr::ip).collect();
            for published in [by_service, live.targets()] {
                prop_assert!(!published.is_empty());
                prop_assert!(published.is_subset(&known));
                prop_assert!(!has_active || published.iter().all(is_active));
            }
            let again = decide(PLACE, &facts, &live, &mut damping, now);
            prop_assert!(again.apply.is_empty() && again.delete.is_empty(), "{again:?}");
        }
    }
}
