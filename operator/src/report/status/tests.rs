//! The status in the cases that the owner of a pool meets.

mod nodes;

use serde_json::json;
use trivet_crds::pool::{MemberHealth, MemberSource, PoolMemberState};

use super::*;
use crate::health::Answer;
use crate::plan::bootstrap::Phase;
use crate::plan::tests::{accepted, settled};
use crate::plan::wave;
use crate::plan::{Hindrance, Member, Rejection, Verdict};
use crate::reports::Reports;
use std::net::{IpAddr, SocketAddr};
use tokio::time::Instant;

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn member(number: u8, state: PoolMemberState) -> Member {
    Member {
        name: format!("cp{number}"),
        addresses: vec![ip(number)],
        port: 6443,
        state,
        zone: String::new(),
        source: MemberSource::Node,
        node_name: format!("cp{number}"),
        note: String::new(),
    }
}

fn plan(members: Vec<Member>) -> Plan {
    Plan {
        endpoints: vec!["https://127.0.0.1:7443".to_owned()],
        ..settled(accepted(), members)
    }
}

fn rejected(rejection: Rejection) -> Verdict {
    Verdict::Rejected {
        rejection,
        notes: vec!["the last good configuration stays in force".to_owned()],
    }
}

fn healths(up: &[u8], silent: &[u8]) -> Healths {
    let mut healths = Healths::default();
    for number in up {
        healths.observe(SocketAddr::new(ip(*number), 6443), Answer::Ready, Instant::now());
    }
    for number in silent {
        healths.observe(SocketAddr::new(ip(*number), 6443), Answer::Silent, Instant::now());
    }
    healths
}

fn daemon_set(desired: i32, available: i32) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": { "generation": 2 },
        "status": {
            "observedGeneration": 2, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
            "numberReady": available, "numberAvailable": available, "updatedNumberScheduled": desired,
            "numberUnavailable": desired - available, "numberMisscheduled": 0,
        },
    }))
    .unwrap()
}

struct Case {
    plan: Plan,
    healths: Healths,
    fleet: Fleet,
    daemon_set: Option<DaemonSet>,
    uncounted: Vec<Uncounted>,
    failures: Vec<String>,
    writer: Option<DaemonSet>,
    writer_failures: Vec<String>,
    reported: Vec<String>,
    refused: Option<Refusal>,
    previous: Option<ApiserverPoolStatus>,
}

impl Case {
    fn good() -> Self {
        Self {
            plan: plan(vec![
                member(1, PoolMemberState::Active),
                member(2, PoolMemberState::Active),
            ]),
            healths: healths(&[1, 2], &[]),
            fleet: Fleet::default(),
            daemon_set: Some(daemon_set(5, 5)),
            uncounted: Vec::new(),
            failures: Vec::new(),
            writer: None,
            writer_failures: Vec::new(),
            reported: Vec::new(),
            refused: None,
            previous: None,
        }
    }

    fn status_at(&self, seconds: i64) -> ApiserverPoolStatus {
        let sightings = Reports::default().sightings("default", &self.fleet, Instant::now());
        status(&Seen {
            generation: Some(7),
            plan: &self.plan,
            server_name: "kubernetes",
            healths: &self.healths,
            sightings: &sightings,
            fleet: &self.fleet,
            daemon_set: self.daemon_set.as_ref(),
            uncounted: &self.uncounted,
            failures: &self.failures,
            writer: self.writer.as_ref(),
            writer_failures: &self.writer_failures,
            reported: &self.reported,
            refused: self.refused.as_ref(),
            published: None,
            previous: self.previous.as_ref(),
            now: Timestamp::from_second(seconds).unwrap(),
        })
    }

    fn status(&self) -> ApiserverPoolStatus {
        self.status_at(1000)
    }
}

fn refusal(kind: Kind, words: &str) -> Refusal {
    Refusal {
        kind,
        reason: "ApplyFailed",
        words: words.to_owned(),
    }
}

