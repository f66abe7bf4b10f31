//! Rollouts from their first pass to their last, as a cluster, its DaemonSet controller and its nodes would act.

mod controller;
mod histories;
mod starts_anew;
mod stuck_nodes;
mod usage;
mod words;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::*;

/// What the clusters of these tests soak, and how long they hold the old proxy of the first node.
const SOAK_SECONDS: i64 = 30;
const HOLD_SECONDS: u32 = 60;

const WATCHED_LONG: Duration = Duration::from_secs(3600);

/// A cluster of some nodes with a pool, and time. Each pass sees what the last one has written.
#[derive(Clone, Debug)]
struct Cluster {
    wanted: String,
    rollout: PoolRollout,
    /// The owner's request to try a failed template once more.
    retry: String,
    facts: WaveFacts,
    /// The templates that have been in place: the DaemonSet controller's revisions.
    revisions: BTreeSet<String>,
    /// Whether the operator may read them.
    reads_revisions: bool,
}

fn content(hash: &str) -> Arc<PodTemplateSpec> {
    let mut content = PodTemplateSpec::default();
    let labels = [("template".to_owned(), hash.to_owned())].into();
    content.metadata.get_or_insert_default().labels = Some(labels);
    Arc::new(content)
}

fn template(hash: &str) -> Template {
    Template {
        hash: hash.to_owned(),
        content: content(hash),
    }
}

fn newcomer() -> Newcomer {
    Newcomer {
        is_running: true,
        has_started: true,
        ..Newcomer::default()
    }
}

fn ready() -> Newcomer {
    Newcomer {
        is_ready: true,
        ..newcomer()
    }
}

impl Cluster {
    /// Nodes w1..wN whose proxies have the good template `a`.
    fn of(count: usize) -> Self {
        let nodes = (1..=count).map(|number| NodeFacts {
            name: format!("w{number}"),
            newcomer: Some(ready()),
            ..NodeFacts::default()
        });
        Self {
            wanted: "a".to_owned(),
            rollout: PoolRollout::default(),
            retry: String::new(),
            facts: WaveFacts {
                now: 1000,
                in_place: Some(template("a")),
                is_complete: true,
                soak: 30,
                record: Record {
                    good: "a".to_owned(),
                    ..Record::default()
                },
                target: RolloutTarget {
                    template: "a".to_owned(),
                    gate: Gate::default(),
                },
                nodes: nodes.collect(),
                ..WaveFacts::default()
            },
            revisions: ["a".to_owned()].into(),
            reads_revisions: true,
        }
    }

    /// The same once the owner has asked for `b` and the operator has written it.
    fn begun(count: usize) -> Self {
        let mut cluster = Self::of(count);
        cluster.wanted = "b".to_owned();
        let decision = cluster.pass();
        assert!(decision.begins);
        assert_eq!(decision.target.gate, Gate::closed());
        cluster
    }

    /// One whose first node has a ready proxy of `b`.
    fn with_first_ready(count: usize) -> Self {
        let mut cluster = Self::begun(count);
        cluster.start_on("w1");
        assert_eq!(cluster.pass().target.gate, Gate::of_node("w1"));
        cluster.node("w1").newcomer = Some(ready());
        cluster.pass();
        cluster
    }

    /// One whose gate is open.
    fn with_rest(count: usize) -> Self {
        let mut cluster = Self::with_first_ready(count);
        let decision = cluster.wait(SOAK_SECONDS);
        assert!(decision.target.gate.is_open(), "{decision:?}");
        cluster
    }

    fn node(&mut self, name: &str) -> &mut NodeFacts {
        self.facts
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .unwrap()
    }

    /// The DaemonSet controller has a pod of the new template beside the old one, and it runs.
    fn start_on(&mut self, name: &str) {
        let node = self.node(name);
        node.has_earlier = true;
        node.newcomer = Some(newcomer());
    }

    fn decide(&self, watched: Duration) -> Decision {
        let mut facts = self.facts.clone();
        let good = &facts.record.good;
        let is_there = self.reads_revisions && self.revisions.contains(good);
        let is_in_place = facts
            .in_place
            .as_ref()
            .is_some_and(|in_place| in_place.hash == *good);
        facts.good = (is_there && !is_in_place).then(|| content(good));
        let wish = Wish {
            template: &self.wanted,
            rollout: &self.rollout,
            retry: &self.retry,
        };
        decide(&wish, &facts, watched)
    }

