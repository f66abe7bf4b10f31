//! What a pool's owner may rely on, whatever discovery says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Resource;
use proptest::prelude::*;
use tokio::time::Instant;
use trivet_crds::pool::{DiscoveryPolicy, Locality, MemberHealth, PoolMember, PoolMemberState};

use super::bootstrap::BootstrapFacts;
use super::facts::Discovered;
use super::masters::Master;
use super::permission::ALLOW_SHRINK;
use super::rival::{Claim, Precedence, Rival};
use super::scope::in_place::InPlace;
use super::wave::WaveFacts;
use super::*;
use crate::health::{Answer, Healths};
use crate::reports::fleet::Fleet;

const DELAY: Duration = Duration::from_secs(300);

mod disabled;
mod edits;
mod families;
mod fitness;
mod further;
mod identity;
mod paused;
mod permissions;
mod rejections;
mod revisions;
mod sightings;
mod standing_rejections;
mod trust;

pub(crate) fn facts() -> Facts {
    Facts {
        now: Instant::now(),
        // Revisions count from 1; the tests of revisions have a clock.
        unix_seconds: 0,
        discovered: Discovered::Masters(Vec::new()),
        discovered_by_last_good: Discovered::Off,
        nodes: Vec::new(),
        endpoints: None,
        node_count: Some(5),
        fleet: Fleet::default(),
        resolved: BTreeMap::new(),
        current: Current::default(),
        healths: Healths::default(),
        healths_by_last_good: None,
        in_place: InPlace::default(),
        precedence: Precedence {
            created: 0,
            name: "default".to_owned(),
        },
        serving: Vec::new(),
        rivals: Vec::new(),
        authorities: "PEM".to_owned(),
        hindrances: Vec::new(),
        template: String::new(),
        bootstrap: BootstrapFacts::default(),
        waves: WaveFacts::default(),
        memory: Memory::default(),
    }
}

/// What a spec is told that is obeyed and has nothing to note.
pub(crate) fn accepted() -> Verdict {
    Verdict::Accepted {
        notes: Vec::new(),
        refused_removals: Vec::new(),
    }
}

/// A plan of these members at revision 4, in which nothing is under way.
pub(crate) fn settled(verdict: Verdict, members: Vec<Member>) -> Plan {
    Plan {
        verdict,
        rollout: None,
        members,
        revision: 4,
        endpoints: Vec::new(),
        memory: Memory::default(),
        bootstrap: Phase::Off,
        waves: wave::Phase::Settled,
        begins: None,
        hindrances: Vec::new(),
        next_look: None,
    }
}

/// A document that proxies follow.
pub(crate) fn document() -> Document {
    World::with_masters(1).facts.current.document.unwrap()
}