fn shown(status: &ApiserverPoolStatus, type_: &str) -> (String, String) {
    let condition = condition(status, type_).unwrap();
    assert_eq!(condition.observed_generation, Some(7));
    (condition.status.clone(), condition.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_pool_that_serves_is_ready_with_its_counts() {
    let status = Case::good().status();
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    assert_eq!(shown(&status, "Accepted"), is("True", "Accepted"));
    assert_eq!(shown(&status, "ProxiesAvailable"), is("True", "Available"));
    assert_eq!(
        (status.members_summary.as_str(), status.proxies_summary.as_str()),
        ("2/2", "5/5")
    );
    assert_eq!(status.config_revision, Some(4));
    assert_eq!(status.observed_generation, Some(7));
}

#[test]
fn every_condition_is_told_in_order() {
    let status = Case::good().status();
    let told: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    assert_eq!(told, conditions::ALL);
}

#[test]
fn only_active_members_are_counted() {
    let mut case = Case::good();
    case.plan.members.push(member(3, PoolMemberState::Draining));
    case.plan.members.push(member(4, PoolMemberState::Disabled));
    let status = case.status();
    assert_eq!(status.members_summary, "2/2");
    assert_eq!(status.members[3].health, MemberHealth::Unknown);
}

#[test]
fn a_pool_whose_members_answer_but_are_not_up_is_not_ready() {
    for answer in [
        Answer::NotReady("500".to_owned()),
        Answer::Untrusted("expired".to_owned()),
    ] {
        let mut case = Case {
            healths: healths(&[], &[2]),
            ..Case::good()
        };
        case.healths
            .observe(SocketAddr::new(ip(1), 6443), answer, Instant::now());
        assert_eq!(shown(&case.status(), "Ready"), is("False", "NoMemberUp"));
    }
}

#[test]
fn an_operator_that_reaches_no_member_says_that_it_cannot_judge() {
    let mut case = Case {
        healths: healths(&[], &[1, 2]),
        ..Case::good()
    };
    let status = case.status();
    assert_eq!(shown(&status, "Ready"), is("True", "CannotJudge"));
    let message = &condition(&status, "Ready").unwrap().message;
    assert_eq!(
        message,
        "5/5 proxies ready; the operator cannot judge the members, because it reaches none of them: cp1: it does not \
         answer; cp2: it does not answer"
    );
    assert_eq!(status.members_summary, "0/2");
    assert_eq!(status.members[0].message, "it does not answer");

    case.daemon_set = Some(daemon_set(5, 4));
    assert_eq!(shown(&case.status(), "Ready"), is("False", "Progressing"));
    case.plan.verdict = rejected(Rejection::NoMembers { notes: Vec::new() });
    assert_eq!(shown(&case.status(), "Ready"), is("False", "NoMembers"));
}

#[test]
fn a_missing_proxy_is_shown_with_the_words_of_the_api_server() {
    let failure = "pods \"trivet-default-x\" is forbidden: violates PodSecurity \"restricted\"";
    let case = Case {
        daemon_set: Some(daemon_set(5, 4)),
        failures: vec![failure.to_owned()],
        ..Case::good()
    };
    let status = case.status();
    assert_eq!(shown(&status, "ProxiesAvailable"), is("False", "Unavailable"));
    assert!(
        condition(&status, "ProxiesAvailable")
            .unwrap()
            .message
            .contains(failure)
    );
    assert_eq!(shown(&status, "Ready"), is("False", "Unavailable"));
    assert_eq!(status.proxies_summary, "4/5");
}

#[test]
fn a_rollout_under_way_is_not_available_yet() {
    let mut case = Case::good();
    case.daemon_set.as_mut().unwrap().metadata.generation = Some(3);
    assert_eq!(
        shown(&case.status(), "ProxiesAvailable"),
        is("False", "Progressing")
    );
}

#[test]
fn a_selector_that_matches_no_node_is_shown() {
    let case = Case {
        daemon_set: Some(daemon_set(0, 0)),
        ..Case::good()
    };
    assert_eq!(shown(&case.status(), "ProxiesAvailable"), is("False", "NoNodes"));
}

#[test]
fn a_refused_spec_is_not_ready_for_the_same_reason() {
    let mut case = Case::good();
    case.plan.verdict = rejected(Rejection::NoHealthyMember {
        withdrawn: vec!["cp1".to_owned()],
    });
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("False", "NoHealthyMember"));
    assert_eq!(shown(&status, "Ready"), is("False", "NoHealthyMember"));
    assert!(
        condition(&status, "Accepted")
            .unwrap()
            .message
            .contains("allow-shrink")
    );
    assert_eq!(shown(&status, "ProxiesAvailable"), is("True", "Available"));
}

#[test]
fn a_rejection_keeps_its_reason_and_tells_what_goes_on_and_what_cannot_be_written() {
    let mut case = Case::good();
    case.plan.verdict = rejected(Rejection::NodesUnknown);
    case.refused = Some(refusal(
        Kind::ConfigMap,
        "the API server refuses ConfigMap trivet-default: no",
    ));
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("False", "NodesUnknown"));
    let message = &condition(&status, "Accepted").unwrap().message;
    let end =
        "; the last good configuration stays in force; the API server refuses ConfigMap trivet-default: no";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn a_refused_removal_is_shown_and_the_pool_stays_ready() {
    let mut case = Case::good();
    let refused_removals = vec!["cp3 stays: its apiserver answers".to_owned()];
    case.plan.verdict = Verdict::Accepted {
        notes: Vec::new(),
        refused_removals,
    };
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("True", "RefusedShrink"));
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
}

