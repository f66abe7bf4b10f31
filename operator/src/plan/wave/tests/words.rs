//! What the first node waits for.

use super::*;

/// What a cluster waits for whose first node has run the new proxy for long enough, after a change.
fn awaited(change: impl FnOnce(&mut Cluster)) -> String {
    let mut cluster = Cluster::with_first_ready(4);
    for name in ["w2", "w3", "w4"] {
        cluster.node(name).report = Some(Reported {
            template: "a".to_owned(),
            ..Reported::default()
        });
    }
    change(&mut cluster);
    match cluster.wait(SOAK_SECONDS).phase {
        Phase::First { awaits, .. } => awaits,
        Phase::Rest { .. } => "nothing".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn report() -> Reported {
    Reported {
        template: "b".to_owned(),
        ..Reported::default()
    }
}

/// The same where the first node has reported this.
fn after(report: Reported) -> String {
    awaited(|cluster| cluster.node("w1").report = Some(report))
}

#[test]
fn a_good_report_is_waited_for_where_the_node_has_reported_before() {
    assert_eq!(awaited(|_| ()), "nothing");
    assert_eq!(after(report()), "nothing");
    let before = Reported {
        template: "a".to_owned(),
        ..Reported::default()
    };
    assert_eq!(after(before.clone()), "the report of its new proxy");
    let mut cluster = Cluster::with_first_ready(2);
    cluster.node("w1").report = Some(before);
    let decision = cluster.wait(SOAK_SECONDS + 40);
    assert!(decision.target.gate.is_open(), "reports are no condition");
}

#[test]
fn a_proxy_that_does_not_listen_is_not_good() {
    let not_listening = vec!["127.0.0.1:7443".to_owned()];
    assert_eq!(
        after(Reported {
            not_listening,
            ..report()
        }),
        "its new proxy to listen on 127.0.0.1:7443"
    );
}

#[test]
fn files_that_run_away_are_not_good_and_those_of_connections_are() {
    let open = |open_files, connections| {
        after(Reported {
            open_files,
            connections,
            ..report()
        })
    };
    assert_eq!(open(20_000, 9_000), "nothing");
    assert_eq!(open(900, 3), "nothing");
    assert_eq!(
        open(19_000, 3),
        "its new proxy to close files: it has 19000 open for 3 connections"
    );
}

#[test]
fn a_member_that_others_see_up_is_waited_for_and_one_that_is_down_is_not() {
    let not_up: BTreeSet<_> = ["cp1".to_owned()].into();
    let seen = |others: [bool; 3]| {
        awaited(|cluster| {
            for (name, is_down) in ["w2", "w3", "w4"].into_iter().zip(others) {
                let report = cluster.node(name).report.as_mut().unwrap();
                report.not_up = if is_down { not_up.clone() } else { BTreeSet::new() };
            }
            let not_up = not_up.clone();
            cluster.node("w1").report = Some(Reported { not_up, ..report() });
        })
    };
    assert_eq!(
        seen([false, false, true]),
        "member cp1 to be Up, as most other nodes see it"
    );
    assert_eq!(seen([false, true, true]), "nothing");
}

#[test]
fn a_doubt_that_lasts_halts_the_rollout() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.node("w1").report = Some(Reported {
        not_listening: vec!["[::1]:7443".to_owned()],
        ..report()
    });
    assert!(cluster.wait(SOAK_SECONDS + 60).phase.halt().is_none());
    let decision = cluster.wait(5);
    assert!(
        halt_of(&decision)
            .cause
            .ends_with("its new proxy to listen on [::1]:7443")
    );
}

#[test]
fn a_lease_that_is_not_renewed_is_waited_for() {
    let with_lease = |renewed| {
        awaited(|cluster| {
            // The node's clock is another one.
            cluster.node("w1").newcomer.as_mut().unwrap().ready_at = Some(7_000_000);
            cluster.facts.lease_renewed = renewed;
        })
    };
    assert_eq!(with_lease(None), "nothing");
    assert_eq!(with_lease(Some(7_000_025)), "nothing");
    assert_eq!(
        with_lease(Some(7_000_003)),
        "its kubelet to renew its Lease, which is late"
    );
}
