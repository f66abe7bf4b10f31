//! While a spec is rejected, the last good one stays in force and its discovery goes on: masters that join are added, and
//! nothing is taken away.

use super::*;
use crate::plan::endpoints::Endpoint;
use crate::plan::sight::BLIND_AFTER;

/// What an owner does to a spec that the operator rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// A port for two purposes.
    Port,
    /// A list of members that do not answer, without discovery.
    Members,
    /// A listener where another pool serves.
    Listener,
}

const MISTAKES: [Mistake; 3] = [Mistake::Port, Mistake::Listener, Mistake::Members];

impl World {
    /// Makes the spec one that is rejected.
    fn make(&mut self, mistake: Mistake) {
        self.pool.metadata.generation = self.pool.metadata.generation.map(|last| last + 1);
        match mistake {
            Mistake::Port => self.pool.spec.proxy.metrics.port = 7443,
            Mistake::Members => {
                self.pool.spec.discovery.policy = DiscoveryPolicy::None;
                self.facts.discovered = Discovered::Off;
                self.list("typo", &["10.0.0.99"], PoolMemberState::Active);
            }
            Mistake::Listener => {
                let claim = (IpAddr::from([127, 0, 0, 1]), 7443);
                self.facts.rivals = vec![older_at(claim)];
            }
        }
    }

    /// What discovery finds by the last good spec, also where the rejected one switches it off.
    fn find(&mut self, numbers: &[u8]) {
        let is_off = self.facts.discovered == Discovered::Off;
        self.discover(numbers);
        self.facts.discovered_by_last_good = self.facts.discovered.clone();
        if is_off {
            self.facts.discovered = Discovered::Off;
        }
    }

    /// The master `name` reports these addresses.
    fn report(&mut self, name: &str, numbers: &[u8]) {
        let addresses: Vec<_> = numbers.iter().map(|number| ip(*number)).collect();
        for discovered in [
            &mut self.facts.discovered,
            &mut self.facts.discovered_by_last_good,
        ] {
            let Discovered::Masters(masters) = discovered else {
                continue;
            };
            let mut masters = masters.iter_mut();
            masters.find(|master| master.name == name).unwrap().addresses = addresses.clone();
        }
    }

    fn document(&self) -> Document {
        self.facts.current.document.clone().unwrap()
    }

    fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        let mut members = self.facts.current.members.iter();
        members
            .find(|member| member.name == name)
            .unwrap()
            .addresses
            .clone()
    }
}

/// What the condition says beside the reason.
fn told(plan: &Plan) -> String {
    match &plan.verdict {
        Verdict::Rejected { notes, .. } => notes.join("; "),
        Verdict::Accepted { .. } | Verdict::Paused { .. } => panic!("{plan:?}"),
    }
}

#[test]
fn a_master_that_joins_is_added_and_everything_else_stays() {
    for mistake in MISTAKES {
        let mut world = World::with_masters(3);
        let before = world.document();
        let marks = world.facts.current.marks.clone();
        world.make(mistake);
        world.pool.spec.connection.drain_timeout_seconds = 5;
        world.pool.spec.balancing.locality = Locality::PreferLocal;
        assert!(world.pass().rollout.is_none(), "{mistake:?}");

        world.find(&[1, 2, 3, 4]);
        world.alive.push(4);
        let plan = world.pass();
        assert_ne!(rejected(&plan), "");
        let rollout = plan.rollout.as_ref().unwrap();
        assert!(rollout.proxies.is_none(), "the DaemonSet stays as it is");
        assert_eq!(rollout.marks, marks);
        assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
        let after = world.document();
        assert_eq!(after.revision, before.revision + 1);
        assert_eq!(plan.revision, after.revision);
        let mut grown = before.clone();
        grown.members = after.members.clone();
        assert!(after.same_content(&grown), "only the members differ");
        assert_eq!(after.members[..3], before.members[..]);
        assert!(
            told(&plan).contains("new masters that answer are still added"),
            "{plan:?}"
        );
        assert_eq!(plan.members.len(), 4);

        assert!(world.pass().rollout.is_none(), "nothing is left to be written");
    }
}