#[test]
fn what_keeps_the_operator_from_following_the_cluster_is_told_and_the_pool_stays_ready() {
    let mut case = Case::good();
    case.plan.hindrances = vec![Hindrance {
        reason: "RightsMissing",
        note: "the operator may not use Node objects".to_owned(),
    }];
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("True", "RightsMissing"));
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    let message = &condition(&status, "Accepted").unwrap().message;
    assert!(
        message.ends_with("; the operator may not use Node objects"),
        "{message}"
    );

    // A verdict of the spec, and a refused removal, are the reason before it.
    case.plan.verdict = rejected(Rejection::NoMembers { notes: Vec::new() });
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("False", "NoMembers"));
    let message = &condition(&status, "Accepted").unwrap().message;
    assert!(message.contains("may not use Node objects"), "{message}");
}

#[test]
fn times_change_only_with_what_they_date() {
    let mut case = Case::good();
    case.previous = Some(case.status_at(1000));
    let same = case.status_at(2000);
    assert_eq!(
        Some(&same),
        case.previous.as_ref(),
        "an unchanged status is not written again"
    );

    case.healths = healths(&[1], &[2]);
    let changed = case.status_at(3000);
    let at = |number: usize| {
        changed.members[number]
            .last_transition_time
            .as_ref()
            .unwrap()
            .0
            .as_second()
    };
    assert_eq!((at(0), at(1)), (1000, 3000));
    let ready = condition(&changed, "Ready").unwrap();
    assert_eq!(ready.last_transition_time.0.as_second(), 1000);
    assert_eq!(changed.members_summary, "1/2");
}

fn lost(node: &str) -> Uncounted {
    Uncounted {
        node: node.to_owned(),
        why: "not Ready",
        is_ready: false,
        is_updated: false,
    }
}

#[test]
fn a_lost_node_is_named_and_the_pool_stays_ready() {
    let case = Case {
        daemon_set: Some(daemon_set(5, 4)),
        uncounted: vec![lost("w2")],
        ..Case::good()
    };
    let status = case.status();
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    assert_eq!(shown(&status, "ProxiesAvailable"), is("True", "Available"));
    assert_eq!(status.proxies_summary, "4/4");
    let message = &condition(&status, "Ready").unwrap().message;
    assert!(message.ends_with("; not counted: w2 (not Ready)"), "{message}");
}

