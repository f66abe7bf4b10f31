//! Neither a typo in the server name nor a wrong bundle of authorities makes every certificate a foreign one.

use super::*;
use crate::plan::trust::{AUTHORITIES_REFUSED, judged_by_what_is_in_force, settle};

/// How the members answer to what is asked for, and to what is in force.
#[derive(Clone, Copy)]
struct Answers {
    asked: bool,
    in_force: bool,
}

impl World {
    /// A pass in which the three members answer so. Returns the plan and the facts that it was made from.
    fn judge(&mut self, answers: Answers) -> (Plan, Facts) {
        let probe = |is_verified: bool| {
            let mut healths = Healths::default();
            for number in 1..=3 {
                let answer = if is_verified {
                    Answer::Ready
                } else {
                    Answer::Untrusted("its names are kubernetes".to_owned())
                };
                healths.observe(SocketAddr::new(ip(number), 6443), answer, self.facts.now);
            }
            healths
        };
        let name = self.pool.spec.health_check.tls_server_name.clone();
        let mut facts = self.facts.clone();
        facts.healths = probe(answers.asked);
        facts.healths_by_last_good = Some(probe(answers.in_force));
        let facts = judged_by_what_is_in_force(settle(facts), &name);
        (plan(&self.pool, &facts).unwrap(), facts)
    }

    fn ask_for(&mut self, server_name: &str) {
        server_name.clone_into(&mut self.pool.spec.health_check.tls_server_name);
    }
}

fn server_name(plan: &Plan) -> Option<String> {
    let rollout = plan.rollout.as_ref()?;
    Some(rollout.document.tls.server_name.clone())
}

fn bundle(plan: &Plan) -> String {
    plan.rollout.as_ref().unwrap().document.tls.ca_bundle.clone()
}

#[test]
fn a_server_name_that_no_certificate_has_is_rejected_with_the_names_there_are() {
    let mut world = World::with_masters(3);
    world.ask_for("kubernetse");
    let (plan, _) = world.judge(Answers {
        asked: false,
        in_force: true,
    });
    assert_eq!(rejected(&plan), "Untrusted");
    assert!(plan.rollout.is_none(), "{plan:?}");
    let Verdict::Rejected { rejection, .. } = &plan.verdict else {
        panic!()
    };
    let message = rejection.to_string();
    for part in [
        "healthCheck.tlsServerName \"kubernetse\"",
        "\"kubernetes\"",
        "its names are kubernetes",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_server_name_is_obeyed_once_a_certificate_has_it_or_where_none_has_the_old_one() {
    for (asked, in_force) in [(true, true), (true, false), (false, false)] {
        let mut world = World::with_masters(3);
        world.ask_for("api.example.com");
        let (plan, _) = world.judge(Answers { asked, in_force });
        assert_eq!(rejected(&plan), "", "{asked} {in_force}");
        assert_eq!(server_name(&plan).as_deref(), Some("api.example.com"));
    }
}

#[test]
fn authorities_that_verify_nobody_are_not_followed_and_that_is_told() {
    let mut world = World::with_masters(3);
    world.facts.authorities = "WRONG".to_owned();
    let (plan, facts) = world.judge(Answers {
        asked: false,
        in_force: true,
    });
    assert_eq!(bundle(&plan), "PEM");
    assert!(plan.rollout.as_ref().unwrap().is_written, "no new document");
    let [hindrance] = plan.hindrances.as_slice() else {
        panic!("{:?}", plan.hindrances)
    };
    assert_eq!(hindrance.reason, AUTHORITIES_REFUSED);
    assert!(hindrance.note.contains("kube-root-ca.crt"), "{hindrance:?}");
    // An edit is judged by what is in force: the members are healthy.
    assert!(facts.healths.is_up(&[ip(1)], 6443));
    world.list("cp3", &[], PoolMemberState::Disabled);
    let (plan, _) = world.judge(Answers {
        asked: false,
        in_force: true,
    });
    assert_eq!(rejected(&plan), "");
    assert_eq!(bundle(&plan), "PEM");
}

#[test]
fn authorities_are_followed_once_they_verify_a_member_or_where_the_old_ones_verify_none() {
    for (asked, in_force) in [(true, true), (true, false), (false, false)] {
        let mut world = World::with_masters(3);
        world.facts.authorities = "NEW".to_owned();
        let (plan, _) = world.judge(Answers { asked, in_force });
        assert_eq!(bundle(&plan), "NEW", "{asked} {in_force}");
        assert!(plan.hindrances.is_empty());
    }
}

#[test]
fn a_wrong_server_name_beside_wrong_authorities_changes_neither() {
    let mut world = World::with_masters(3);
    world.facts.authorities = "WRONG".to_owned();
    world.ask_for("kubernetse");
    let (plan, _) = world.judge(Answers {
        asked: false,
        in_force: true,
    });
    assert_eq!(rejected(&plan), "Untrusted");
    assert!(plan.rollout.is_none());
    assert_eq!(plan.hindrances.len(), 1);
}

#[test]
fn an_operator_that_reaches_nobody_holds_no_new_authorities_back() {
    let mut world = World::with_masters(3);
    world.facts.authorities = "NEW".to_owned();
    // What the proxies see by the document in force says nothing about another bundle.
    let mut facts = world.facts.clone();
    facts.healths = Healths::default();
    facts.healths_by_last_good = Some(Healths::default());
    let plan = plan(&world.pool, &settle(facts)).unwrap();
    assert_eq!(bundle(&plan), "NEW");
}
