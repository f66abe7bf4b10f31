//! Whatever the history of edits and faults: discovery removes no member that answers, and few of the others.

use std::collections::BTreeSet;

use super::*;

const STEP: Duration = Duration::from_secs(5);

#[test]
fn an_emptied_list_returns_its_members_to_discovery() {
    let mut world = World::with_listed_masters(3);
    assert_eq!(world.facts.current.marks.explicit.len(), 3);
    world.pool.spec.members.clear();
    let plan = world.pass();
    assert_eq!(plan.revision, 1, "the document stays");
    assert!(world.facts.current.marks.explicit.is_empty(), "the mark does not");
    assert!(world.pass().rollout.unwrap().is_written);
    world.discover(&[1, 2]);
    world.wait(DELAY * 2);
    assert_eq!(world.names(), ["cp1", "cp2", "cp3"]);
}

#[test]
fn a_list_emptied_in_the_same_pass_as_a_label_is_lost_returns_its_members_to_discovery() {
    for prefix in ["cp", "master-"] {
        let mut world = World::with_masters(3);
        world.list_master(3, prefix);
        world.pass();
        world.pool.spec.members.clear();
        world.discover(&[1, 2]);
        world.wait(DELAY * 2);
        assert_eq!(world.names().len(), 3, "{prefix}");
    }
}

#[test]
fn a_list_made_and_emptied_while_nodes_cannot_be_read_removes_no_one() {
    for nothing in [Discovered::Unknown, Discovered::Masters(Vec::new())] {
        let mut world = World::with_masters(3);
        world.facts.discovered = nothing;
        world.list_master(3, "master-");
        world.pass();
        world.pool.spec.members.clear();
        world.pass();
        assert_eq!(world.names().len(), 3);
    }
}

#[test]
fn a_member_that_no_node_backs_goes_with_its_entry() {
    let mut world = World::with_masters(3);
    world.discover(&[1, 2]);
    world.list_master(3, "cp");
    world.pass();
    world.pool.spec.members.clear();
    world.pass();
    assert_eq!(world.names(), ["cp1", "cp2"]);
}

#[test]
fn a_removal_whose_answer_was_lost_counts() {
    let mut world = World::with_masters(7);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    let before = DELAY.saturating_sub(STEP);
    world.wait(before);
    world.facts.now += STEP;
    // The write arrives, but the operator gets no answer and remembers what the plan says either way.
    assert_eq!(world.pass().memory.leaving.len(), 3);
    let plan = world.pass();
    assert_eq!(plan.memory.removals.len(), 3);
    assert_eq!(world.names().len(), 4);
    world.wait(before.saturating_sub(STEP));
    assert_eq!(world.names().len(), 4);
}

#[test]
fn a_removal_that_was_not_written_does_not_count() {
    let mut world = World::with_masters(5);
    world.discover(&[1, 2, 3]);
    world.alive = vec![1, 2, 3];
    world.writes = Writes::Fail;
    let plan = world.wait(DELAY + STEP);
    assert_eq!(world.names().len(), 5);
    assert!(plan.memory.removals.is_empty());
    world.writes = Writes::Arrive;
    world.pass();
    assert_eq!(world.names().len(), 3);
}

#[test]
fn a_label_that_came_back_while_the_spec_was_rejected_or_writes_failed_is_remembered() {
    for writes in [Writes::Arrive, Writes::Fail] {
        let mut world = World::with_masters(4);
        world.alive = vec![1, 2, 3];
        world.discover(&[1, 2, 3]);
        world.wait(DELAY / 2);
        world.writes = writes;
        if writes == Writes::Arrive {
            for name in ["cp1", "cp2", "cp3", "cp4"] {
                world.list(name, &[], PoolMemberState::Disabled);
            }
        }
        world.discover(&[1, 2, 3, 4]);
        world.wait(STEP);
        world.writes = Writes::Arrive;
        world.pool.spec.members.clear();
        world.discover(&[1, 2, 3]);
        world.wait(DELAY / 2);
        assert_eq!(world.names().len(), 4, "its absence began anew");
    }
}

#[test]
fn a_removed_member_that_comes_back_is_not_counted_twice() {
    for prefix in ["cp", "master-"] {
        let mut world = World::with_masters(6);
        world.discover(&[1]);
        world.alive = vec![1, 2];
        world.wait(DELAY);
        assert_eq!(world.names(), ["cp1", "cp2", "cp5", "cp6"]);
        world.list_master(3, prefix);
        world.wait(STEP);
        assert_eq!(world.names().len(), 5, "{prefix}: two of six are the minority");
    }
}

#[derive(Clone, Debug)]
enum Event {
    List(u8, bool),
    EmptyList,
    Discover(BTreeSet<u8>),
    Unreadable,
    Empty,
    Alive(BTreeSet<u8>),
    Restart,
    Fail(bool),
}

const COUNT: u8 = 6;