/// An older pool whose proxies serve at this address and port.
fn older_at(claim: Claim) -> Rival {
    Rival {
        precedence: Precedence {
            created: 1,
            name: "other".to_owned(),
        },
        has_pool: true,
        wanted: vec![claim],
        serving: vec![claim],
    }
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// A cluster, its operator, and time: each pass sees what the last one has written.
struct World {
    pool: ApiserverPool,
    facts: Facts,
    alive: Vec<u8>,
    /// What becomes of writes.
    writes: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Arrive,
    Fail,
}

impl World {
    /// A pool of the masters cp1..cpN, all alive, with its first document in force.
    fn with_masters(count: u8) -> Self {
        let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        pool.metadata.generation = Some(1);
        let mut world = Self {
            pool,
            facts: facts(),
            alive: (1..=count).collect(),
            writes: Writes::Arrive,
        };
        world.discover(&(1..=count).collect::<Vec<_>>());
        world.pass();
        world
    }

    /// A pool whose first spec lists its masters, with their addresses.
    fn with_listed_masters(count: u8) -> Self {
        let mut world = Self::with_masters(0);
        world.alive = (1..=count).collect();
        world.discover(&world.alive.clone());
        for number in 1..=count {
            world.list_master(number, "cp");
        }
        world.pass();
        world
    }

    /// Lists a master with its address and the name that begins so.
    fn list_master(&mut self, number: u8, prefix: &str) {
        let address = ip(number).to_string();
        self.list(&format!("{prefix}{number}"), &[&address], PoolMemberState::Active);
    }

    /// Sets the annotation that switches the guard off for this generation.
    fn allow_shrink(&mut self, generation: &str) {
        let annotation = (ALLOW_SHRINK.to_owned(), generation.to_owned());
        self.pool.meta_mut().annotations = Some([annotation].into());
    }

    /// Another operator goes on: what was in memory only is lost.
    fn restart(&mut self) {
        self.facts.memory = Memory::default();
        self.facts.healths = Healths::default();
    }

    fn discover(&mut self, numbers: &[u8]) {
        let masters = numbers.iter().map(|number| Master {
            name: format!("cp{number}"),
            addresses: vec![ip(*number)],
            ..Master::default()
        });
        self.facts.discovered = Discovered::Masters(masters.collect());
    }

    fn list(&mut self, name: &str, addresses: &[&str], state: PoolMemberState) {
        self.pool.spec.members.retain(|member| member.name != name);
        self.pool.spec.members.push(PoolMember {
            name: name.to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            port: 6443,
            state,
            zone: String::new(),
        });
    }

    /// Probes everything there is to probe.
    fn probe(&mut self) {
        let now = self.facts.now;
        for number in 1..=40 {
            let answer = if self.alive.contains(&number) {
                Answer::Ready
            } else {
                Answer::Silent
            };
            self.facts
                .healths
                .observe(SocketAddr::new(ip(number), 6443), answer, now);
        }
    }

    fn pass(&mut self) -> Plan {
        self.probe();
        self.pass_unprobed()
    }

    fn pass_unprobed(&mut self) -> Plan {
        match last_good::discovery(&self.facts.current).policy {
            DiscoveryPolicy::None => self.facts.discovered_by_last_good = Discovered::Off,
            // The masters that discovery had when the spec switched it off.
            _ if self.facts.discovered == Discovered::Off => {}
            _ => self.facts.discovered_by_last_good = self.facts.discovered.clone(),
        }
        let plan = plan(&self.pool, &self.facts).unwrap();
        if let Some(rollout) = &plan.rollout {
            let text = rollout.document.to_text().unwrap();
            assert_eq!(Document::parse(&text).unwrap(), rollout.document);
        }
        self.facts.memory = plan.memory.clone();
        // Only what the plan writes can be read back, annotations as well as the document.
        if let Some(rollout) = &plan.rollout
            && !rollout.is_written
            && self.writes == Writes::Arrive
        {
            self.facts.current = Current {
                document: Some(rollout.document.clone()),
                members: rollout.document.members.clone(),
                marks: rollout.marks.clone(),
                later: Later::default(),
                unreadable: None,
                told: vec![("the ConfigMap".into(), rollout.document.revision)],
                version: None,
                created: self.facts.current.created,
            };
        }
        plan
    }

    /// Lets `time` go by with a pass every few seconds, and returns the last one.
    fn wait(&mut self, time: Duration) -> Plan {
        let step = Duration::from_secs(5);
        let mut left = time;
        loop {
            let plan = self.pass();
            if left.is_zero() {
                return plan;
            }
            self.facts.now += step.min(left);
            left = left.saturating_sub(step);
        }
    }

    fn names(&self) -> Vec<String> {
        self.facts
            .current
            .members
            .iter()
            .map(|member| member.name.clone())
            .collect()
    }

    fn revision(&self) -> u64 {
        let told = self.facts.current.told.iter().map(|(_, revision)| *revision);
        told.max().unwrap_or_default()
    }
}

fn notes(plan: &Plan) -> String {
    match &plan.verdict {
        Verdict::Accepted { notes, .. } | Verdict::Paused { notes } => notes.join("; "),
        Verdict::Rejected { .. } => String::new(),
    }
}

fn rejected(plan: &Plan) -> &'static str {
    match &plan.verdict {
        Verdict::Rejected { rejection, .. } => rejection.reason(),
        Verdict::Accepted { .. } | Verdict::Paused { .. } => "",
    }
}

fn refused_removals(plan: &Plan) -> &[String] {
    match &plan.verdict {
        Verdict::Accepted { refused_removals, .. } => refused_removals,
        Verdict::Rejected { .. } | Verdict::Paused { .. } => &[],
    }
}

