//! Which addresses stay published while apiservers come and go. Pure.
//!
//! A record in a zone is read by resolvers that keep it for its time to live, so an apiserver that flaps must not make it flap.
//! What is published is the memory: an operator that starts goes on with it, so that a restart changes nothing, and only makes
//! a change that is under way wait once more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long an address must not have been ready before it leaves.
pub const OUT_AFTER: Duration = Duration::from_secs(10);

/// How long an address must have been ready before it comes back.
pub const IN_AFTER: Duration = Duration::from_secs(30);

/// The addresses of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damping {
    /// Those that count as ready.
    inside: BTreeSet<IpAddr>,
    /// Since when each address has been the other way.
    changing: BTreeMap<IpAddr, Instant>,
    /// What was published last.
    published: BTreeSet<IpAddr>,
    /// Whether something was observed or published before.
    has_begun: bool,
    /// Whether none counts as ready, so that all are published.
    is_open: bool,
}

impl Damping {
    /// Goes on with what is published, or begins.
    pub fn resume(published: &BTreeSet<IpAddr>) -> Self {
        Self {
            inside: published.clone(),
            published: published.clone(),
            has_begun: !published.is_empty(),
            ..Self::default()
        }
    }

    /// What to publish. `seen` has all addresses that may be, each with whether it is ready, if that is known. An address that it
    /// has no more leaves at once. The answer is empty only if `seen` is.
    pub fn observe(&mut self, seen: &BTreeMap<IpAddr, Option<bool>>, now: Instant) -> BTreeSet<IpAddr> {
        self.inside.retain(|address| seen.contains_key(address));
        self.changing.retain(|address, _| seen.contains_key(address));
        if !self.has_begun {
            self.has_begun = true;
            let may_be = seen.iter().filter(|(_, is_ready)| **is_ready != Some(false));
            self.inside = may_be.map(|(address, _)| *address).collect();
        }
        for (address, is_ready) in seen {
            self.weigh(*address, *is_ready, now);
        }
        if self.is_open && !self.inside.is_empty() {
            // What is published and ready stays.
            let is_ready = |address: &&IpAddr| seen.get(*address) == Some(&Some(true));
            for address in self.published.iter().filter(is_ready) {
                self.inside.insert(*address);
                self.changing.remove(address);
            }
        }
        self.is_open = self.inside.is_empty();
        self.published = if self.is_open {
            seen.keys().copied().collect()
        } else {
            self.inside.clone()
        };
        self.published.clone()
    }

    /// Whether it knows what is published.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether all addresses are published because none counts as ready.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    fn weigh(&mut self, address: IpAddr, is_ready: Option<bool>, now: Instant) {
        let is_inside = self.inside.contains(&address);
        let Some(is_ready) = is_ready.filter(|is_ready| *is_ready != is_inside) else {
            self.changing.remove(&address);
            return;
        };
        let since = *self.changing.entry(address).or_insert(now);
        let delay = if is_ready { IN_AFTER } else { OUT_AFTER };
        if now.saturating_duration_since(since) < delay {
            return;
        }
        self.changing.remove(&address);
        if is_ready {
            self.inside.insert(address);
        } else {
            self.inside.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Seen = BTreeMap<IpAddr, Option<bool>>;

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn seen(ready: &[Option<bool>]) -> Seen {
        (1..).map(ip).zip(ready.iter().copied()).collect()
    }

    fn set(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|number| ip(*number)).collect()
    }

    const UP: Option<bool> = Some(true);
    const OUT: Option<bool> = Some(false);

    /// What is published after each of these looks: at a second, what is seen.
    fn run(damping: &mut Damping, looks: &[(u64, &[Option<bool>])]) -> Vec<BTreeSet<IpAddr>> {
        let start = Instant::now();
        let looks = looks.iter().map(|(second, ready)| {
            let now = start + Duration::from_secs(*second);
            damping.observe(&seen(ready), now)
        });
        looks.collect()
    }

    #[test]
    fn an_address_leaves_after_ten_seconds_and_comes_back_after_thirty() {
        let published = run(
            &mut Damping::default(),
            &[
                (0, &[UP, UP]),
                (1, &[UP, OUT]),
                (10, &[UP, OUT]),
                (11, &[UP, OUT]),
                (12, &[UP, UP]),
                (41, &[UP, UP]),
                (42, &[UP, UP]),
            ],
        );
        let (both, one) = (set(&[1, 2]), set(&[1]));
        assert_eq!(
            published,
            [&both, &both, &both, &one, &one, &one, &both].map(Clone::clone)
        );
    }