#[test]
fn masters_that_are_replaced_one_by_one_never_leave_the_proxies_without_one() {
    for mistake in MISTAKES {
        let mut world = World::with_masters(3);
        world.make(mistake);
        for new in 4..=9u8 {
            let masters: Vec<_> = (new - 2..=new).collect();
            world.find(&masters);
            world.alive = masters;
            world.wait(DELAY * 2);
            let members = world.facts.current.members.iter();
            let living = members.filter(|member| world.facts.healths.is_up(&member.addresses, member.port));
            assert_eq!(living.count(), 3, "{mistake:?}");
        }
        assert_eq!(world.names().len(), 9, "removals wait");
    }
}

#[test]
fn removals_wait_until_the_spec_is_accepted_again() {
    let mut world = World::with_masters(4);
    world.make(Mistake::Port);
    world.discover(&[1, 2, 3, 5]);
    world.alive = vec![1, 2, 3, 5];
    world.wait(DELAY * 3);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4", "cp5"]);
    world.pool.spec.proxy.metrics.port = 7444;
    assert_eq!(rejected(&world.wait(DELAY)), "");
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp5"]);
}

#[test]
fn the_time_of_absence_does_not_begin_while_only_a_rejected_spec_is_without_a_member() {
    let mut world = World::with_masters(3);
    let by_last_good = world.facts.discovered.clone();
    world.make(Mistake::Port);
    // A selector that matches other nodes.
    world.discover(&[7, 8]);
    world.alive = vec![1, 2, 7, 8];
    let step = Duration::from_secs(5);
    for _ in 0..=DELAY.as_secs() / step.as_secs() {
        world.facts.discovered_by_last_good = by_last_good.clone();
        world.probe();
        let plan = plan(&world.pool, &world.facts).unwrap();
        assert_ne!(rejected(&plan), "");
        world.facts.memory = plan.memory;
        world.facts.now += step;
    }
    world.pool.spec.proxy.metrics.port = 7444;
    assert_eq!(rejected(&world.pass()), "");
    let delay = DELAY.saturating_sub(step);
    world.wait(delay);
    assert!(world.names().contains(&"cp3".to_owned()), "{:?}", world.names());
    world.wait(step * 2);
    assert!(!world.names().contains(&"cp3".to_owned()), "{:?}", world.names());
}

#[test]
fn a_rejected_removal_delay_does_not_make_the_operator_forget_removals() {
    let mut world = World::with_masters(5);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    world.wait(DELAY);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    world.pass();
    assert_eq!(world.facts.memory.removals.len(), 2);
    world.make(Mistake::Port);
    world.pool.spec.discovery.removal_delay_seconds = 5;
    world.wait(Duration::from_secs(10));
    assert_eq!(world.facts.memory.removals.len(), 2);
}

#[test]
fn a_master_that_does_not_answer_is_not_added_and_is_told() {
    let mut world = World::with_masters(3);
    world.make(Mistake::Port);
    world.discover(&[1, 2, 3, 4]);
    let plan = world.wait(DELAY);
    assert!(plan.rollout.is_none());
    assert!(told(&plan).contains("nothing is verified there: cp4"), "{plan:?}");
    let address = SocketAddr::new(ip(4), 6443);
    world
        .facts
        .healths
        .observe(address, Answer::Untrusted("expired".to_owned()), world.facts.now);
    assert!(world.pass_unprobed().rollout.is_none());
    world.alive.push(4);
    assert!(world.pass().rollout.is_some());
}

#[test]
fn a_new_address_of_a_member_is_kept_beside_the_old_ones() {
    let mut world = World::with_masters(3);
    world.make(Mistake::Port);
    world.report("cp2", &[12]);
    let plan = world.pass();
    assert!(plan.rollout.is_none(), "nothing answers there");
    world.alive = vec![1, 3, 12];
    world.wait(DELAY * 2);
    assert_eq!(world.addresses_of("cp2"), [ip(2), ip(12)]);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    world.pool.spec.proxy.metrics.port = 7444;
    world.pass();
    assert_eq!(world.addresses_of("cp2"), [ip(12)]);
}

