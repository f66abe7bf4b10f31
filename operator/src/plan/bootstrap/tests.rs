//! What the writer does in each situation, and what it never does in any.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const SOAK: Duration = Duration::from_secs(300);
const OWN: &str = "/etc/kubernetes/manifests";
const OTHER: &str = "/etc/kubelet.d";

fn static_pods(directory: &str) -> NodeBootstrap {
    NodeBootstrap {
        policy: BootstrapPolicy::StaticPod,
        manifest_path: directory.to_owned(),
    }
}

fn none() -> NodeBootstrap {
    NodeBootstrap::default()
}

fn writer(task: Task, template: &str, is_done: bool) -> Writer {
    Writer {
        target: Target {
            task,
            directory: OWN.to_owned(),
        },
        template: template.to_owned(),
        is_done,
    }
}

/// Proxies of this template that are available on all nodes.
fn complete(template: &str) -> Availability {
    Availability {
        template: template.to_owned(),
        is_complete: true,
        without: Some(Vec::new()),
    }
}

fn replacing(template: &str) -> Availability {
    Availability {
        is_complete: false,
        ..complete(template)
    }
}

fn soaked(template: &str, time: Duration) -> Soak {
    let mut soak = Soak::default();
    let now = Instant::now();
    for second in 0..=time.as_secs() {
        soak.observe(template, true, now + Duration::from_secs(second));
    }
    soak
}

fn facts(writer: Option<Writer>, proxies: Availability) -> BootstrapFacts {
    BootstrapFacts {
        is_allowed: true,
        has_pull_secrets: false,
        soak: SOAK,
        writer,
        proxies,
    }
}