    #[test]
    fn one_that_stays_because_it_was_published_leaves_after_ten_seconds_too() {
        let published = run(
            &mut Damping::default(),
            &[
                (0, &[OUT, OUT]),
                (1, &[UP, OUT]),
                (31, &[UP, UP]),
                (41, &[UP, OUT]),
                (51, &[UP, OUT]),
            ],
        );
        let (both, one) = (set(&[1, 2]), set(&[1]));
        assert_eq!(published, [&both, &both, &both, &both, &one].map(Clone::clone));
    }

    #[test]
    fn the_first_answer_has_what_is_ready_at_once() {
        assert_eq!(run(&mut Damping::default(), &[(0, &[UP, OUT])]), [set(&[1])]);
        assert_eq!(
            run(&mut Damping::default(), &[(0, &[None, None])]),
            [set(&[1, 2])]
        );
    }

    #[test]
    fn one_that_is_removed_leaves_at_once_and_never_leaves_nothing() {
        let mut damping = Damping::resume(&set(&[1]));
        let now = Instant::now();
        let seen = Seen::from([(ip(2), UP), (ip(3), OUT)]);
        assert_eq!(damping.observe(&seen, now), set(&[2, 3]));
        let later = now + IN_AFTER;
        assert_eq!(damping.observe(&seen, later), set(&[2]));
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        let mut damping = Damping::resume(&set(&[1]));
        let published = run(&mut damping, &[(0, &[None, None]), (600, &[None, None])]);
        assert_eq!(published, [set(&[1]), set(&[1])]);
    }

    /// Looks at up to four addresses: the seconds since the last one, whether the operator restarts before it, what is seen.
    fn looks() -> impl Strategy<Value = Vec<(u64, bool, Seen)>> {
        let health = prop_oneof![4 => Just(UP), 4 => Just(OUT), 1 => Just(None)];
        let seen = prop::collection::btree_map((1..=4_u8).prop_map(ip), health, 1..=4);
        let seconds = prop_oneof![3 => 1..5_u64, 2 => 5..15_u64, 1 => 25..60_u64];
        prop::collection::vec((seconds, prop::bool::weighted(0.1), seen), 1..80)
    }

    /// Since when each address has had the health that it has now.
    #[derive(Default)]
    struct Steady(BTreeMap<IpAddr, (Option<bool>, Instant)>);

    impl Steady {
        fn note(&mut self, seen: &Seen, now: Instant) {
            self.0.retain(|address, _| seen.contains_key(address));
            for (address, is_ready) in seen {
                let entry = self.0.entry(*address).or_insert((*is_ready, now));
                if entry.0 != *is_ready {
                    *entry = (*is_ready, now);
                }
            }
        }

        fn lasts(&self, address: &IpAddr, is_ready: Option<bool>, now: Instant) -> Duration {
            match self.0.get(address) {
                Some((health, since)) if *health == is_ready => now - *since,
                _ => Duration::ZERO,
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_flaps_no_answer_is_empty_and_each_change_has_lasted(looks in looks()) {
            let (mut now, mut damping) = (Instant::now(), Damping::default());
            let (mut before, mut was_open) = (BTreeSet::new(), false);
            let (mut steady, mut is_first) = (Steady::default(), true);
            for (seconds, restarts, seen) in looks {
                now += Duration::from_secs(seconds);
                if restarts {
                    damping = Damping::resume(&before);
                    // Changes that were under way begin anew.
                    steady = Steady::default();
                    was_open = false;
                }
                steady.note(&seen, now);
                let after = damping.observe(&seen, now);
                prop_assert!(!after.is_empty());
                prop_assert!(after.iter().all(|address| seen.contains_key(address)));
                let stays = before.iter().filter(|address| seen.get(*address) == Some(&UP));
                prop_assert!(stays.clone().all(|address| after.contains(address)), "a ready one left");
                let is_open = damping.is_open();
                let left = before.iter().filter(|address| seen.contains_key(*address) && !after.contains(*address));
                for address in left {
                    prop_assert!(was_open || steady.lasts(address, OUT, now) >= OUT_AFTER, "{address} left early");
                }
                for address in after.difference(&before).filter(|_| !is_open && !is_first) {
                    prop_assert!(steady.lasts(address, UP, now) >= IN_AFTER, "{address} came early");
                }
                (before, was_open, is_first) = (after, is_open, false);
            }
        }

        #[test]
        fn a_restart_changes_nothing_by_itself(published in prop::collection::btree_set((1..=4_u8).prop_map(ip), 1..4), health in prop::collection::vec(prop_oneof![Just(UP), Just(OUT), Just(None)], 4)) {
            let mut damping = Damping::resume(&published);
            prop_assert_eq!(damping.observe(&seen(&health), Instant::now()), published);
        }
    }
}