#[test]
fn a_missing_proxy_on_a_ready_node_counts_beside_a_lost_node() {
    let case = Case {
        daemon_set: Some(daemon_set(5, 3)),
        uncounted: vec![lost("w2")],
        failures: vec!["w1: CrashLoopBackOff".to_owned()],
        ..Case::good()
    };
    assert_eq!(shown(&case.status(), "Ready"), is("False", "Unavailable"));
    assert_eq!(case.status().proxies_summary, "3/4");
}

#[test]
fn a_rollout_that_only_a_lost_node_holds_up_is_complete() {
    let mut case = Case {
        daemon_set: Some(daemon_set(5, 4)),
        uncounted: vec![lost("w2")],
        ..Case::good()
    };
    let updated = |case: &mut Case, updated| {
        let status = case.daemon_set.as_mut().unwrap().status.as_mut().unwrap();
        status.updated_number_scheduled = Some(updated);
    };
    updated(&mut case, 4);
    assert_eq!(shown(&case.status(), "ProxiesAvailable"), is("True", "Available"));
    updated(&mut case, 3);
    assert_eq!(
        shown(&case.status(), "ProxiesAvailable"),
        is("False", "Progressing")
    );
}

#[test]
fn a_large_outage_is_told_by_ten_names_and_a_count() {
    let case = Case {
        daemon_set: Some(daemon_set(5000, 4000)),
        uncounted: (0..1000).map(|number| lost(&format!("w{number}"))).collect(),
        ..Case::good()
    };
    let message = condition(&case.status(), "ProxiesAvailable")
        .unwrap()
        .message
        .clone();
    assert!(message.contains("w9 (not Ready) and 990 more"), "{message}");
    assert!(!message.contains("w10"), "{message}");
}

#[test]
fn a_pool_whose_nodes_are_all_lost_is_not_ready() {
    let case = Case {
        daemon_set: Some(daemon_set(1, 0)),
        uncounted: vec![lost("w1")],
        ..Case::good()
    };
    assert_eq!(shown(&case.status(), "Ready"), is("False", "NoReadyNodes"));
}

#[test]
fn a_refused_daemon_set_is_shown_with_the_words_of_the_api_server() {
    let case = Case {
        refused: Some(refusal(
            Kind::DaemonSet,
            "the API server refuses it: exceeded quota",
        )),
        ..Case::good()
    };
    let status = case.status();
    assert_eq!(shown(&status, "ProxiesAvailable"), is("False", "ApplyFailed"));
    assert_eq!(shown(&status, "Ready"), is("False", "ApplyFailed"));
    assert_eq!(shown(&status, "Accepted"), is("True", "Accepted"));
    let message = &condition(&status, "Ready").unwrap().message;
    assert!(message.contains("exceeded quota"), "{message}");
}

#[test]
fn a_refused_document_is_not_claimed_to_be_in_force() {
    let mut case = Case::good();
    case.previous = Some(case.status());
    case.plan.revision = 5;
    case.refused = Some(refusal(Kind::ConfigMap, "the API server refuses it: forbidden"));
    let status = case.status();
    assert_eq!(shown(&status, "Accepted"), is("False", "ApplyFailed"));
    assert_eq!(status.config_revision, Some(4));
}

#[test]
fn a_status_that_was_stored_is_equal_to_itself() {
    let status = Case::good().status();
    let stored = serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap();
    assert_eq!(status, stored);
}

/// A pool whose proxies are all available, in this phase; with how many of five nodes the writer has reached.
fn bootstrapping(phase: Phase, written: i32) -> Case {
    let mut case = Case {
        writer: Some(daemon_set(5, written)),
        ..Case::good()
    };
    case.plan.bootstrap = phase;
    case
}