    /// A pass whose writes arrive.
    fn pass(&mut self) -> Decision {
        let decision = self.decide(WATCHED_LONG);
        self.write(&decision);
        decision
    }

    fn write(&mut self, decision: &Decision) {
        let hash = match &decision.template {
            Some(content) => content.metadata.as_ref().unwrap().labels.as_ref().unwrap()["template"].clone(),
            None => self.wanted.clone(),
        };
        assert_eq!(
            hash, decision.target.template,
            "the document names the template of the DaemonSet"
        );
        self.facts.target = decision.target.clone();
        self.facts.record = decision.record.clone();
        self.place(&hash);
    }

    /// Puts a template into the DaemonSet: pods of others are earlier ones now.
    fn place(&mut self, hash: &str) {
        let before = self.facts.in_place.replace(template(hash));
        if before.is_some_and(|before| before.hash == hash) {
            return;
        }
        self.revisions.insert(hash.to_owned());
        self.facts.is_complete = false;
        for node in &mut self.facts.nodes {
            let is_ready = node.newcomer.take().is_some_and(|newcomer| newcomer.is_ready);
            node.has_earlier |= is_ready;
        }
    }

    /// Lets seconds go by, with a pass every five.
    fn wait(&mut self, seconds: i64) -> Decision {
        let mut decision = self.pass();
        for _ in 0..seconds / 5 {
            self.facts.now += 5;
            decision = self.pass();
        }
        decision
    }

    /// The template of the DaemonSet.
    fn in_place(&self) -> &str {
        &self.facts.in_place.as_ref().unwrap().hash
    }
}

/// The phase in which one node is done and these are waited for.
fn rest(awaited: &[String]) -> Phase {
    Phase::Rest {
        done: 1,
        awaited: awaited.to_vec(),
        stuck: Vec::new(),
    }
}

fn halt_of(decision: &Decision) -> &Halt {
    decision.phase.halt().unwrap_or_else(|| panic!("{decision:?}"))
}

#[test]
fn a_first_install_has_no_gate_and_its_template_is_good_once_it_is_everywhere() {
    let mut cluster = Cluster::of(3);
    cluster.facts.in_place = None;
    cluster.facts.target = RolloutTarget::default();
    cluster.facts.record = Record::default();
    cluster.facts.is_complete = false;
    let decision = cluster.pass();
    assert_eq!((decision.phase, decision.begins), (Phase::Ungated, false));
    assert!(decision.target.gate.is_open());
    for name in ["w1", "w2"] {
        cluster.node(name).newcomer = Some(ready());
        assert_eq!(cluster.pass().phase, Phase::Ungated);
    }
    cluster.facts.is_complete = true;
    let decision = cluster.pass();
    assert_eq!(decision.phase, Phase::Settled);
    assert_eq!(decision.record.good, "a");
    assert_eq!(cluster.pass(), cluster.pass(), "it rests");
}

#[test]
fn a_pool_without_a_ready_proxy_has_no_gate_and_nothing_comes_back() {
    let mut cluster = Cluster::of(3);
    for node in &mut cluster.facts.nodes {
        node.newcomer = Some(newcomer());
    }
    cluster.facts.is_complete = false;
    cluster.wanted = "b".to_owned();
    assert!(cluster.pass().target.gate.is_open());
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 1,
        ..newcomer()
    });
    cluster.node("w2").newcomer = Some(ready());
    let decision = cluster.wait(2000);
    assert_eq!((decision.phase, cluster.in_place()), (Phase::Ungated, "b"));
}

#[test]
fn a_good_template_soaks_on_one_node_and_then_goes_everywhere() {
    let mut cluster = Cluster::begun(3);
    assert_eq!(cluster.pass().phase, Phase::Starts);
    cluster.start_on("w2");
    let decision = cluster.pass();
    assert_eq!(decision.target.gate, Gate::of_node("w2"));
    assert_eq!(
        decision.min_ready_seconds, HOLD_SECONDS,
        "its old proxy can take back"
    );
    cluster.start_on("w1");
    cluster.node("w2").newcomer = Some(ready());
    assert_eq!(cluster.wait(SOAK_SECONDS - 5).target.gate, Gate::of_node("w2"));
    cluster.facts.now += 5;
    let decision = cluster.pass();
    assert!(decision.target.gate.is_open());
    assert_eq!(decision.min_ready_seconds, cluster.rollout.min_ready_seconds);
    let awaited = vec!["w1".to_owned(), "w3".to_owned()];
    assert_eq!(decision.phase, rest(&awaited));
    for name in ["w1", "w3"] {
        cluster.node(name).newcomer = Some(ready());
    }
    cluster.facts.is_complete = true;
    let decision = cluster.pass();
    assert_eq!(decision.phase, Phase::Settled);
    assert_eq!(
        decision.record,
        Record {
            good: "b".to_owned(),
            ..Record::default()
        }
    );
}