#[test]
fn an_empty_spec_is_a_pool_of_all_masters() {
    let mut world = World::with_masters(3);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    let plan = world.pass();
    assert_eq!(plan.endpoints, ["https://127.0.0.1:7443", "https://[::1]:7443"]);
    assert_eq!(plan.revision, 1);
}

#[test]
fn a_pass_that_changes_nothing_writes_nothing() {
    let mut world = World::with_masters(3);
    let plan = world.pass();
    assert!(plan.rollout.unwrap().is_written);
}

#[test]
fn a_new_master_is_a_member_at_once() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2, 3, 4]);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "cp4"]);
    assert_eq!(world.revision(), 2);
}

#[test]
fn a_master_that_is_gone_and_silent_is_removed_after_the_delay() {
    let mut world = World::with_masters(4);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    let plan = world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    assert_eq!(world.names().len(), 4);
    assert!(refused_removals(&plan).is_empty(), "waiting is no refusal");
    assert!(plan.next_look.unwrap() <= DELAY);
    let plan = world.wait(Duration::from_secs(10));
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
    assert!(plan.memory.absent.is_empty());
}

#[test]
fn a_master_that_still_answers_is_kept_and_the_owner_is_told_how_to_retire_it() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    let plan = world.wait(DELAY * 3);
    assert_eq!(world.names().len(), 3);
    assert!(refused_removals(&plan)[0].contains("state: Disabled"), "{plan:?}");
    world.list("cp3", &[], PoolMemberState::Disabled);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn only_a_minority_goes_within_one_delay() {
    let mut world = World::with_masters(5);
    world.discover(&[1]);
    world.alive = vec![1];
    let plan = world.wait(DELAY);
    assert_eq!(world.names().len(), 3);
    assert!(refused_removals(&plan)[0].contains("minority"), "{plan:?}");
    world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    assert_eq!(world.names().len(), 3);
    world.wait(Duration::from_secs(10));
    assert_eq!(world.names().len(), 2);
}

#[test]
fn nobody_is_removed_while_nobody_else_answers() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    world.alive.clear();
    let plan = world.wait(DELAY * 2);
    assert_eq!(world.names().len(), 3);
    assert!(refused_removals(&plan)[0].contains("cut off"), "{plan:?}");
}

#[test]
fn a_member_without_a_probe_is_not_removed() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    world.pass();
    world.facts.healths.retain(|address| address.ip() != ip(3));
    world.facts.now += DELAY * 2;
    world.pass_unprobed();
    assert_eq!(world.names().len(), 3);
}

#[test]
fn an_explicit_removal_is_obeyed_at_once() {
    let mut world = World::with_masters(3);
    world.list("extra", &["10.0.0.9"], PoolMemberState::Active);
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3", "extra"]);
    world.pool.spec.members.clear();
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
}

#[test]
fn an_edit_that_would_leave_no_healthy_member_changes_nothing() {
    let mut world = World::with_masters(3);
    for name in ["cp1", "cp2", "cp3"] {
        world.list(name, &[], PoolMemberState::Draining);
    }
    let revision = world.revision();
    let plan = world.pass();
    assert_eq!(rejected(&plan), "NoHealthyMember");
    assert!(plan.rollout.is_none());
    assert_eq!(world.revision(), revision);
    assert_eq!(plan.members.len(), 3);

    world.pool.spec.members.clear();
    world.pool.spec.discovery.policy = DiscoveryPolicy::None;
    world.facts.discovered = Discovered::Off;
    world.list("typo", &["10.0.0.99"], PoolMemberState::Active);
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
    assert_eq!(world.names().len(), 3);
}

#[test]
fn disabling_every_member_changes_nothing() {
    let mut world = World::with_masters(3);
    for name in ["cp1", "cp2", "cp3"] {
        world.list(name, &[], PoolMemberState::Disabled);
    }
    assert_eq!(rejected(&world.pass()), "NoHealthyMember");
    world.allow_shrink("1");
    assert_eq!(
        rejected(&world.pass()),
        "NoMembers",
        "not even its owner's yes empties a pool"
    );
    assert_eq!(world.names().len(), 3);
}