fn progress(case: &Case) -> (String, String, String) {
    let status = case.status();
    let message = condition(&status, "Progressing").unwrap().message.clone();
    let (holds, reason) = shown(&status, "Progressing");
    (holds, reason, message)
}

#[test]
fn progressing_tells_how_far_the_bootstrap_of_the_nodes_is() {
    let nodes = |count: usize| (1..=count).map(|number| format!("w{number}")).collect::<Vec<_>>();
    for (phase, written, status, reason, part) in [
        (
            Phase::Off,
            0,
            "True",
            "Complete",
            "every node has what the spec wants",
        ),
        (
            Phase::AwaitsProxies,
            0,
            "True",
            "RollingOut",
            "once every ready node has an available proxy",
        ),
        (
            Phase::AwaitsRollout,
            5,
            "True",
            "RollingOut",
            "once every ready node has an available proxy",
        ),
        (
            Phase::Soaks,
            5,
            "True",
            "Soaking",
            "available with it for long enough",
        ),
        (
            Phase::Writes,
            3,
            "True",
            "WritingManifests",
            "3 of 5 nodes have the manifest",
        ),
        (
            Phase::Writes,
            5,
            "True",
            "Complete",
            "5 of 5 nodes have the manifest",
        ),
        (
            Phase::Removes,
            2,
            "True",
            "RemovingManifests",
            "2 of 5 nodes are without",
        ),
        (
            Phase::AwaitsWay(nodes(2)),
            5,
            "False",
            "AwaitingProxies",
            "DaemonSet: w1, w2, because",
        ),
        (
            Phase::AwaitsWay(nodes(12)),
            5,
            "False",
            "AwaitingProxies",
            "12 nodes have a ready proxy",
        ),
        (
            Phase::AwaitsWay(nodes(12)),
            5,
            "False",
            "AwaitingProxies",
            "w10 and 2 more, because",
        ),
        (
            Phase::AwaitsWay(nodes(0)),
            5,
            "False",
            "AwaitingProxies",
            "the rollout of the proxies is complete",
        ),
        (
            Phase::Forbidden,
            0,
            "False",
            "BootstrapForbidden",
            "nodeBootstrap.enabled to true",
        ),
    ] {
        let case = bootstrapping(phase.clone(), written);
        let (holds, why, message) = progress(&case);
        assert_eq!((holds.as_str(), why.as_str()), (status, reason), "{phase:?}");
        assert!(message.contains(part), "{phase:?}: {message}");
        assert_eq!(shown(&case.status(), "Ready"), is("True", "Ready"), "{phase:?}");
    }
}

#[test]
fn a_rollout_of_the_proxies_is_progress_too() {
    let case = Case {
        daemon_set: Some(daemon_set(5, 4)),
        ..Case::good()
    };
    let (holds, reason, message) = progress(&case);
    assert_eq!((holds.as_str(), reason.as_str()), ("True", "RollingOut"));
    assert!(
        message.contains("4 of 5 nodes have an available proxy"),
        "{message}"
    );
}

#[test]
fn a_node_whose_manifest_cannot_be_written_is_named_and_the_pool_stays_ready() {
    let failure = "w1: hostPath type check failed: /etc/kubernetes/manifests is not a directory";
    let case = Case {
        writer_failures: vec![failure.to_owned()],
        ..bootstrapping(Phase::Writes, 4)
    };
    let status = case.status();
    for type_ in ["ProxiesAvailable", "Progressing"] {
        let message = &condition(&status, type_).unwrap().message;
        assert!(message.contains(failure), "{type_}: {message}");
    }
    assert_eq!(shown(&status, "ProxiesAvailable"), is("True", "Available"));
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    assert_eq!(shown(&status, "Progressing"), is("False", "WriterFailing"));
}

