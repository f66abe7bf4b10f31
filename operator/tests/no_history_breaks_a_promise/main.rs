//! Any history of a pool: every field of its spec is edited, nodes and apiservers come and go, proxies roll and report, the
//! operator restarts. After every pass all that an owner may rely on holds, and at rest nothing is written.
//!
//! The plan, the objects and the status are those of the operator; the API server, the DaemonSet controller and the hosts are
//! models of the least that matters.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

mod api_server;
mod edits;
mod hosts;
mod names;
mod policy;
mod promises;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use trivet_operator::health::Answer;
use trivet_operator::plan::permission::ALLOW_SHRINK;
use trivet_operator::plan::scope::guard::ALLOW_SCOPE_SHRINK;
use trivet_operator::plan::{Plan, Verdict};
use trivet_operator::pools::StoredPool;

use self::hosts::Families;
use self::world::World;

/// The time between two passes while nothing happens.
const STEP_SECONDS: u64 = 15;

/// What happens between two passes. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    /// A field, its value, and where it is in a list the entry.
    Edit(usize, usize, usize),
    /// One of the edits that decide most; the entry as above.
    Decide(usize, usize),
    RemoveEntry(usize),
    ResetSpec,
    Permit(&'static str, bool),
    Node(usize, Change),
    Answer(usize, Answer),
    /// One of the addresses of a host answers, or does not.
    Path(usize, usize, bool),
    Blind(bool),
    ReadNodes(bool),
    ReadEndpoints(bool),
    Resolve(Result<Vec<u8>, String>),
    /// The DaemonSet controller's next step on a host, or on all.
    Roll(Option<usize>),
    /// A host's proxy reports, or all do.
    Report(Option<usize>),
    FinishWriter,
    Restart,
    /// Another pool on these ports comes, older or younger, which can be read or not, or all others go.
    Rival(Option<(bool, bool, bool)>),
    /// The pool gets a value that this release cannot read, or loses it again.
    Unreadable(bool),
    Wait(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Exists(bool),
    IsMaster(bool),
    IsReady(bool),
    Reports(Families),
    Zone(&'static str),
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Ready),
        2 => Just(Answer::Silent),
        1 => Just(Answer::NotReady("[-]etcd failed".to_owned())),
        1 => Just(Answer::Withheld),
        1 => Just(Answer::Refused("connection refused".to_owned())),
        1 => Just(Answer::Untrusted("expired".to_owned())),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    use Families::{Both, Neither, Other, V4, V6, Wrong};
    prop_oneof![
        any::<bool>().prop_map(Change::Exists),
        any::<bool>().prop_map(Change::IsMaster),
        any::<bool>().prop_map(Change::IsReady),
        prop::sample::select(&[V4, V6, Both, Both, Neither, Other, Wrong][..]).prop_map(Change::Reports),
        prop::sample::select(&["", "a", "b"][..]).prop_map(Change::Zone),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let pick = || 0..1000_usize;
    let resolved = prop_oneof![
        prop::collection::vec(1..=6_u8, 1..4).prop_map(Ok),
        Just(Err("timed out".to_owned())),
    ];
    prop_oneof![
        8 => (pick(), pick(), 0..4_usize).prop_map(|(field, value, entry)| Event::Edit(field, value, entry)),
        6 => (pick(), 0..4_usize).prop_map(|(edit, entry)| Event::Decide(edit, entry)),
        1 => pick().prop_map(Event::RemoveEntry),
        1 => Just(Event::ResetSpec),
        1 => (prop::sample::select(&[ALLOW_SHRINK, ALLOW_SCOPE_SHRINK][..]), any::<bool>())
            .prop_map(|(name, is_set)| Event::Permit(name, is_set)),
        4 => (pick(), change()).prop_map(|(host, change)| Event::Node(host, change)),
        3 => (0..4_usize, answer()).prop_map(|(host, answer)| Event::Answer(host, answer)),
        2 => (0..4_usize, 0..3_usize, any::<bool>()).prop_map(|(host, path, is_deaf)| Event::Path(host, path, is_deaf)),
        1 => any::<bool>().prop_map(Event::Blind),
        1 => any::<bool>().prop_map(Event::ReadNodes),
        1 => any::<bool>().prop_map(Event::ReadEndpoints),
        1 => resolved.prop_map(Event::Resolve),
        4 => prop::option::weighted(0.5, pick()).prop_map(Event::Roll),
        2 => prop::option::weighted(0.5, pick()).prop_map(Event::Report),
        1 => Just(Event::FinishWriter),
        1 => Just(Event::Restart),
        1 => prop::option::weighted(0.7, any::<(bool, bool, bool)>()).prop_map(Event::Rival),
        1 => Just(Event::Unreadable(true)),
        2 => Just(Event::Unreadable(false)),
        3 => (1..700_u64).prop_map(Event::Wait),
    ]
}

/// Whether the spec or a permission of it has changed.
fn happen(world: &mut World, event: &Event) -> bool {
    let generation = world.pool.metadata.generation;
    let count = world.hosts.len();
    match event {
        Event::Edit(field, value, entry) => {
            let field = world.fields[field % world.fields.len()].clone();
            let value = &field.values[value % field.values.len()];
            world.edit(|spec| edits::edit(spec, &field.path, value, *entry));
        }
        Event::Decide(number, entry) => {
            let edits = edits::decisive();
            let (path, value) = &edits[number % edits.len()];
            world.edit(|spec| edits::edit(spec, path, value, *entry));
        }
        Event::RemoveEntry(entry) => {
            world.edit(|spec| {
                if let Some(entries) = spec["members"]
                    .as_array_mut()
                    .filter(|entries| !entries.is_empty())
                {
                    entries.remove(entry % entries.len());
                }
            });
        }
        Event::ResetSpec => {
            world.edit(|spec| *spec = json!({ "listeners": spec["listeners"] }));
        }
        Event::Permit(name, is_set) => {
            let value = generation
                .filter(|_| *is_set)
                .map(|generation| generation.to_string());
            world.annotate(name, value);
            return true;
        }
        Event::Node(host, change) => {
            let host = &mut world.hosts[host % count];
            match change {
                Change::Exists(exists) => host.has_node = *exists,
                Change::IsMaster(is_master) => host.is_master = *is_master,
                Change::IsReady(is_ready) => host.is_ready = *is_ready,
                Change::Reports(families) => host.families = *families,
                Change::Zone(zone) => host.zone = zone,
            }
        }
        Event::Answer(host, answer) => world.hosts[*host].answer = answer.clone(),
        Event::Path(host, path, is_deaf) => world.hosts[*host].deaf[*path] = *is_deaf,
        Event::Blind(is_blind) => world.is_blind = *is_blind,
        Event::ReadNodes(are_read) => world.are_nodes_read = *are_read,
        Event::ReadEndpoints(are_read) => world.are_endpoints_read = *are_read,
        Event::Resolve(numbers) => {
            let ips = |numbers: &Vec<u8>| {
                numbers
                    .iter()
                    .map(|number| IpAddr::from([10, 0, 0, *number]))
                    .collect()
            };
            world.resolved = numbers.as_ref().map(ips).map_err(Clone::clone);
        }
        Event::Roll(Some(host)) => world.roll(*host),
        Event::Roll(None) => (0..count).for_each(|host| world.roll(host)),
        Event::Report(Some(host)) => world.report(*host),
        Event::Report(None) => (0..count).for_each(|host| world.report(host)),
        Event::FinishWriter => world.finish_writer(),
        Event::Restart => world.restart(),
        Event::Rival(None) => world.others.clear(),
        Event::Rival(Some((is_older, is_metrics, is_readable))) => {
            world.others.push(rival(*is_older, *is_metrics, *is_readable));
        }
        Event::Unreadable(is_unreadable) => world.set_unreadable(*is_unreadable),
        Event::Wait(seconds) => {
            let mut left = *seconds;
            while left > 0 {
                let step = left.min(STEP_SECONDS);
                world.wait(step);
                left -= step;
                if world.is_unreadable {
                    world.tell_unreadable();
                    continue;
                }
                world.probe();
                let passed = world.pass();
                promises::hold(world, &passed, false);
            }
        }
    }
    world.pool.metadata.generation != generation
}

/// Another pool, at the default listener or at the port of the default metrics.
fn rival(is_older: bool, is_metrics: bool, is_readable: bool) -> StoredPool {
    let created = if is_older {
        "2026-01-01T00:00:00Z"
    } else {
        "2026-10-01T00:00:00Z"
    };
    let (listener, metrics) = if is_metrics { (7555, 7444) } else { (7443, 7556) };
    let policy = if is_readable { "Nodes" } else { world::UNREADABLE };
    let pool = json!({
        "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool",
        "metadata": { "name": "other", "creationTimestamp": created },
        "spec": {
            "listeners": [{ "name": "apiserver", "port": listener }], "proxy": { "metrics": { "port": metrics } },
            "discovery": { "policy": policy },
        },
    });
    StoredPool::read(pool).unwrap()
}

/// The usual number of histories, unless proptest's own variable names another, as `make soak` does.
fn cases(usual: u32) -> ProptestConfig {
    let told = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(usual, |_| told.cases);
    ProptestConfig { cases, ..told }
}

/// What the histories have come across. A generator that no longer reaches it would prove nothing.
#[derive(Default)]
struct Reached(BTreeSet<&'static str>);

/// Refused removals take a delay and an endless silence: the histories of `plan/tests/edits.rs` are of those.
const TO_REACH: [&str; 3] = ["Accepted", "NoHealthyMember", "Paused"];

impl Reached {
    fn note(&mut self, plan: &Plan) {
        self.0.insert(match &plan.verdict {
            Verdict::Accepted { refused_removals, .. } if !refused_removals.is_empty() => "RefusedShrink",
            Verdict::Accepted { .. } => "Accepted",
            Verdict::Paused { .. } => "Paused",
            Verdict::Rejected { rejection, .. } => rejection.reason(),
        });
        self.0.extend(plan.waves.halt().map(|_| "RolloutHalted"));
    }
}

fn run(created: &[(usize, usize, usize)], events: &[Event], reached: &mut Reached) {
    let mut world = World::created(created);
    world.settle(|world, passed| promises::hold(world, passed, true));
    for event in events {
        let is_edited = happen(&mut world, event);
        world.wait(1);
        if world.is_unreadable {
            world.tell_unreadable();
            continue;
        }
        let last = world.settle(|world, passed| promises::hold(world, passed, is_edited));
        promises::discovered_members_are_their_nodes(&world, &last);
        reached.note(&last.plan);
    }
}

#[test]
fn whatever_is_edited_and_whatever_happens_every_promise_holds() {
    let config = ProptestConfig {
        source_file: Some(file!()),
        ..cases(32)
    };
    let is_whole = config.cases >= 32;
    let created = prop::collection::vec((0..1000_usize, 0..1000_usize, 0..2_usize), 0..4);
    let events = prop::collection::vec(event(), 1..40);
    let reached = RefCell::new(Reached::default());
    let outcome = TestRunner::new(config).run(&(created, events), |(created, events)| {
        run(&created, &events, &mut reached.borrow_mut());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let reached = reached.into_inner().0;
    let missing: Vec<_> = TO_REACH.iter().filter(|word| !reached.contains(**word)).collect();
    assert!(
        !is_whole || missing.is_empty(),
        "no history reached {missing:?}, only {reached:?}"
    );
}
