//! Who is dialled next for one client, and who has to wait: decided without I/O.
//!
//! A path of a worse [`Group`] has its turn after those of better groups, and not while one of these is merely slow: it may
//! be on its way out, or lead to a stranger.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::balance::{Candidate, Group, PathId};

/// For how long proven paths of a worse group wait for those of better ones that may be slow. Half of the time that an
/// open may take is left for them. Unproven paths wait until the others are silent or have failed: what answers there is
/// perhaps no apiserver of this cluster.
pub const HOLD: Duration = Duration::from_secs(1);

/// What can be dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This one.
    Of(Candidate),
    /// Nobody yet: those that are left wait for a better group.
    Held,
    /// Nobody: all had their turn.
    Over,
}

/// The candidates of one open.
#[derive(Debug)]
pub struct Queue {
    /// Those that had no turn, the best first.
    left: VecDeque<Candidate>,
    /// Those whose dial timed out. A storm of clients overflows a listener's queue, so they may have another turn.
    retries: VecDeque<Candidate>,
    /// All of them, with their present groups.
    known: Vec<Candidate>,
    began: Instant,
}

impl Queue {
    /// All `candidates`, the best first, for an open that begins now.
    pub fn new(candidates: Vec<Candidate>, now: Instant) -> Self {
        Self {
            known: candidates.clone(),
            left: candidates.into(),
            retries: VecDeque::new(),
            began: now,
        }
    }

    /// Whether no path of the best group is left. Then those that there are by now are to be asked for: see
    /// [`Self::refresh`].
    pub fn is_short(&self) -> bool {
        self.left.front().is_none_or(|next| next.group > Group::First)
    }

    /// Takes the order and the groups from the candidates that there are by now, with those that are new. One that is gone
    /// holds nobody.
    pub fn refresh(&mut self, fresh: &[Candidate]) {
        let had_turn = |id| self.known.iter().any(|known| known.id == id) && !is_in(&self.left, id);
        let left = fresh.iter().filter(|candidate| !had_turn(candidate.id));
        let left: VecDeque<_> = left.copied().collect();
        let present = |id| fresh.iter().find(|candidate| candidate.id == id);
        for known in self.known.iter_mut().chain(&mut self.retries) {
            known.group = present(known.id).map_or(Group::Unproven, |present| present.group);
        }
        let new = left.iter().filter(|candidate| !is_in(&self.known, candidate.id));
        let new: Vec<_> = new.copied().collect();
        self.known.extend(new);
        self.left = left;
    }

    /// Who can be dialled now, if the client waits for some of them, and some are known to be silent.
    pub fn turn(
        &self,
        is_awaited: impl Fn(PathId) -> bool,
        is_silent: impl Fn(PathId) -> bool,
        now: Instant,
    ) -> Turn {
        let Some(next) = self.left.front() else {
            return self.retries.front().copied().map_or(Turn::Over, Turn::Of);
        };
        let is_held = next.group == Group::Unproven || now < self.began + HOLD;
        let holds = |better: &&Candidate| is_held && better.group < next.group && !is_silent(better.id);
        let mut awaited = self.known.iter().filter(|known| is_awaited(known.id));
        if let Some(again) = self.retries.iter().find(holds) {
            Turn::Of(*again)
        } else if awaited.any(|known| holds(&known)) {
            Turn::Held
        } else {
            Turn::Of(*next)
        }
    }

    /// So much time passed in which nobody could answer.
    pub fn postpone(&mut self, by: Duration) {
        self.began += by;
    }

    /// This one has its turn.
    pub fn take(&mut self, id: PathId) {
        self.left.retain(|candidate| candidate.id != id);
        self.retries.retain(|candidate| candidate.id != id);
    }

    /// The dial of this one timed out.
    pub fn retry(&mut self, candidate: Candidate) {
        self.retries.push_back(candidate);
    }

    /// The dials of these, in this order, were dropped before they had an outcome: they come next.
    pub fn put_back(&mut self, dropped: impl DoubleEndedIterator<Item = Candidate>) {
        for candidate in dropped.rev() {
            self.left.push_front(candidate);
        }
    }
}