#[test]
fn a_template_soaks_for_as_long_as_a_proxy_must_be_ready() {
    let mut cluster = Cluster::begun(2);
    cluster.rollout.min_ready_seconds = 100;
    cluster.start_on("w1");
    cluster.pass();
    cluster.node("w1").newcomer = Some(ready());
    assert_eq!(cluster.wait(95).target.gate, Gate::of_node("w1"));
    assert!(cluster.wait(10).target.gate.is_open());
}

#[test]
fn a_newcomer_that_ends_before_its_gate_opens_halts_the_rollout_and_the_good_template_comes_back() {
    let mut cluster = Cluster::begun(3);
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 2,
        has_started: true,
        words: Some("ended with exit code 1".to_owned()),
        ..Newcomer::default()
    });
    let decision = cluster.pass();
    assert_eq!(
        *halt_of(&decision),
        Halt {
            template: "b".to_owned(),
            node: "w1".to_owned(),
            cause: "its new proxy has ended 2 times: ended with exit code 1".to_owned(),
        }
    );
    assert!(matches!(decision.phase, Phase::RollsBack(_)));
    assert_eq!(
        (cluster.in_place(), &cluster.facts.target.gate),
        ("a", &Gate::default())
    );
    cluster.facts.is_complete = true;
    let decision = cluster.pass();
    assert!(matches!(
        decision.phase,
        Phase::Halted {
            is_rolled_back: true,
            ..
        }
    ));
    assert_eq!(cluster.wait(100_000), decision, "it stands");
}

#[test]
fn a_newcomer_that_never_takes_halts_the_rollout_after_a_minute() {
    let mut cluster = Cluster::begun(3);
    cluster.start_on("w1");
    cluster.pass();
    assert!(cluster.wait(60).phase.halt().is_none());
    let decision = cluster.wait(5);
    assert!(
        halt_of(&decision)
            .cause
            .contains("to take over and to become ready")
    );
    assert_eq!(cluster.in_place(), "a");
}

#[test]
fn an_operator_that_has_just_started_gives_nodes_the_time_to_go_on() {
    let mut cluster = Cluster::begun(3);
    cluster.start_on("w1");
    cluster.pass();
    cluster.facts.now += 1000;
    assert!(cluster.decide(Duration::from_secs(10)).phase.halt().is_none());
    assert!(cluster.decide(WATCHED).phase.halt().is_some());
}

#[test]
fn a_proxy_that_ends_twice_during_its_soak_halts_the_rollout() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.node("w1").newcomer = Some(Newcomer { ends: 1, ..ready() });
    assert!(
        cluster.pass().phase.halt().is_none(),
        "containerd may have restarted"
    );
    cluster.node("w1").newcomer = Some(Newcomer { ends: 2, ..ready() });
    assert_eq!(halt_of(&cluster.pass()).node, "w1");
}

#[test]
fn a_first_node_that_becomes_not_ready_halts_the_rollout() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.node("w1").aside = Some(Aside::NotReady);
    assert_eq!(halt_of(&cluster.pass()).node, "w1");
}

#[test]
fn a_first_node_that_is_deleted_is_replaced_by_another() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.start_on("w2");
    cluster.node("w1").aside = Some(Aside::RunsNoPods);
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w2"));
    cluster.facts.nodes.retain(|node| node.name != "w2");
    assert_eq!(cluster.pass().target.gate, Gate::closed());
}

#[test]
fn a_node_that_is_not_ready_is_never_the_first_and_holds_up_no_wave() {
    let mut cluster = Cluster::begun(3);
    cluster.node("w1").aside = Some(Aside::NotReady);
    cluster.start_on("w1");
    assert_eq!(cluster.wait(100).phase, Phase::Starts);
    cluster.start_on("w2");
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w2"));
    cluster.node("w2").newcomer = Some(ready());
    let decision = cluster.wait(SOAK_SECONDS + 5);
    let awaited = vec!["w3".to_owned()];
    assert_eq!(decision.phase, rest(&awaited));
}