#[test]
fn an_edit_of_something_else_is_obeyed_while_all_members_are_down() {
    let mut world = World::with_masters(3);
    world.alive.clear();
    world.pool.spec.connection.drain_timeout_seconds = 5;
    let plan = world.wait(Duration::from_secs(10));
    assert_eq!(rejected(&plan), "");
    assert_eq!(world.revision(), 2);
}

#[test]
fn a_pool_without_members_says_how_to_get_some() {
    let mut world = World::with_masters(0);
    let plan = world.pass();
    assert_eq!(rejected(&plan), "NoMembers");
    let Verdict::Rejected { rejection, .. } = plan.verdict else {
        panic!()
    };
    assert!(rejection.to_string().contains("spec.members"), "{rejection}");
}

#[test]
fn a_selector_that_matches_every_node_is_refused() {
    let mut world = World::with_masters(3);
    world.discover(&(1..=40).collect::<Vec<_>>());
    world.pass();
    assert_eq!(world.names().len(), 40);
    world.discover(&(1..=100).collect::<Vec<_>>());
    assert_eq!(rejected(&world.pass()), "TooManyMembers");
    assert_eq!(world.names().len(), 40);
}

#[test]
fn the_spec_wins_by_name_and_by_address() {
    let mut world = World::with_masters(3);
    world.list("master-1", &["10.0.0.1"], PoolMemberState::Active);
    world.list("cp2", &["10.0.0.22"], PoolMemberState::Active);
    let plan = world.pass();
    assert_eq!(world.names(), ["cp2", "cp3", "master-1"]);
    assert_eq!(world.facts.current.members[0].addresses, [ip(22)]);
    let renamed = plan
        .members
        .iter()
        .find(|member| member.name == "master-1")
        .unwrap();
    assert_eq!(renamed.node_name, "cp1");
}

#[test]
fn proxies_are_told_on_which_node_a_member_runs() {
    let mut world = World::with_masters(3);
    world.list("master-1", &["10.0.0.1"], PoolMemberState::Active);
    world.list("elsewhere", &["10.0.0.9"], PoolMemberState::Active);
    world.pass();
    let told = |world: &World| -> Vec<_> {
        let members = world.facts.current.members.iter();
        members
            .map(|member| (member.name.clone(), member.node_name.clone()))
            .collect()
    };
    let expected = [
        ("cp2", "cp2"),
        ("cp3", "cp3"),
        ("elsewhere", ""),
        ("master-1", "cp1"),
    ];
    assert_eq!(told(&world), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));

    let revision = world.revision();
    world.facts.discovered = Discovered::Unknown;
    world.pass();
    assert_eq!(told(&world), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(
        world.revision(),
        revision,
        "nodes that cannot be read change nothing"
    );
}

#[test]
fn a_listed_member_keeps_the_zone_of_its_node_while_nodes_cannot_be_read() {
    let mut world = World::with_masters(1);
    let Discovered::Masters(masters) = &mut world.facts.discovered else {
        panic!()
    };
    masters[0].zone = "a".to_owned();
    world.list("master-1", &["10.0.0.1"], PoolMemberState::Active);
    world.pass();
    let revision = world.revision();
    world.facts.discovered = Discovered::Unknown;
    world.pass();
    assert_eq!(world.facts.current.members[0].zone, "a");
    assert_eq!(world.revision(), revision);
}

#[test]
fn a_member_kept_from_a_document_that_told_no_nodes_has_its_nodes_name() {
    let mut world = World::with_masters(3);
    for member in &mut world.facts.current.members {
        member.node_name.clear();
    }
    world.discover(&[1, 2]);
    let plan = world.pass();
    assert!(plan.members.iter().all(|member| member.node_name == member.name));
}

#[test]
fn a_change_of_the_locality_is_a_new_document() {
    let mut world = World::with_masters(3);
    let locality = |world: &World| {
        let document = world.facts.current.document.as_ref().unwrap();
        document.balancing.locality
    };
    assert_eq!(locality(&world), wire::Locality::Any);
    for (wanted, told) in [
        (Locality::PreferLocal, wire::Locality::PreferLocal),
        (Locality::PreferSameZone, wire::Locality::PreferSameZone),
        (Locality::Any, wire::Locality::Any),
    ] {
        let before = world.revision();
        world.pool.spec.balancing.locality = wanted;
        world.pass();
        assert_eq!(locality(&world), told);
        assert_eq!(world.revision(), before + 1);
    }
}