fn event() -> impl Strategy<Value = Event> {
    let some = || proptest::collection::btree_set(1..=COUNT, 1..=usize::from(COUNT));
    prop_oneof![
        3 => (1..=COUNT, any::<bool>()).prop_map(|(number, renamed)| Event::List(number, renamed)),
        2 => Just(Event::EmptyList),
        4 => some().prop_map(Event::Discover),
        1 => Just(Event::Unreadable),
        1 => Just(Event::Empty),
        2 => some().prop_map(Event::Alive),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Fail),
    ]
}

/// What the cluster's owner has said and what was the case, as the owner knows it.
#[derive(Default)]
struct Owner {
    listed: BTreeSet<u8>,
    discovered: BTreeSet<u8>,
    /// Both, as they were last written.
    written: (BTreeSet<u8>, BTreeSet<u8>),
    named_at: BTreeMap<u8, Instant>,
    alive_at: BTreeMap<u8, Instant>,
    removals: Vec<(u8, Instant)>,
}

impl Owner {
    fn apply(&mut self, event: Event, world: &mut World) {
        match event {
            Event::List(number, renamed) => {
                world
                    .pool
                    .spec
                    .members
                    .retain(|entry| entry.addresses != [ip(number).to_string()]);
                world.list_master(number, if renamed { "master-" } else { "cp" });
                self.listed.insert(number);
            }
            Event::EmptyList => {
                world.pool.spec.members.clear();
                self.listed.clear();
            }
            Event::Discover(numbers) => {
                world.discover(&numbers.iter().copied().collect::<Vec<_>>());
                self.discovered = numbers;
            }
            Event::Unreadable => world.facts.discovered = Discovered::Unknown,
            Event::Empty => world.discover(&[]),
            Event::Alive(numbers) => world.alive = numbers.into_iter().collect(),
            Event::Restart => world.restart(),
            Event::Fail(fail) => world.writes = if fail { Writes::Fail } else { Writes::Arrive },
        }
    }

    /// One pass, and what it may have removed. True if it wrote nothing.
    fn watch_a_pass(&mut self, world: &mut World) -> Result<bool, TestCaseError> {
        let now = world.facts.now;
        let is_known = world.facts.discovered.has_masters();
        self.alive_at
            .extend(world.alive.iter().map(|number| (*number, now)));
        let named = self
            .listed
            .iter()
            .chain(self.discovered.iter().filter(|_| is_known));
        self.named_at.extend(named.map(|number| (*number, now)));
        let before = servers(world);
        let plan = world.pass();
        let gone: Vec<_> = before.difference(&servers(world)).copied().collect();
        for number in gone {
            let (listed, backed) = &self.written;
            if listed.contains(&number) && !backed.contains(&number) && !self.listed.contains(&number) {
                continue;
            }
            let (named, alive) = (self.named_at.get(&number), self.alive_at.get(&number));
            prop_assert!(
                named.is_none_or(|at| *at + DELAY <= now),
                "cp{number} went before its delay"
            );
            prop_assert!(
                alive.is_none_or(|at| *at + DELAY <= now),
                "cp{number} went though it answered"
            );
            self.removals.retain(|(_, at)| *at + DELAY > now);
            let whole: BTreeSet<_> = before
                .iter()
                .copied()
                .chain(self.removals.iter().map(|(number, _)| *number))
                .collect();
            let minority = ((whole.len() - 1) / 2).max(1);
            self.removals.push((number, now));
            prop_assert!(self.removals.len() <= minority, "a majority of {whole:?} went");
        }
        prop_assert!(!world.names().is_empty());
        if plan.rollout.is_some() && world.writes == Writes::Arrive {
            self.written.0.clone_from(&self.listed);
            // What unread nodes would say is not written: the document keeps what it has.
            if is_known {
                self.written.1.clone_from(&self.discovered);
            }
        }
        Ok(plan.rollout.is_none_or(|rollout| rollout.is_written))
    }

    /// Some passes at one moment: the first ones may write, then there is nothing left to be written.
    fn watch_it_settle(&mut self, world: &mut World) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            self.watch_a_pass(world)?;
        }
        let is_at_rest = self.watch_a_pass(world)?;
        prop_assert!(is_at_rest || world.writes == Writes::Fail, "a write at rest");
        Ok(())
    }
}

fn servers(world: &World) -> BTreeSet<u8> {
    let members = world.facts.current.members.iter();
    let numbers = members.map(|member| match member.addresses[0] {
        IpAddr::V4(four) => four.octets()[3],
        IpAddr::V6(_) => panic!("the test has no such member"),
    });
    numbers.collect()
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn no_history_lets_discovery_remove_what_answers_or_a_majority(
        events in proptest::collection::vec((event(), prop_oneof![Just(0), 1..400u64]), 1..24),
    ) {
        let mut world = World::with_masters(COUNT);
        let all: BTreeSet<_> = (1..=COUNT).collect();
        let mut owner = Owner { discovered: all.clone(), written: (BTreeSet::new(), all), ..Owner::default() };
        owner.watch_it_settle(&mut world)?;
        for (event, seconds) in events {
            owner.apply(event, &mut world);
            let end = world.facts.now + Duration::from_secs(seconds);
            while world.facts.now < end {
                owner.watch_a_pass(&mut world)?;
                world.facts.now += STEP;
            }
            owner.watch_it_settle(&mut world)?;
        }
    }
}