#[test]
fn the_first_node_is_one_without_trouble_if_there_is_any() {
    let mut cluster = Cluster::begun(3);
    for name in ["w1", "w2"] {
        cluster.start_on(name);
    }
    let troubled = Reported {
        template: "a".to_owned(),
        not_up: ["cp1".to_owned()].into(),
        ..Reported::default()
    };
    cluster.node("w1").report = Some(troubled);
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w2"));
}

#[test]
fn after_the_soak_one_restart_is_no_sign_and_two_are() {
    let mut cluster = Cluster::with_rest(3);
    cluster.node("w2").newcomer = Some(Newcomer { ends: 1, ..ready() });
    assert!(cluster.pass().phase.halt().is_none());
    cluster.node("w2").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    assert_eq!(halt_of(&cluster.pass()).node, "w2");
    assert_eq!(cluster.in_place(), "a");
}

#[test]
fn one_node_that_is_lost_with_the_new_proxy_is_left_aside_and_two_halt_the_rollout() {
    let mut cluster = Cluster::with_rest(5);
    for name in ["w2", "w3"] {
        cluster.node(name).newcomer = Some(ready());
    }
    cluster.node("w2").aside = Some(Aside::NotReady);
    assert!(cluster.pass().phase.halt().is_none());
    cluster.node("w3").aside = Some(Aside::NotReady);
    assert!(halt_of(&cluster.pass()).cause.ends_with("w2, w3"));
}

#[test]
fn a_rollout_without_progress_halts_after_the_deadline() {
    let mut cluster = Cluster::with_rest(4);
    cluster.wait(595);
    cluster.node("w2").newcomer = Some(ready());
    assert!(cluster.wait(600).phase.halt().is_none(), "there was progress");
    let decision = cluster.wait(10);
    assert_eq!(halt_of(&decision).node, "w3");
    assert_eq!(cluster.in_place(), "a");
}

#[test]
fn a_template_of_which_no_pod_starts_halts_after_the_deadline() {
    let mut cluster = Cluster::begun(3);
    cluster.node("w1").newcomer = Some(Newcomer {
        words: Some("ErrImagePull: no such image".to_owned()),
        ..Newcomer::default()
    });
    assert_eq!(cluster.wait(605).phase, Phase::Starts);
    let decision = cluster.wait(5);
    assert_eq!(halt_of(&decision).node, "w1");
    assert!(halt_of(&decision).cause.ends_with("ErrImagePull: no such image"));
}

#[test]
fn a_failed_template_that_comes_again_is_not_tried_and_another_is() {
    let mut cluster = Cluster::begun(3);
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    cluster.pass();
    cluster.facts.is_complete = true;
    cluster.wanted = "a".to_owned();
    assert_eq!(cluster.pass().phase, Phase::Settled);
    cluster.wanted = "b".to_owned();
    let decision = cluster.wait(1000);
    assert!(matches!(
        decision.phase,
        Phase::Halted {
            is_rolled_back: true,
            ..
        }
    ));
    assert_eq!(cluster.in_place(), "a");
    cluster.wanted = "c".to_owned();
    assert!(cluster.pass().begins);
    assert_eq!(cluster.in_place(), "c");
}

#[test]
fn a_good_template_that_cannot_be_read_leaves_the_gate_closed() {
    let mut cluster = Cluster::begun(3);
    cluster.reads_revisions = false;
    cluster.node("w1").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    let decision = cluster.wait(1000);
    assert!(matches!(
        decision.phase,
        Phase::Halted {
            is_rolled_back: false,
            ..
        }
    ));
    assert_eq!((cluster.in_place(), decision.target.gate), ("b", Gate::closed()));
    cluster.reads_revisions = true;
    cluster.pass();
    assert_eq!(cluster.in_place(), "a");
}

#[test]
fn the_owner_goes_back_to_the_good_template_without_a_gate() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.wanted = "a".to_owned();
    let decision = cluster.pass();
    assert_eq!(decision.phase, Phase::Ungated);
    assert!(decision.target.gate.is_open());
    assert_eq!(cluster.pass().phase, Phase::Settled);
}

#[test]
fn a_third_template_amid_a_rollout_is_gated_and_the_good_one_stays_the_first() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.wanted = "c".to_owned();
    let decision = cluster.pass();
    assert_eq!(decision.target.gate, Gate::closed());
    cluster.node("w2").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    cluster.pass();
    assert_eq!(cluster.in_place(), "a");
}