#[test]
fn a_member_that_is_set_aside_does_not_come_back() {
    // In force, and then only in the rejected spec.
    for is_in_force in [true, false] {
        for (state, listed) in [
            (PoolMemberState::Disabled, &[][..]),
            (PoolMemberState::Disabled, &["10.0.0.4"][..]),
            (PoolMemberState::Draining, &[][..]),
        ] {
            let mut world = World::with_masters(3);
            if is_in_force {
                world.discover(&[1, 2, 3, 4]);
                world.alive.push(4);
                world.list("cp4", listed, state);
                world.pass();
                let count = if state == PoolMemberState::Disabled { 3 } else { 4 };
                assert_eq!(world.names().len(), count);
                world.pool.spec.members.clear();
            } else {
                world.list("cp4", listed, state);
            }
            world.make(Mistake::Port);
            world.find(&[1, 2, 3, 4]);
            world.alive.push(4);
            world.wait(Duration::from_secs(20));
            let members = &world.facts.current.members;
            let is_active = |member: &wire::Member| member.state == wire::MemberState::Active;
            assert!(
                !members
                    .iter()
                    .any(|member| member.name == "cp4" && is_active(member)),
                "{state:?}, {members:?}"
            );
            // Also where its node names another address.
            world.report("cp4", &[14]);
            world.alive = vec![1, 2, 3, 14];
            world.wait(DELAY * 2);
            let members = &world.facts.current.members;
            let mut others = members.iter().filter(|member| is_active(member));
            assert!(
                others.all(|member| !member.addresses.contains(&ip(14))),
                "{state:?}, {members:?}"
            );
        }
    }
}

