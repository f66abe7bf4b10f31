//! The race for a client's first flight, as a state machine without I/O: who was sent it, when another upstream is
//! wanted, and when the client is told that none answers.
//!
//! A contender is one dialled connection. Two addresses of one member are two contenders: the end of one says nothing
//! about the other.

use std::time::Duration;

use tokio::time::Instant;

/// Names a contender of one race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContenderId(usize);

/// A connection that was sent the first flight.
#[derive(Clone, Debug)]
struct Contender<U> {
    upstream: U,
    asked: Instant,
    /// Whether it was asked because others left the flight unanswered.
    by_hedge: bool,
    /// Whether another was asked because this one left the flight unanswered.
    passed_over: bool,
    lost: bool,
}

/// Why another upstream is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Replacement,
    Hedge,
}

/// What is due once the time of [`Race::next_timer`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The client has waited for as long as an open may take: it is told so if all that are awaited are silent. An
    /// upstream that is only slow is waited for as long as the client likes.
    GiveUpOnSilence,
    /// The contenders let the client wait for the hedge delay: [`Race::hedge`] with what the budget says.
    Hedge,
}

/// What follows from the loss of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another upstream is wanted.
    Replace,
    /// The same, and all upstreams may be tried again: [`Race::start_over`]. The last contender ended after the deadline
    /// because it was slow and therefore waited for, so that the others had no turn.
    StartOver,
}

/// How a race was won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Win {
    /// Whether the flight was sent to more than one because one left it unanswered.
    pub hedged: bool,
    /// Whether the winner was asked as a hedge.
    pub by_hedge: bool,
    /// The contenders that left the flight unanswered until another was asked.
    pub passed_over: Vec<ContenderId>,
}

/// A race between upstreams that the caller names by `U`.
#[derive(Clone, Debug)]
pub struct Race<U> {
    contenders: Vec<Contender<U>>,
    want: Option<Want>,
    exhausted: bool,
    started_over: bool,
    hedge_delay: Duration,
    hedge_at: Instant,
    deadline: Instant,
    give_up_at: Instant,
}

impl<U: Copy> Race<U> {
    /// A race without contenders, whose client may be told at `deadline` that none answers.
    pub fn new(hedge_delay: Duration, deadline: Instant, now: Instant) -> Self {
        Self {
            contenders: Vec::new(),
            want: None,
            exhausted: false,
            started_over: false,
            hedge_delay,
            hedge_at: now + hedge_delay,
            deadline,
            give_up_at: deadline,
        }
    }

    /// An upstream is sent the flight now.
    pub fn join(&mut self, upstream: U, now: Instant) -> ContenderId {
        let by_hedge = self.want.take() == Some(Want::Hedge);
        self.hedge_at = now + self.hedge_delay;
        self.contenders.push(Contender {
            upstream,
            asked: now,
            by_hedge,
            passed_over: false,
            lost: false,
        });
        ContenderId(self.contenders.len() - 1)
    }

    /// No further upstream can be had.
    pub fn exhaust(&mut self) {
        self.want = None;
        self.exhausted = true;
    }

    /// Whether another upstream is to be sent the flight.
    pub fn wants_another(&self) -> bool {
        self.want.is_some() && !self.exhausted
    }

    /// Whether every contender has ended and no other can join.
    pub fn is_over(&self) -> bool {
        self.exhausted && self.contenders.iter().all(|contender| contender.lost)
    }

    /// The upstreams that may yet answer.
    pub fn awaited(&self) -> Vec<U> {
        let awaited = self.contenders.iter().filter(|contender| !contender.lost);
        awaited.map(|contender| contender.upstream).collect()
    }

    /// When the latest contender was sent the flight.
    pub fn asked_last(&self) -> Option<Instant> {
        self.contenders.iter().map(|contender| contender.asked).max()
    }

    /// A contender has ended without an answer.
    pub fn lose(&mut self, lost: ContenderId, now: Instant) -> Loss {
        if let Some(contender) = self.contenders.get_mut(lost.0) {
            contender.lost = true;
        }
        self.want = Some(Want::Replacement);
        // Once only, or members that end each flight late would hold the client.
        if now >= self.deadline && !self.started_over && self.awaited().is_empty() {
            Loss::StartOver
        } else {
            Loss::Replace
        }
    }

    /// All upstreams may be tried again, until this deadline.
    pub fn start_over(&mut self, deadline: Instant) {
        self.started_over = true;
        self.exhausted = false;
        self.deadline = deadline;
        self.give_up_at = deadline;
    }

    /// So much time passed in which nobody could answer.
    pub fn postpone(&mut self, by: Duration) {
        self.hedge_at += by;
        self.deadline += by;
        self.give_up_at += by;
    }

    /// When to ask [`Race::due`] next.
    pub fn next_timer(&self) -> Instant {
        if self.may_hedge() {
            self.give_up_at.min(self.hedge_at)
        } else {
            self.give_up_at
        }
    }

    /// What is due; called again until nothing is.
    pub fn due(&mut self, now: Instant) -> Due {
        if now >= self.give_up_at {
            self.give_up_at = now + self.hedge_delay;
            return Due::GiveUpOnSilence;
        }
        if self.may_hedge() && now >= self.hedge_at {
            self.hedge_at = now + self.hedge_delay;
            return Due::Hedge;
        }
        Due::Nothing
    }

    /// The flight may be sent to another as well. Returns the contenders that left it unanswered.
    pub fn hedge(&mut self) -> Vec<ContenderId> {
        self.want = Some(Want::Hedge);
        let mut passed_over = Vec::new();
        for (index, contender) in self.contenders.iter_mut().enumerate() {
            if !contender.lost {
                contender.passed_over = true;
                passed_over.push(ContenderId(index));
            }
        }
        passed_over
    }