#[test]
fn a_disabled_member_is_shown_but_not_used() {
    let mut world = World::with_masters(3);
    world.list("cp3", &[], PoolMemberState::Disabled);
    let plan = world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
    assert_eq!(plan.members.len(), 3);
}

#[test]
fn a_name_that_no_longer_resolves_keeps_its_last_addresses() {
    let mut world = World::with_masters(1);
    world.list("named", &["cp9.example.com"], PoolMemberState::Active);
    world.facts.resolved = [("cp9.example.com".to_owned(), Err("no such host".to_owned()))].into();
    let plan = world.pass();
    let Verdict::Accepted { notes, .. } = &plan.verdict else {
        panic!()
    };
    assert!(
        notes[0].contains("named is left out") && notes[0].contains("no such host"),
        "{notes:?}"
    );
    assert_eq!(world.names(), ["cp1"]);

    world.facts.resolved = [("cp9.example.com".to_owned(), Ok(vec![ip(9)]))].into();
    world.pass();
    assert_eq!(world.names(), ["cp1", "named"]);

    world.facts.resolved = [("cp9.example.com".to_owned(), Err("timed out".to_owned()))].into();
    world.pass();
    assert_eq!(world.facts.current.members[1].addresses, [ip(9)]);
    assert_eq!(world.revision(), 2);
}

#[test]
fn a_node_that_moves_is_followed_once_it_answers_there() {
    let mut world = World::with_masters(3);
    let Discovered::Masters(masters) = &mut world.facts.discovered else {
        panic!()
    };
    masters[0].addresses = vec![ip(11)];
    let plan = world.pass();
    assert_eq!(world.facts.current.members[0].addresses, [ip(1)]);
    assert!(plan.members[0].note.contains("10.0.0.11"), "{plan:?}");
    world.alive = vec![2, 3, 11];
    world.wait(Duration::from_secs(10));
    assert_eq!(world.facts.current.members[0].addresses, [ip(11)]);
}

#[test]
fn a_node_that_names_a_wrong_address_is_not_believed_while_its_apiserver_is_silent_for_less_than_the_delay() {
    for is_restarted in [false, true] {
        let mut world = World::with_masters(3);
        let Discovered::Masters(masters) = &mut world.facts.discovered else {
            panic!()
        };
        masters[0].addresses = vec![ip(11)];
        let addresses = |world: &World| world.facts.current.members[0].addresses.clone();
        world.alive = vec![2, 3];
        if is_restarted {
            world.restart();
            world.pass_unprobed();
            assert_eq!(addresses(&world), [ip(1)]);
        }
        let plan = world.wait(Duration::from_secs(10));
        assert_eq!(addresses(&world), [ip(1)]);
        assert!(plan.members[0].note.contains("10.0.0.11"), "{plan:?}");
        world.alive = vec![1, 2, 3];
        world.wait(DELAY * 2);
        assert_eq!(addresses(&world), [ip(1)]);
        // Its last answer is that of the last pass.
        world.alive = vec![2, 3];
        world.facts.now += Duration::from_secs(5);
        world.wait(DELAY.saturating_sub(Duration::from_secs(10)));
        assert_eq!(addresses(&world), [ip(1)]);
        world.wait(Duration::from_secs(10));
        assert_eq!(addresses(&world), [ip(11)]);
    }
}

#[test]
fn a_restarted_operator_counts_the_delay_from_its_first_probe() {
    let mut world = World::with_masters(3);
    world.discover(&[11, 2, 3]);
    let Discovered::Masters(masters) = &mut world.facts.discovered else {
        panic!()
    };
    "cp1".clone_into(&mut masters[0].name);
    world.alive = vec![2, 3];
    world.restart();
    world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
    assert_eq!(world.facts.current.members[0].addresses, [ip(1)]);
    world.wait(Duration::from_secs(10));
    assert_eq!(world.facts.current.members[0].addresses, [ip(11)]);
}