#[test]
fn a_writer_that_the_chart_forbids_is_told_with_the_way_out_and_the_pool_stays_ready() {
    let words =
        "the API server refuses DaemonSet trivet-default-bootstrap: the chart value nodeBootstrap.enabled";
    let case = Case {
        refused: Some(Refusal {
            reason: "BootstrapForbidden",
            ..refusal(Kind::Writer, words)
        }),
        ..bootstrapping(Phase::Writes, 0)
    };
    let (holds, reason, message) = progress(&case);
    assert_eq!((holds.as_str(), reason.as_str()), ("False", "BootstrapForbidden"));
    assert!(message.contains(words), "{message}");
    let status = case.status();
    assert_eq!(shown(&status, "ProxiesAvailable"), is("True", "Available"));
    assert_eq!(shown(&status, "Accepted"), is("True", "Accepted"));
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    assert_eq!(status.config_revision, Some(4));
}

#[test]
fn a_rejected_spec_makes_no_progress() {
    let mut case = bootstrapping(Phase::Off, 0);
    case.plan.verdict = rejected(Rejection::NoMembers { notes: Vec::new() });
    let (holds, reason, _) = progress(&case);
    assert_eq!((holds.as_str(), reason.as_str()), ("False", "NoMembers"));
}

#[test]
fn nodes_without_a_standby_are_named_and_the_proxies_stay_available() {
    let case = Case {
        reported: vec!["2 nodes without a standby: w1 (Absent), w2 (Stale)".to_owned()],
        ..Case::good()
    };
    let status = case.status();
    let available = condition(&status, conditions::PROXIES_AVAILABLE).unwrap();
    assert_eq!(available.status, "True");
    let message = &available.message;
    assert!(
        message.ends_with("; 2 nodes without a standby: w1 (Absent), w2 (Stale)"),
        "{message}"
    );
}

#[test]
fn progressing_tells_the_wave_its_node_and_what_it_waits_for() {
    let halt = || wave::Halt {
        template: "b".to_owned(),
        node: "w1".to_owned(),
        cause: "its new proxy has ended once".to_owned(),
    };
    let first = wave::Phase::First {
        node: "w1".to_owned(),
        awaits: "its new pod".to_owned(),
    };
    let rest = wave::Phase::Rest {
        done: 2,
        awaited: vec!["w3".to_owned()],
        stuck: vec!["w4".to_owned()],
    };
    let halted = |is_rolled_back| wave::Phase::Halted {
        halt: halt(),
        is_rolled_back,
    };
    for (waves, status, reason, part) in [
        (
            wave::Phase::Starts,
            "True",
            "RollingOut",
            "wave 1: the new template waits",
        ),
        (
            first,
            "True",
            "RollingOut",
            "node w1 alone has the new template; the others wait for its new pod",
        ),
        (
            rest,
            "True",
            "RollingOut",
            "2 of 4 nodes serve with the new template, waits for w3; these cannot start it and are not waited for: w4",
        ),
        (
            wave::Phase::Paused,
            "False",
            "RolloutPaused",
            "spec.rollout.policy to Automatic",
        ),
        (
            wave::Phase::RollsBack(halt()),
            "False",
            "RolloutHalted",
            "the template b has failed on node w1: its new proxy has ended once",
        ),
        (
            halted(true),
            "False",
            "RolloutHalted",
            "the last good template is back, and this one is not tried again: edit spec.proxy; or, where the cause was \
             another, set the annotation trivet.dev/retry-rollout of the pool to 7",
        ),
        (halted(false), "False", "RolloutHalted", "cannot be read"),
    ] {
        let mut case = Case::good();
        case.uncounted = vec![Uncounted {
            node: "lost".to_owned(),
            why: "not Ready",
            is_ready: false,
            is_updated: false,
        }];
        case.plan.waves = waves.clone();
        let (holds, why, message) = progress(&case);
        assert_eq!((holds.as_str(), why.as_str()), (status, reason), "{waves:?}");
        assert!(message.contains(part), "{waves:?}: {message}");
    }
}