fn is_in<'all>(all: impl IntoIterator<Item = &'all Candidate>, id: PathId) -> bool {
    all.into_iter().any(|candidate| candidate.id == id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUPS: [Group; 3] = [Group::First, Group::Second, Group::Unproven];

    fn candidate(number: u16, group: Group) -> Candidate {
        Candidate {
            id: PathId(u64::from(number)),
            address: ([10, 0, 0, 1], number).into(),
            group,
        }
    }

    /// One of each group.
    fn one_of_each() -> [Candidate; 3] {
        let [first, second, unproven] = GROUPS;
        [candidate(0, first), candidate(1, second), candidate(2, unproven)]
    }

    fn turn(queue: &Queue, awaited: &[Candidate], silent: &[Candidate], after: Duration) -> Turn {
        queue.turn(
            |id| is_in(awaited, id),
            |id| is_in(silent, id),
            queue.began + after,
        )
    }

    #[test]
    fn a_worse_group_waits_for_a_better_one_that_is_slow() {
        let all = one_of_each();
        let mut queue = Queue::new(all.to_vec(), Instant::now());
        queue.take(all[0].id);
        assert_eq!(turn(&queue, &all[..1], &[], HOLD / 2), Turn::Held);
        assert_eq!(
            turn(&queue, &all[..1], &all[..1], HOLD / 2),
            Turn::Of(all[1]),
            "silent"
        );
        assert_eq!(
            turn(&queue, &[], &[], HOLD / 2),
            Turn::Of(all[1]),
            "it has failed"
        );
        assert_eq!(turn(&queue, &all[..1], &[], HOLD), Turn::Of(all[1]), "for long");
    }

    #[test]
    fn an_unproven_path_waits_for_as_long_as_a_proven_one_may_answer() {
        let all = one_of_each();
        let mut queue = Queue::new(all.to_vec(), Instant::now());
        queue.take(all[0].id);
        queue.take(all[1].id);
        for awaited in &all[..2] {
            let awaited = std::slice::from_ref(awaited);
            assert_eq!(turn(&queue, awaited, &[], HOLD * 9), Turn::Held);
            assert_eq!(turn(&queue, awaited, awaited, HOLD), Turn::Of(all[2]));
        }
    }

    #[test]
    fn a_dial_that_timed_out_is_made_again_before_a_worse_group_has_its_turn() {
        let all = one_of_each();
        let mut queue = Queue::new(all.to_vec(), Instant::now());
        queue.take(all[0].id);
        queue.retry(all[0]);
        assert_eq!(turn(&queue, &[], &[], HOLD / 2), Turn::Of(all[0]));
        assert_eq!(turn(&queue, &[], &[], HOLD), Turn::Of(all[1]), "it had its time");
        assert_eq!(turn(&queue, &[], &all[..1], HOLD / 2), Turn::Of(all[1]), "silent");
    }

    #[test]
    fn what_is_new_comes_by_its_group_and_what_is_gone_holds_nobody() {
        let all = one_of_each();
        let new = candidate(3, Group::First);
        let mut queue = Queue::new(all.to_vec(), Instant::now());
        queue.take(all[0].id);
        assert!(queue.is_short());
        queue.refresh(&[new, all[0], all[2]]);
        assert_eq!(turn(&queue, &all[..1], &[], Duration::ZERO), Turn::Of(new));
        queue.take(new.id);
        queue.refresh(&[all[2]]);
        let gone = [all[0], new];
        assert_eq!(turn(&queue, &gone, &[], Duration::ZERO), Turn::Of(all[2]));
    }

    /// What happens to the path that has its turn.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Waits,
        Fails,
        TimesOut,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop::sample::select(vec![Fate::Waits, Fate::Fails, Fate::TimesOut])
    }

    proptest! {
        #[test]
        fn no_worse_group_has_its_turn_while_a_better_one_may_answer(
            mut groups in prop::collection::vec(prop::sample::select(GROUPS.to_vec()), 1..8),
            fates in prop::collection::vec((fate(), any::<bool>(), 0..400_u64), 40),
        ) {
            groups.sort();
            let all: Vec<_> = (0..).zip(&groups).map(|(number, group)| candidate(number, *group)).collect();
            let mut queue = Queue::new(all.clone(), Instant::now());
            let (mut awaited, mut silent): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), Vec::new());
            let (mut dialled, mut after) = (Vec::new(), Duration::ZERO);
            for (fate, falls_silent, pause) in fates {
                after += Duration::from_millis(pause);
                match turn(&queue, &awaited, &silent, after) {
                    Turn::Of(next) => {
                        let is_held = next.group == Group::Unproven || after < HOLD;
                        let better = awaited.iter().filter(|better| better.group < next.group);
                        let may_answer = better.filter(|better| !is_in(&silent, better.id)).count();
                        prop_assert!(!is_held || may_answer == 0, "{next:?} beside {awaited:?}");
                        queue.take(next.id);
                        dialled.push(next);
                        match fate {
                            Fate::Waits => awaited.push(next),
                            Fate::Fails => {}
                            Fate::TimesOut => queue.retry(next),
                        }
                    }
                    Turn::Held => prop_assert!(!awaited.is_empty()),
                    Turn::Over => break,
                }
                if falls_silent {
                    silent.extend(awaited.first().copied());
                }
            }
            let of_the_best = dialled.first().is_some_and(|first| first.group == groups[0]);
            prop_assert!(of_the_best, "{dialled:?}");
        }

        #[test]
        fn where_all_fail_each_has_one_turn(
            mut groups in prop::collection::vec(prop::sample::select(GROUPS.to_vec()), 1..8),
        ) {
            groups.sort();
            let all: Vec<_> = (0..).zip(&groups).map(|(number, group)| candidate(number, *group)).collect();
            let mut queue = Queue::new(all.clone(), Instant::now());
            let mut dialled = Vec::new();
            while let Turn::Of(next) = turn(&queue, &[], &[], Duration::ZERO) {
                queue.take(next.id);
                dialled.push(next);
            }
            prop_assert_eq!(dialled, all);
        }
    }
}