#[test]
fn a_disabled_node_does_not_come_back_by_its_endpoint() {
    let mut world = World::with_masters(3);
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
    world.pool.spec.members.clear();
    world.make(Mistake::Port);
    world.facts.endpoints = Some(vec![Endpoint {
        socket: SocketAddr::new(ip(13), 6443),
        node_name: "cp3".to_owned(),
    }]);
    world.alive = vec![1, 3, 13];
    world.wait(DELAY);
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn a_pool_without_discovery_grows_by_its_names_alone() {
    let name = "api.example.com";
    let mut world = World::with_masters(0);
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.alive = vec![1, 2, 9];
    world.list("a", &["10.0.0.1"], PoolMemberState::Active);
    world.list("b", &[name], PoolMemberState::Active);
    world.facts.resolved = [(name.to_owned(), Ok(vec![ip(2)]))].into();
    world.pass();
    assert_eq!(world.names(), ["a", "b"]);
    world.make(Mistake::Port);
    world.pool.spec.discovery.policy = DiscoveryPolicy::Nodes;
    world.pool.spec.members.clear();
    world.discover(&[9]);
    let plan = world.pass();
    assert!(plan.rollout.is_none(), "the last good spec has no discovery");
    assert!(!told(&plan).contains("added"), "{plan:?}");
    world.facts.resolved = [(name.to_owned(), Ok(vec![ip(2), ip(9)]))].into();
    world.pass();
    assert_eq!(world.addresses_of("b"), [ip(2), ip(9)]);
}

#[test]
fn a_rejected_selector_decides_nothing() {
    let mut world = World::with_masters(3);
    world.make(Mistake::Port);
    world.pool.spec.discovery.port = 7000;
    world.discover(&(10..=40).collect::<Vec<_>>());
    world.alive.push(20);
    world.facts.discovered_by_last_good = Discovered::Masters(vec![Master {
        name: "cp4".to_owned(),
        addresses: vec![ip(4)],
        ..Master::default()
    }]);
    world.alive.push(4);
    world.probe();
    let plan = plan(&world.pool, &world.facts).unwrap();
    let document = plan.rollout.unwrap().document;
    let added = document.members.last().unwrap();
    assert_eq!((added.name.as_str(), added.port), ("cp4", 6443));
    assert_eq!(document.members.len(), 4);
}

#[test]
fn a_rejected_server_name_does_not_decide_which_masters_are_verified() {
    let mut world = World::with_masters(3);
    world.make(Mistake::Port);
    world.find(&[1, 2, 3, 4]);
    world.report("cp1", &[11]);
    world.alive = vec![2, 3, 4, 11];
    world.probe();
    world.facts.healths_by_last_good = Some(world.facts.healths.clone());
    world.facts.now += Duration::from_secs(2);
    for number in 1..=40 {
        let (address, answer) = (
            SocketAddr::new(ip(number), 6443),
            Answer::Untrusted("its name".to_owned()),
        );
        world.facts.healths.observe(address, answer, world.facts.now);
    }
    world.pass_unprobed();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
    assert_eq!(world.addresses_of("cp1"), [ip(1), ip(11)]);
}

#[test]
fn a_blind_operator_adds_what_discovery_finds_and_says_so() {
    let mut world = World::with_masters(3);
    world.restart();
    world.alive.clear();
    world.make(Mistake::Port);
    world.find(&[1, 2, 3, 4]);
    assert!(world.pass().rollout.is_none(), "it has just started");
    let plan = world.wait(BLIND_AFTER);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
    assert!(told(&plan).contains("adds masters without a check"), "{plan:?}");
    assert!(world.pass().rollout.is_none());
}

#[test]
fn a_blind_operator_adds_nothing_unchecked_from_a_selector_that_matches_too_many() {
    let mut world = World::with_masters(3);
    world.restart();
    world.alive.clear();
    world.wait(BLIND_AFTER);
    world.discover(&(1..=100).collect::<Vec<_>>());
    let plan = world.pass();
    assert_eq!(rejected(&plan), "TooManyMembers");
    assert_eq!(world.names().len(), 3);
}

#[test]
fn what_has_no_room_is_told_and_nothing_else_is_held_up() {
    let mut world = World::with_masters(3);
    world.discover(&(1..=100).collect::<Vec<_>>());
    world.alive = (1..=40).collect();
    let plan = world.pass();
    assert_eq!(rejected(&plan), "TooManyMembers");
    assert_eq!(world.names().len(), 40, "those that answer are added");
    assert!(
        told(&plan).contains("is verified there: cp41, cp42, cp43, cp44, cp45, and 19 more"),
        "{plan:?}"
    );

    let mut world = World::with_masters(1);
    world.make(Mistake::Port);
    for number in 11..=15 {
        world.report("cp1", &[number]);
        world.alive = vec![number];
        world.wait(DELAY * 2);
    }
    assert_eq!(world.addresses_of("cp1"), [ip(1), ip(11), ip(12), ip(13)]);
    let plan = world.pass();
    assert!(plan.rollout.is_none());
    assert!(told(&plan).contains("10.0.0.15 of cp1 is not added"), "{plan:?}");
}

#[test]
fn without_a_document_in_force_nothing_is_written_or_promised() {
    let mut world = World::with_masters(0);
    world.make(Mistake::Port);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    let plan = world.pass();
    assert!(plan.rollout.is_none());
    assert_eq!(told(&plan), "");
}

#[test]
fn a_document_of_an_earlier_release_tells_its_discovery_by_its_members() {
    let mut world = World::with_masters(3);
    world.facts.current.marks.discovery = None;
    world.make(Mistake::Members);
    world.find(&[1, 2, 3, 4]);
    world.alive.push(4);
    world.pass();
    assert_eq!(world.names().len(), 4);
    assert_eq!(
        world.facts.current.marks.discovery, None,
        "the marks stay as they are"
    );
}

#[derive(Clone, Debug)]
enum Event {
    Find(Vec<u8>),
    Alive(Vec<u8>),
    Report(u8, Vec<u8>),
    Restart,
    Fail(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let some = |least| proptest::collection::btree_set(1..=9u8, least..=9);
    let some = move |least| some(least).prop_map(|numbers| numbers.into_iter().collect::<Vec<_>>());
    prop_oneof![
        3 => some(0).prop_map(Event::Find),
        3 => some(0).prop_map(Event::Alive),
        3 => (1..=9u8, proptest::collection::vec(11..=20u8, 0..3)).prop_map(|(number, at)| Event::Report(number, at)),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Fail),
    ]
}

proptest! {
    #![proptest_config(cases(96))]

    /// Whatever happens while a rejection stands, nothing is taken from the document, and only what answers is added
    /// unless the operator is blind.
    #[test]
    fn while_a_rejection_stands_the_document_only_grows(
        mistake in proptest::sample::select(&MISTAKES[..]),
        events in proptest::collection::vec((event(), 0..400u64), 1..12),
    ) {
        let mut world = World::with_masters(3);
        world.make(mistake);
        for (event, seconds) in events {
            match event {
                Event::Find(numbers) => world.find(&numbers),
                Event::Alive(numbers) => world.alive = numbers.iter().flat_map(|number| [*number, number + 10]).collect(),
                Event::Report(number, at) => {
                    let name = format!("cp{number}");
                    let found = &world.facts.discovered_by_last_good;
                    let Discovered::Masters(masters) = found else { continue };
                    if masters.iter().any(|master| master.name == name) {
                        world.report(&name, &at);
                    }
                }
                Event::Restart => world.restart(),
                Event::Fail(fail) => world.writes = if fail { Writes::Fail } else { Writes::Arrive },
            }
            let before = world.document();
            let is_blind = sight::is_blind(&world.facts);
            let plan = world.pass();
            // The edit of members is judged by what the operator sees; a blind one may obey it.
            if rejected(&plan).is_empty() {
                prop_assert_eq!(mistake, Mistake::Members);
                break;
            }
            if let Some(rollout) = &plan.rollout {
                let after = &rollout.document;
                prop_assert!(rollout.proxies.is_none());
                prop_assert!(after.revision > before.revision);
                for (old, new) in before.members.iter().zip(&after.members) {
                    prop_assert!(new.addresses.starts_with(&old.addresses));
                    prop_assert_eq!(&wire::Member { addresses: old.addresses.clone(), ..new.clone() }, old);
                }
                prop_assert!(after.members.len() >= before.members.len());
                let had: Vec<_> = before.members.iter().flat_map(wire::Member::sockets).collect();
                for socket in after.members.iter().flat_map(wire::Member::sockets).filter(|socket| !had.contains(socket)) {
                    let is_verified = world.facts.healths.is_verified(&[socket.ip()], socket.port());
                    prop_assert!(is_verified || is_blind || sight::is_blind(&world.facts), "{} is not verified", socket);
                }
            }
            prop_assert!(world.writes == Writes::Fail || world.pass().rollout.is_none(), "a write at rest");
            world.facts.now += Duration::from_secs(seconds);
        }
    }
}

#[test]
fn a_rollout_that_fails_while_a_spec_is_rejected_is_rolled_back() {
    use crate::plan::wave::{Newcomer, NodeFacts, Record, Template, WaveFacts};
    let mut world = World::with_masters(3);
    let good = Arc::default();
    world.pool.spec.proxy.metrics.port = 7443;
    world.facts.waves = WaveFacts {
        now: 1000,
        in_place: Some(Template {
            hash: "bad".to_owned(),
            ..Template::default()
        }),
        good: Some(good),
        record: Record {
            good: "good".to_owned(),
            ..Record::default()
        },
        nodes: vec![NodeFacts {
            name: "w1".to_owned(),
            has_earlier: true,
            newcomer: Some(Newcomer {
                ends: 2,
                ..Newcomer::default()
            }),
            ..NodeFacts::default()
        }],
        ..WaveFacts::default()
    };
    let plan = world.pass();
    assert_eq!(rejected(&plan), "Invalid");
    assert_eq!(plan.waves.halt().unwrap().node, "w1");
    let rollout = plan.rollout.unwrap();
    assert_eq!(rollout.document.rollout.template, "good");
    assert!(rollout.document.rollout.gate.is_open() && rollout.proxies.unwrap().template.is_some());
}
