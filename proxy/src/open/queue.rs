//! The paths that a walk has still to dial, and the rule for when it goes on to a worse group of them.
//!
//! A path of a worse group may be another host (no proof that it is the member) or may be about to leave. It is therefore no
//! help against a path of a better group that is merely slow.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::balance::{Candidate, Group, PathId};

/// How long a walk waits for a better group. After that a hung path that is not judged Down yet no longer keeps the client
/// from the others, and these have most of a second before the client is reset.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Until when a path of the group `next` waits for better ones, in a walk that started at `since`. `awaited` has the group
/// of each path that may yet answer, and whether it is Down. None if no such path is better.
pub fn held_until(
    next: Group,
    mut awaited: impl Iterator<Item = (Group, bool)>,
    since: Instant,
) -> Option<Instant> {
    awaited
        .any(|(group, is_down)| group < next && !is_down)
        .then(|| since + PATIENCE)
}

/// The candidates of a walk, by group; within a group in the order of the choice.
#[derive(Debug, Default)]
pub struct Queue {
    left: VecDeque<Candidate>,
    /// Those that left a dial unanswered. They come after those that were not dialled and still count as awaited.
    again: VecDeque<Candidate>,
    known: Vec<PathId>,
}

/// What may yet answer, besides what the queue dials again.
pub struct Awaited<'a, F> {
    /// The paths that were dialled or sent the first flight.
    pub paths: &'a [Candidate],
    /// Whether a path is Down.
    pub is_down: F,
    /// When the walk started.
    pub since: Instant,
}