#[test]
fn a_lost_document_is_rebuilt_with_a_higher_revision() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    world.facts.current.document = None;
    world.facts.current.told = vec![("the pool's status".into(), 41)];
    let plan = world.pass();
    assert_eq!(plan.revision, 42);
    assert_eq!(
        world.names().len(),
        3,
        "the members remembered elsewhere are still protected"
    );
}

#[test]
fn a_refusal_does_not_forget_the_revision_of_a_lost_document() {
    let mut world = World::with_masters(0);
    world.facts.current.told = vec![("the pool's status".into(), 41)];
    let plan = world.pass();
    assert_eq!(rejected(&plan), "NoMembers");
    assert_eq!(plan.revision, 41);
}

#[test]
fn a_first_document_is_written_even_if_nobody_answers() {
    let mut world = World::with_masters(0);
    world.discover(&[1, 2, 3]);
    let plan = world.pass();
    let Verdict::Accepted { notes, .. } = &plan.verdict else {
        panic!()
    };
    assert!(notes[0].contains("cannot judge"), "{notes:?}");
    assert_eq!(world.names().len(), 3);
}

#[derive(Clone, Debug)]
enum Fault {
    Empty,
    Unreadable,
    Loses(Vec<u8>),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Empty),
        Just(Fault::Unreadable),
        proptest::collection::vec(1..=7u8, 0..7).prop_map(Fault::Loses),
    ]
}

/// The usual number of cases of a property, unless proptest's own variable names another, as `make soak` does.
fn cases(usual: u32) -> ProptestConfig {
    let told = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(usual, |_| told.cases);
    ProptestConfig { cases, ..told }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Whatever discovery says, in whatever order and for however long: an apiserver that answers stays a member.
    #[test]
    fn no_fault_of_a_single_source_removes_a_member(
        count in 1..=7u8,
        faults in proptest::collection::vec((fault(), 0..1000u64), 1..8),
    ) {
        let mut world = World::with_masters(count);
        let (names, revision) = (world.names(), world.revision());
        for (fault, seconds) in faults {
            match fault {
                Fault::Empty => world.discover(&[]),
                Fault::Unreadable => world.facts.discovered = Discovered::Unknown,
                Fault::Loses(lost) => {
                    let left: Vec<_> = (1..=count).filter(|number| !lost.contains(number)).collect();
                    world.discover(&left);
                }
            }
            world.wait(Duration::from_secs(seconds));
            prop_assert_eq!(&world.names(), &names);
        }
        prop_assert_eq!(world.revision(), revision);
    }

    /// Even when apiservers do die: never below one, and never more than a minority within one delay.
    #[test]
    fn removals_are_few_and_never_the_last(
        count in 1..=9u8,
        left in proptest::collection::btree_set(1..=9u8, 0..9),
        alive in proptest::collection::vec(1..=9u8, 0..9),
    ) {
        let mut world = World::with_masters(count);
        world.discover(&left.iter().copied().filter(|number| *number <= count).collect::<Vec<_>>());
        world.alive = alive.into_iter().filter(|number| *number <= count).collect();
        for _ in 0..5 {
            let before = world.names().len();
            world.wait(DELAY.saturating_sub(Duration::from_secs(5)));
            let gone = before - world.names().len();
            prop_assert!(gone <= ((before - 1) / 2).max(1), "{gone} of {before} went");
            prop_assert!(!world.names().is_empty());
        }
    }

    /// A revision never goes back, and a document that asks the same keeps its own.
    #[test]
    fn revisions_only_grow(steps in proptest::collection::vec((1..=5u8, any::<bool>()), 1..20)) {
        let mut world = World::with_masters(3);
        for (masters, restart) in steps {
            let before = world.facts.current.clone();
            if restart {
                world.facts.memory = Memory::default();
            }
            world.alive = (1..=masters).collect();
            world.discover(&(1..=masters).collect::<Vec<_>>());
            world.pass();
            let after = &world.facts.current;
            prop_assert!(after.told >= before.told);
            if after.told == before.told {
                prop_assert_eq!(&after.document, &before.document);
            }
        }
    }
}

#[test]
fn health_is_shown_as_the_probe_has_it() {
    let mut world = World::with_masters(1);
    world.probe();
    let health = world.facts.healths.of(&[ip(1)], 6443).unwrap();
    assert_eq!(health.state, MemberHealth::Up);
}
