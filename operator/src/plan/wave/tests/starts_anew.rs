//! Operators that start anew amid a rollout, and templates that begin anew after they have failed.

use super::*;

/// What an operator decides that has just started and has read neither nodes nor pods.
fn blind(cluster: &Cluster) -> Decision {
    let mut cluster = cluster.clone();
    cluster.facts.is_blind = true;
    cluster.facts.nodes.clear();
    cluster.decide(Duration::ZERO)
}

#[test]
fn an_operator_that_has_not_read_pods_and_nodes_yet_leaves_everything_as_it_is() {
    for cluster in [
        Cluster::of(3),
        Cluster::begun(3),
        Cluster::with_first_ready(3),
        Cluster::with_rest(3),
    ] {
        let decision = blind(&cluster);
        let facts = &cluster.facts;
        assert_eq!(
            (&decision.target, &decision.record),
            (&facts.target, &facts.record)
        );
        assert!(decision.template.is_none() && !decision.begins, "{decision:?}");
    }
    assert_eq!(blind(&Cluster::of(3)).phase, Phase::Settled);
    let mut cluster = Cluster::of(3);
    cluster.wanted = "b".to_owned();
    let decision = blind(&cluster);
    assert_eq!(decision.target.template, "a", "nothing begins");
    assert_eq!(decision.template, Some(content("a")));
}

#[test]
fn before_the_reports_are_read_a_soak_is_not_over() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.facts.now += SOAK_SECONDS;
    cluster.facts.lacks_reports = true;
    let decision = cluster.decide(Duration::from_secs(5));
    assert_eq!(decision.target.gate, Gate::of_node("w1"));
    assert!(
        cluster.decide(WATCHED).target.gate.is_open(),
        "where there are none they are not waited for"
    );
}

/// A cluster that has taken `b` back from its first node.
fn halted() -> Cluster {
    let mut cluster = Cluster::begun(3);
    fail(&mut cluster);
    cluster
}

/// The new proxy fails on w1, and the last good one is back.
fn fail(cluster: &mut Cluster) {
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    cluster.pass();
    for node in &mut cluster.facts.nodes {
        node.newcomer = Some(ready());
    }
    cluster.facts.is_complete = true;
    assert!(is_halted(&cluster.wait(1000)));
}

fn is_halted(decision: &Decision) -> bool {
    let is_rolled_back = true;
    matches!(&decision.phase, Phase::Halted { is_rolled_back: back, .. } if *back == is_rolled_back)
}

#[test]
fn a_failed_template_begins_once_more_at_its_owners_request_and_halts_for_good_if_it_fails_again() {
    let mut cluster = halted();
    cluster.retry = "uid/7".to_owned();
    let decision = cluster.pass();
    assert!(decision.begins);
    assert_eq!((cluster.in_place(), decision.target.gate), ("b", Gate::closed()));
    fail(&mut cluster);
    assert!(
        is_halted(&cluster.wait(100_000)),
        "the request that stands was obeyed"
    );
    // Another one, or the same one after it was taken away.
    cluster.retry = "uid/8".to_owned();
    assert!(cluster.pass().begins);
    fail(&mut cluster);
    cluster.retry.clear();
    cluster.pass();
    cluster.retry = "uid/8".to_owned();
    assert!(cluster.pass().begins);
}

#[test]
fn a_request_that_was_obeyed_is_not_obeyed_for_a_later_template() {
    let mut cluster = halted();
    cluster.retry = "uid/7".to_owned();
    cluster.pass();
    for node in &mut cluster.facts.nodes {
        node.newcomer = Some(ready());
        node.has_earlier = false;
    }
    cluster.facts.target.gate = Gate::default();
    cluster.facts.is_complete = true;
    assert_eq!(cluster.pass().record.good, "b");
    cluster.wanted = "c".to_owned();
    assert!(cluster.pass().begins);
    fail(&mut cluster);
}

#[test]
fn a_request_survives_a_rejected_spec() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.facts.record.retried = "uid/7".to_owned();
    let decision = decide_in_place(&cluster.rollout, &cluster.facts, WATCHED_LONG).unwrap();
    assert_eq!(decision.record.retried, "uid/7");
}

#[test]
fn a_template_that_could_not_be_taken_back_is_tried_where_it_is() {
    let mut cluster = Cluster::begun(3);
    cluster.reads_revisions = false;
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    cluster.pass();
    cluster.start_on("w2");
    cluster.node("w1").newcomer = None;
    cluster.retry = "uid/7".to_owned();
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w2"));
}