impl Queue {
    /// A queue of all these.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        let mut queue = Self::default();
        queue.update(candidates);
        queue
    }

    /// Adds the candidates that it does not know yet, and takes over what is known of the others by now.
    pub fn update(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            if self.known.contains(&candidate.id) {
                let mut queued = self.left.iter_mut().chain(&mut self.again);
                if let Some(queued) = queued.find(|queued| queued.id == candidate.id) {
                    *queued = candidate;
                }
            } else {
                self.known.push(candidate.id);
                self.left.push_back(candidate);
            }
        }
        self.sort();
    }

    /// Removes a candidate without forgetting that it is known.
    pub fn remove(&mut self, id: PathId) {
        self.left.retain(|candidate| candidate.id != id);
        self.again.retain(|candidate| candidate.id != id);
    }

    /// Whether it has nothing to dial.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.again.is_empty()
    }

    /// Whether a path of the best group comes next, so that no news can bring a better one.
    pub fn has_best(&self) -> bool {
        let front = self.left.front();
        front.is_some_and(|candidate| candidate.group == Group::First)
    }

    /// Whether it has met this path.
    pub fn knows(&self, id: PathId) -> bool {
        self.known.contains(&id)
    }

    /// Dials a path again that left a dial unanswered, after those of its group that were not dialled.
    pub fn dial_again(&mut self, candidate: Candidate) {
        self.again.push_back(candidate);
        self.sort();
    }

    /// Takes back paths whose dials were dropped: the first of their group.
    pub fn put_back(&mut self, dropped: impl DoubleEndedIterator<Item = Candidate>) {
        for candidate in dropped.rev() {
            self.left.push_front(candidate);
        }
        self.sort();
    }

    /// The next to dial now.
    pub fn pop<F: Fn(PathId) -> bool>(
        &mut self,
        awaited: &Awaited<'_, F>,
        now: Instant,
    ) -> Option<Candidate> {
        let may_enter = |front: Option<&Candidate>| {
            front.is_some_and(|front| self.hold(*front, awaited).is_none_or(|until| now >= until))
        };
        if may_enter(self.left.front()) {
            self.left.pop_front()
        } else if may_enter(self.again.front()) {
            self.again.pop_front()
        } else {
            None
        }
    }

    /// Until when all that is left is held; none if something may be dialled at once, or nothing is left.
    pub fn held_until<F: Fn(PathId) -> bool>(&self, awaited: &Awaited<'_, F>) -> Option<Instant> {
        let fronts = [self.left.front(), self.again.front()];
        let holds = fronts.into_iter().flatten();
        // None, which is less than any instant, stands for a path that is not held.
        holds.map(|front| self.hold(*front, awaited)).min().flatten()
    }

    fn hold<F: Fn(PathId) -> bool>(&self, next: Candidate, awaited: &Awaited<'_, F>) -> Option<Instant> {
        let paths = awaited.paths.iter().chain(&self.again);
        let paths = paths.map(|path| (path.group, (awaited.is_down)(path.id)));
        held_until(next.group, paths, awaited.since)
    }

    fn sort(&mut self) {
        for queue in [&mut self.left, &mut self.again] {
            queue.make_contiguous().sort_by_key(|candidate| candidate.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(50);

    fn candidate(id: u64, group: Group) -> Candidate {
        Candidate {
            id: PathId(id),
            address: SocketAddr::from(([10, 0, 0, 1], 6443)),
            group,
        }
    }

    fn group() -> impl Strategy<Value = Group> {
        prop::sample::select(vec![Group::First, Group::Second, Group::Unproven])
    }

    /// Up to nine candidates in whatever order, and which of them are Down.
    fn candidates() -> impl Strategy<Value = (Vec<Candidate>, Vec<bool>)> {
        prop::collection::vec((group(), any::<bool>()), 1..10).prop_map(|all| {
            let numbered = (0..).zip(&all);
            let candidates = numbered.map(|(id, (group, _))| candidate(id, *group)).collect();
            (candidates, all.iter().map(|(_, down)| *down).collect())
        })
    }

    fn is_down(down: &[bool]) -> impl Fn(PathId) -> bool {
        move |id: PathId| down[usize::try_from(id.0).unwrap()]
    }

    #[test]
    fn a_path_that_left_a_dial_unanswered_is_dialled_again_before_a_worse_group_within_the_second() {
        let since = Instant::now();
        let (proven, unproven) = (candidate(0, Group::First), candidate(1, Group::Unproven));
        let awaited = Awaited {
            paths: &[],
            is_down: |_| false,
            since,
        };
        let mut queue = Queue::new(vec![unproven, proven]);
        assert_eq!(queue.pop(&awaited, since), Some(proven));
        queue.dial_again(proven);
        assert_eq!(queue.held_until(&awaited), None);
        assert_eq!(queue.pop(&awaited, since), Some(proven));
        queue.dial_again(proven);
        assert_eq!(
            queue.pop(&awaited, since + PATIENCE),
            Some(unproven),
            "its turn must come"
        );
        assert_eq!(queue.pop(&awaited, since + PATIENCE), Some(proven));
    }

    #[test]
    fn a_better_path_that_comes_meanwhile_is_dialled_before_the_worse_that_are_left() {
        let since = Instant::now();
        let awaited = Awaited {
            paths: &[],
            is_down: |_| false,
            since,
        };
        let mut queue = Queue::new(vec![candidate(0, Group::Unproven), candidate(1, Group::Unproven)]);
        let news = [candidate(2, Group::First), candidate(1, Group::Second)];
        queue.update(news.to_vec());
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(&awaited, since))
            .map(|next| next.id.0)
            .collect();
        assert_eq!(order, [2, 1, 0]);
    }

    proptest! {
        #[test]
        fn only_a_better_path_that_is_not_down_holds_a_group(
            next in group(),
            awaited in prop::collection::vec((group(), any::<bool>()), 0..6),
        ) {
            let since = Instant::now();
            let held = held_until(next, awaited.iter().copied(), since);
            let better = awaited.iter().filter(|(group, down)| *group < next && !down).count();
            prop_assert_eq!(held, (better > 0).then_some(since + PATIENCE));
        }

        #[test]
        fn a_worse_group_is_entered_only_when_no_better_path_is_awaited_or_after_the_second(
            (all, down) in candidates(),
            ends in prop::collection::vec(0..4_u8, 40),
        ) {
            let (since, is_down) = (Instant::now(), is_down(&down));
            let mut queue = Queue::new(all.clone());
            let (mut paths, mut now): (Vec<Candidate>, _) = (Vec::new(), since);
            let (mut dials, mut timeouts) = (vec![0; all.len()], vec![0; all.len()]);
            for end in ends {
                let awaited = Awaited { paths: &paths, is_down: &is_down, since };
                let held = queue.held_until(&awaited).is_some_and(|until| now < until);
                let idle = queue.is_empty();
                match queue.pop(&awaited, now) {
                    Some(next) => {
                        let better = |path: &Candidate| path.group < next.group && !is_down(path.id);
                        prop_assert!(now >= since + PATIENCE || !paths.iter().any(better), "{next:?}");
                        let index = usize::try_from(next.id.0).unwrap();
                        dials[index] += 1;
                        prop_assert!(dials[index] <= timeouts[index] + 1, "dialled twice: {next:?}");
                        paths.push(next);
                    }
                    None => prop_assert!(held || idle, "nothing is dialled though nothing holds it"),
                }
                match (end, paths.is_empty()) {
                    (0, false) => drop(paths.remove(0)),
                    (1, false) => {
                        let late = paths.remove(0);
                        timeouts[usize::try_from(late.id.0).unwrap()] += 1;
                        queue.dial_again(late);
                    }
                    _ => {}
                }
                now += STEP;
            }
            // 40 steps are two seconds; a held path may be dialled from the 20th on.
            prop_assert!(dials.iter().all(|count| *count > 0), "after two seconds: {dials:?}");
        }

        #[test]
        fn all_are_dialled_in_order_of_group_if_each_fails_at_once((all, down) in candidates()) {
            let since = Instant::now();
            let awaited = Awaited { paths: &[], is_down: is_down(&down), since };
            let mut queue = Queue::new(all.clone());
            let order: Vec<_> = std::iter::from_fn(|| queue.pop(&awaited, since)).collect();
            prop_assert_eq!(order.len(), all.len());
            prop_assert!(order.is_sorted_by_key(|candidate| candidate.group));
        }
    }
}