/// Each situation with its decision: what the pool wants, what the writer in place does (for which template), the proxies, the
/// time that the template `new` has soaked; the writer's task and the phase.
const TABLE: &str = "
    off             none   -               complete   long   -             Off
    first           own    -               complete   short  Write:own     Writes
    no-proxies-yet  own    -               replacing  long   -             AwaitsProxies
    old-proxies     own    -               old        long   -             AwaitsProxies
    resting         none   Rest/old/done   complete   long   -             Off
    again           own    Rest/old/done   complete   short  Write:own     Writes
    settled         own    Write/new/done  complete   short  Write:own     Writes
    rolled-back     own    Write/new/done  replacing  short  Write:own     Writes
    rollout         own    Write/old/done  replacing  long   -             AwaitsRollout
    not-begun       own    Write/old/done  old        long   -             AwaitsRollout
    soaking         own    Write/old/done  complete   short  -             Soaks
    soaked          own    Write/old/done  complete   long   Write:own     Writes
    retired         none   Write/old/done  complete   short  Remove:own    Removes
    no-way          none   Write/new/done  lost       long   -             AwaitsWay([\"w1\"])
    way-unknown     none   Write/new/done  unknown    long   -             AwaitsWay([])
    way-replaced    none   Write/new/done  replacing  long   -             AwaitsWay([])
    other-place     other  Write/new/done  complete   long   Remove:own    Removes
    removing        none   Remove/old/     complete   short  Remove:own    Removes
    held            none   Remove/old/     replacing  long   -             Removes
    removed         none   Remove/new/done replacing  short  Rest:own      Off
    back            own    Remove/new/     complete   short  Write:own     Writes
    back-at-once    own    Remove/new/     replacing  short  Write:own     Writes
    back-old        own    Remove/old/     old        short  Write:own     Writes
    back-lost       own    Remove/old/     lost       short  Write:own     Writes
    not-back-yet    own    Remove/new/done replacing  long   -             AwaitsProxies
    moved           other  Remove/new/done complete   short  Write:other   Writes
    moving          other  Remove/new/     replacing  long   -             Removes
";

fn wanted_by(word: &str) -> NodeBootstrap {
    match word {
        "own" => static_pods(OWN),
        "other" => static_pods(OTHER),
        _ => none(),
    }
}

/// A writer as `TASK/TEMPLATE/done`.
fn in_place(word: &str) -> Option<Writer> {
    let mut parts = word.split('/');
    let task = [Task::Write, Task::Remove, Task::Rest];
    let name = parts.next()?;
    let task = task.into_iter().find(|task| format!("{task:?}") == name)?;
    Some(writer(task, parts.next()?, parts.next() == Some("done")))
}

fn proxies(word: &str) -> Availability {
    let complete = complete(if word == "old" { "old" } else { "new" });
    match word {
        "replacing" => replacing("new"),
        "lost" => Availability {
            without: Some(vec!["w1".to_owned()]),
            ..complete
        },
        "unknown" => Availability {
            without: None,
            ..complete
        },
        _ => complete,
    }
}

/// The decision as the table has it.
fn shown(decision: &Decision) -> [String; 2] {
    let place = |target: &Target| if target.directory == OWN { "own" } else { "other" };
    let target = decision.target.as_ref();
    let target = target.map(|target| format!("{:?}:{}", target.task, place(target)));
    [
        target.unwrap_or_else(|| "-".to_owned()),
        format!("{:?}", decision.phase),
    ]
}

#[test]
fn every_situation_has_its_decision() {
    let short = soaked("new", SOAK.saturating_sub(Duration::from_secs(1)));
    let long = soaked("new", SOAK);
    let mut rows = 0;
    for row in TABLE.lines().filter(|row| !row.trim().is_empty()) {
        let words: Vec<_> = row.split_whitespace().collect();
        let [name, wanted, writer, about, time, target, phase] = words[..] else {
            panic!("{row}")
        };
        let soak = if time == "long" { &long } else { &short };
        let facts = facts(in_place(writer), proxies(about));
        let decide = |facts: &BootstrapFacts| shown(&decide(&wanted_by(wanted), "new", facts, soak));
        assert_eq!(decide(&facts), [target, phase], "{name}");

        let forbidden = BootstrapFacts {
            is_allowed: false,
            ..facts
        };
        let is_nothing_to_do = matches!(name, "off" | "resting");
        let phase = if is_nothing_to_do { "Off" } else { "Forbidden" };
        assert_eq!(decide(&forbidden), ["-", phase], "{name}, forbidden");
        rows += 1;
    }
    assert_eq!(rows, 27);
}

#[test]
fn a_template_that_soaks_is_looked_at_when_it_is_due() {
    let facts = facts(in_place("Write/old/done"), complete("new"));
    let soak = soaked("new", SOAK.saturating_sub(Duration::from_secs(7)));
    let decision = decide(&static_pods(OWN), "new", &facts, &soak);
    assert_eq!(decision.next_look, Some(Duration::from_secs(7)));
}

#[test]
fn a_pull_secret_that_a_static_pod_cannot_name_is_told() {
    let secret = || Some(vec![serde_json::from_str(r#"{"name": "pull"}"#).unwrap()]);
    for (wanted, own, of_operator, is_told) in [
        (static_pods(OWN), secret(), false, true),
        (static_pods(OWN), None, true, true),
        (static_pods(OWN), Some(Vec::new()), true, false),
        (static_pods(OWN), None, false, false),
        (none(), secret(), true, false),
    ] {
        let proxy = ProxyTemplate {
            image_pull_secrets: own,
            ..ProxyTemplate::default()
        };
        let facts = BootstrapFacts {
            has_pull_secrets: of_operator,
            ..BootstrapFacts::default()
        };
        assert_eq!(pull_secrets_note(&wanted, &proxy, &facts).is_some(), is_told);
    }
}

/// What happens between two passes.
#[derive(Clone, Debug)]
enum Event {
    Want(Option<&'static str>),
    Edit(u8),
    Progress,
    Fail,
    Finish,
    Wait(u64),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        prop_oneof![Just(None), Just(Some(OWN)), Just(Some(OTHER))].prop_map(Event::Want),
        (0..3u8).prop_map(Event::Edit),
        Just(Event::Progress),
        Just(Event::Fail),
        Just(Event::Finish),
        (1..400u64).prop_map(Event::Wait),
        Just(Event::Restart),
    ]
}

/// A cluster, its operator, and time.
struct World {
    now: Instant,
    wanted: NodeBootstrap,
    template: String,
    facts: BootstrapFacts,
    soak: Soak,
    /// The directories that hold a manifest on some node.
    written: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            wanted: none(),
            template: "0".to_owned(),
            facts: facts(None, replacing("0")),
            soak: Soak::default(),
            written: BTreeSet::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Want(directory) => self.wanted = directory.map_or_else(none, static_pods),
            Event::Edit(number) => {
                self.template = number.to_string();
                if self.facts.proxies.template != self.template {
                    self.facts.proxies = replacing(&self.template);
                }
            }
            Event::Progress => self.facts.proxies = complete(&self.template),
            Event::Fail => {
                self.facts.proxies.is_complete = false;
                self.facts.proxies.without = Some(vec!["w1".to_owned()]);
            }
            Event::Finish => {
                if let Some(writer) = &mut self.facts.writer {
                    writer.is_done = true;
                    if writer.target.task == Task::Remove {
                        self.written.remove(&writer.target.directory);
                    }
                }
            }
            // Passes at which nothing has changed.
            Event::Wait(seconds) => {
                for _ in 0..*seconds {
                    self.look();
                    self.now += Duration::from_secs(1);
                }
            }
            Event::Restart => self.soak = Soak::default(),
        }
    }

    fn look(&mut self) {
        let proxies = &self.facts.proxies;
        self.soak
            .observe(&proxies.template, proxies.is_complete, self.now);
    }

    /// One pass, which checks its decision by what was in place before.
    fn pass(&mut self) -> Phase {
        self.look();
        let proxies = self.facts.proxies.clone();
        let Decision { target, phase, .. } = decide(&self.wanted, &self.template, &self.facts, &self.soak);
        let before = self.facts.writer.clone();
        let removes = |writer: &Writer| {
            writer.target.task == Task::Remove
                && !writer.is_done
                && static_pods(&writer.target.directory) == self.wanted
        };
        if before.as_ref().is_some_and(removes) {
            let task = target.as_ref().map(|target| target.task);
            assert_eq!(task, Some(Task::Write), "it removes what is wanted");
        }
        let Some(target) = target else { return phase };
        let has_all_proxies = proxies.is_complete && proxies.without == Some(Vec::new());
        let has_written = before.as_ref().is_some_and(|old| old.target.task == Task::Write);
        let is_new_template = before.as_ref().is_none_or(|old| old.template != self.template);
        match target.task {
            Task::Write => {
                assert_eq!(self.wanted, static_pods(&target.directory), "nobody wants it");
                let others = self.written.iter().filter(|place| **place != target.directory);
                assert_eq!(others.count(), 0, "a node would have two standbys");
                if has_written && is_new_template {
                    assert!(has_all_proxies, "the proxies do not have the template everywhere");
                    assert!(self.soak.passed(&self.template) >= SOAK, "it has not soaked");
                }
                self.written.insert(target.directory.clone());
            }
            Task::Remove => {
                assert_ne!(self.wanted, static_pods(&target.directory), "it is wanted");
                assert!(
                    !has_written || has_all_proxies,
                    "a node would have no way to the API"
                );
            }
            Task::Rest => assert!(self.written.is_empty(), "a manifest is left behind"),
        }
        let is_same = before
            .as_ref()
            .is_some_and(|old| old.target == target && !is_new_template);
        let is_done = before.filter(|_| is_same).is_some_and(|old| old.is_done);
        self.facts.writer = Some(Writer {
            target,
            template: self.template.clone(),
            is_done,
        });
        phase
    }
}

proptest! {
    #[test]
    fn no_course_of_events_cuts_a_node_off_or_leaves_two_standbys(events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.pass();
        }
        // Once all is quiet, the nodes have what the pool's owner wants.
        for _ in 0..4 {
            world.happen(&Event::Progress);
            world.happen(&Event::Wait(SOAK.as_secs()));
            world.pass();
            world.happen(&Event::Finish);
            world.pass();
        }
        let wanted: BTreeSet<_> = match world.wanted.policy {
            BootstrapPolicy::None => BTreeSet::new(),
            BootstrapPolicy::StaticPod => [world.wanted.manifest_path.clone()].into(),
        };
        prop_assert_eq!(&world.written, &wanted);
        if let Some(writer) = world.facts.writer.filter(|writer| writer.target.task == Task::Write) {
            prop_assert_eq!(writer.template, world.template);
        }
    }
}