#[test]
fn a_paused_pool_begins_no_wave() {
    let mut cluster = Cluster::of(3);
    cluster.rollout.policy = RolloutPolicy::Paused;
    cluster.wanted = "b".to_owned();
    assert_eq!(cluster.wait(1000).phase, Phase::Paused);
    assert_eq!(cluster.in_place(), "a", "no pod of it starts");

    // Paused once its pods are there.
    let mut cluster = Cluster::begun(3);
    cluster.start_on("w1");
    cluster.rollout.policy = RolloutPolicy::Paused;
    let decision = cluster.wait(1000);
    assert_eq!(
        (decision.phase, decision.target.gate),
        (Phase::Paused, Gate::closed())
    );
    cluster.rollout.policy = RolloutPolicy::Automatic;
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w1"));
}

#[test]
fn a_pause_after_the_first_node_keeps_the_others_and_is_no_time_without_progress() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.rollout.policy = RolloutPolicy::Paused;
    let decision = cluster.wait(1000);
    assert_eq!(
        (decision.phase, decision.target.gate),
        (Phase::Paused, Gate::of_node("w1"))
    );
    cluster.rollout.policy = RolloutPolicy::Automatic;
    let decision = cluster.pass();
    assert!(
        decision.target.gate.is_open() && decision.phase.halt().is_none(),
        "{decision:?}"
    );
}

#[test]
fn an_operator_that_noted_nothing_leaves_a_rollout_as_it_goes() {
    let mut cluster = Cluster::of(3);
    cluster.facts.record = Record::default();
    cluster.facts.is_complete = false;
    assert_eq!(cluster.pass().phase, Phase::Ungated);
    // The template in place is the best that is known.
    cluster.wanted = "b".to_owned();
    assert!(cluster.pass().begins);
    assert_eq!(cluster.facts.record.good, "a");
}

#[test]
fn a_write_of_the_document_alone_changes_nothing_of_what_follows() {
    let mut cluster = Cluster::begun(3);
    for name in ["w1", "w2"] {
        cluster.start_on(name);
    }
    let opened = cluster.decide(WATCHED_LONG);
    cluster.facts.target = opened.target;
    cluster.node("w1").report = Some(Reported {
        not_listening: vec!["127.0.0.1:7443".to_owned()],
        ..Reported::default()
    });
    assert_eq!(cluster.pass().target.gate, Gate::of_node("w1"), "no second node");
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut cluster = Cluster::with_first_ready(3);
    cluster.facts.now = 10;
    assert!(cluster.wait(SOAK_SECONDS + 5).target.gate.is_open());
}

#[test]
fn young_proxies_are_not_made_unavailable() {
    let mut cluster = Cluster::of(2);
    cluster.wanted = "b".to_owned();
    cluster.node("w2").newcomer = Some(Newcomer {
        ready_at: Some(cluster.facts.now - 30),
        ..ready()
    });
    assert_eq!(cluster.decide(WATCHED_LONG).min_ready_seconds, 5);
    cluster.facts.now += 60;
    assert_eq!(cluster.pass().min_ready_seconds, HOLD_SECONDS);
    // The new one is young, and is none of those.
    cluster.start_on("w1");
    cluster.node("w1").newcomer = Some(Newcomer {
        ready_at: Some(cluster.facts.now),
        ..ready()
    });
    assert_eq!(cluster.pass().min_ready_seconds, HOLD_SECONDS);
}

#[test]
fn while_a_spec_is_rejected_a_rollout_comes_to_its_end_and_none_begins() {
    let decide = |cluster: &Cluster| {
        let mut facts = cluster.facts.clone();
        facts.good = Some(content("a"));
        decide_in_place(&cluster.rollout, &facts, WATCHED_LONG)
    };
    assert_eq!(decide(&Cluster::of(3)), None);
    let mut cluster = Cluster::with_rest(3);
    let goes_on = decide(&cluster).unwrap();
    assert!(matches!(goes_on.phase, Phase::Rest { .. }));
    assert_eq!(goes_on.template, Some(content("b")));
    cluster.node("w2").newcomer = Some(Newcomer {
        ends: 2,
        ..newcomer()
    });
    let fails = decide(&cluster).unwrap();
    assert!(matches!(fails.phase, Phase::RollsBack(_)));
    assert_eq!(
        (fails.template, fails.target.template.as_str()),
        (Some(content("a")), "a")
    );
}