    /// A contender has answered.
    pub fn win(&self, winner: ContenderId) -> Win {
        let by_hedge = self
            .contenders
            .get(winner.0)
            .is_some_and(|contender| contender.by_hedge);
        let passed_over = self.contenders.iter().enumerate();
        let passed_over = passed_over.filter(|(_, contender)| contender.passed_over);
        let passed_over: Vec<_> = passed_over.map(|(index, _)| ContenderId(index)).collect();
        Win {
            hedged: by_hedge || !passed_over.is_empty(),
            by_hedge,
            passed_over,
        }
    }

    fn may_hedge(&self) -> bool {
        self.want.is_none() && !self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);
    const LIMIT: Duration = Duration::from_millis(1900);
    const CP1: &str = "cp1";
    const CP2: &str = "cp2";

    fn race() -> (Race<&'static str>, Instant) {
        let now = Instant::now();
        (Race::new(DELAY, now + LIMIT, now), now)
    }

    #[test]
    fn a_contender_that_ends_is_replaced_at_once() {
        let (mut race, now) = race();
        let first = race.join(CP1, now);
        assert!(!race.wants_another());
        assert_eq!(race.lose(first, now), Loss::Replace);
        assert!(race.wants_another());
        let second = race.join(CP2, now);
        assert!(!race.wants_another());
        assert_eq!(race.awaited(), [CP2]);
        let win = race.win(second);
        assert!(!win.hedged, "nobody was passed over");
    }

    #[test]
    fn two_addresses_of_one_member_are_lost_one_by_one() {
        let (mut race, now) = race();
        let first = race.join(CP1, now);
        race.hedge();
        let second = race.join(CP1, now);
        race.lose(first, now);
        race.exhaust();
        assert_eq!(race.awaited(), [CP1], "the other address may yet answer");
        assert!(!race.is_over());
        race.lose(second, now);
        race.exhaust();
        assert!(race.is_over());
    }

    #[test]
    fn who_answers_after_a_hedge_is_told_from_the_hedge_itself() {
        let (mut race, now) = race();
        let first = race.join(CP1, now);
        assert_eq!(race.due(now + DELAY / 2), Due::Nothing);
        assert_eq!(race.due(now + DELAY), Due::Hedge);
        assert_eq!(race.hedge(), [first]);
        let second = race.join(CP2, now + DELAY);
        let slow = race.win(first);
        assert_eq!((slow.hedged, slow.by_hedge), (true, false));
        let hedge = race.win(second);
        assert_eq!((hedge.hedged, hedge.by_hedge), (true, true));
        assert_eq!(hedge.passed_over, [first]);
    }

    #[test]
    fn a_refused_hedge_is_asked_for_again_after_the_delay() {
        let (mut race, now) = race();
        race.join(CP1, now);
        assert_eq!(race.due(now + DELAY), Due::Hedge);
        assert_eq!(race.due(now + DELAY), Due::Nothing);
        assert_eq!(race.next_timer(), now + DELAY * 2);
        assert_eq!(race.due(now + DELAY * 2), Due::Hedge);
    }

    #[test]
    fn the_last_that_ends_late_gives_the_others_their_turn_once() {
        let (mut race, now) = race();
        let slow = race.join(CP1, now);
        race.exhaust();
        let late = now + LIMIT;
        assert_eq!(race.lose(slow, late), Loss::StartOver);
        race.start_over(late + LIMIT);
        assert!(race.wants_another() && !race.is_over());
        let second = race.join(CP2, late);
        assert_eq!(race.lose(second, late + LIMIT), Loss::Replace);
    }

    #[test]
    fn a_time_in_which_nobody_could_answer_does_not_count() {
        let (mut race, now) = race();
        race.join(CP1, now);
        let lapse = Duration::from_secs(10);
        race.postpone(lapse);
        assert_eq!(race.due(now + lapse), Due::Nothing);
        assert_eq!(race.due(now + lapse + DELAY), Due::Hedge);
        race.exhaust();
        assert_eq!(race.next_timer(), now + lapse + LIMIT);
        assert_eq!(race.due(now + lapse + LIMIT), Due::GiveUpOnSilence);
    }

    #[test]
    fn silence_is_looked_at_again_and_again_after_the_deadline() {
        let (mut race, now) = race();
        race.join(CP1, now);
        race.exhaust();
        assert_eq!(race.next_timer(), now + LIMIT);
        assert_eq!(race.due(now + LIMIT), Due::GiveUpOnSilence);
        assert_eq!(race.next_timer(), now + LIMIT + DELAY);
    }

    proptest! {
        /// Whatever happens in whatever order, a race without an answer ends: a contender is awaited, or another is wanted,
        /// or it is over.
        #[test]
        fn no_race_stands_still(steps in prop::collection::vec(0..4_u8, 0..60)) {
            let (mut race, mut now) = race();
            let mut awaited = vec![race.join(CP1, now)];
            for step in steps {
                match step {
                    0 => if let Some(lost) = awaited.pop() && race.lose(lost, now) == Loss::StartOver {
                        race.start_over(now + LIMIT);
                    },
                    1 if race.wants_another() => awaited.push(race.join(CP2, now)),
                    2 if race.wants_another() => race.exhaust(),
                    _ => {
                        now = now.max(race.next_timer());
                        if race.due(now) == Due::Hedge {
                            race.hedge();
                        }
                    }
                }
                prop_assert_eq!(race.awaited().len(), awaited.len());
                prop_assert!(!awaited.is_empty() || race.wants_another() || race.is_over(), "{:?}", race);
            }
        }
    }
}
