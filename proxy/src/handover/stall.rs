//! Whether the holder hangs: nobody drains the accept queue, and the holder does not answer.
//!
//! A stopped holder gives no end of file, and its clients wait in a queue that looks healthy to them. A peer sees both
//! signs from outside: it holds the same listeners, and it has a channel to the holder.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How often the queue is read and the holder is asked. Nobody waits in it nearly always, which costs one `poll`.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// For how long the signs must last: four intervals between samples. A holder that is only slow drains its queue within it.
/// It is less than 1 s because samples come a moment early or late, and clients would wait for a fifth interval.
const WINDOW: Duration = Duration::from_millis(950);

/// A queue that is this long and does not shrink is not drained fast enough, even if the holder answers.
const LONG_QUEUE: u32 = 64;

/// A sample that comes later than this after the one before says that this process itself, or the whole machine, did not
/// run.
const LATE: Duration = Duration::from_millis(500);

/// What the signs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Neither sign.
    Calm,
    /// The holder hangs: a peer should accept beside it.
    Stalled,
    /// The holder has answered for long enough: no peer needs to accept.
    Turning,
}

/// The signs of one holder, as one peer sees them.
#[derive(Clone, Debug)]
pub struct Stall {
    /// Lengths of the queue, oldest first: the last of those before the window, and those in it.
    samples: VecDeque<(Instant, u32)>,
    /// The holder's last answer. Without a holder there is none.
    answered: Instant,
    /// Since when it answers without a gap.
    answers_since: Option<Instant>,
    stalled: Option<Instant>,
}

impl Stall {
    /// A peer that has just begun to look.
    pub fn new(now: Instant) -> Self {
        Self {
            samples: VecDeque::new(),
            answered: now,
            answers_since: None,
            stalled: None,
        }
    }

    /// The holder has answered a ping.
    pub fn answer(&mut self, now: Instant) {
        self.answered = now;
        self.answers_since.get_or_insert(now);
    }

    /// Takes in the length of the longest accept queue, and says what the signs say.
    pub fn sample(&mut self, queue: u32, now: Instant) -> Verdict {
        let last = self.samples.back().map(|(at, _)| *at);
        if last.is_some_and(|last| now.saturating_duration_since(last) > LATE) {
            // Nothing that was seen before says anything: the holder may have been stopped with this process.
            *self = Self::new(now);
        }
        self.samples.push_back((now, queue));
        while self.samples.get(1).is_some_and(|(at, _)| is_past(*at, now)) {
            self.samples.pop_front();
        }
        let is_silent = is_past(self.answered, now);
        if is_silent {
            self.answers_since = None;
        }
        if self.is_undrained(now) && (is_silent || self.is_long()) {
            self.stalled = Some(now);
            return Verdict::Stalled;
        }
        let is_long_ago = |at: Instant| is_past(at, now);
        if self.answers_since.is_some_and(is_long_ago) && self.stalled.is_none_or(is_long_ago) {
            Verdict::Turning
        } else {
            Verdict::Calm
        }
    }

    /// Whether clients waited in each sample of the window. Under load a drained queue is empty at times, but not in each
    /// sample; a single length says nothing.
    fn is_undrained(&self, now: Instant) -> bool {
        let is_whole = self.samples.front().is_some_and(|(at, _)| is_past(*at, now));
        is_whole && self.samples.iter().all(|(_, queue)| *queue > 0)
    }

    fn is_long(&self) -> bool {
        let first = self.samples.front().map_or(0, |(_, queue)| *queue);
        let last = self.samples.back().map_or(0, |(_, queue)| *queue);
        last >= LONG_QUEUE && last >= first
    }
}

fn is_past(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that samples on time, and a holder that answers or not.
    struct Watch {
        stall: Stall,
        now: Instant,
    }

    impl Watch {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                stall: Stall::new(now),
                now,
            }
        }

        fn see(&mut self, queue: u32, answers: bool) -> Verdict {
            self.now += SAMPLE_INTERVAL;
            if answers {
                self.stall.answer(self.now);
            }
            self.stall.sample(queue, self.now)
        }

        /// The verdict after this many samples of the same.
        fn after(&mut self, samples: u32, queue: u32, answers: bool) -> Verdict {
            (0..samples).map(|_| self.see(queue, answers)).last().unwrap()
        }
    }

    #[test]
    fn a_holder_that_is_silent_and_drains_nothing_for_a_second_is_stalled() {
        let mut watch = Watch::new();
        watch.after(8, 0, true);
        assert_eq!(watch.after(4, 1, false), Verdict::Calm);
        assert_eq!(watch.see(1, false), Verdict::Stalled);
    }

    #[test]
    fn a_sample_that_comes_a_moment_early_makes_clients_wait_for_no_other() {
        let mut watch = Watch::new();
        watch.after(8, 0, true);
        watch.after(4, 1, false);
        let early = watch.now + Duration::from_millis(249);
        assert_eq!(watch.stall.sample(1, early), Verdict::Stalled);
    }

    #[test]
    fn a_queue_that_was_empty_once_is_drained() {
        let mut watch = Watch::new();
        for _ in 0..10 {
            assert_eq!(watch.after(4, 9, false), Verdict::Calm);
            assert_eq!(watch.see(0, false), Verdict::Calm);
        }
    }

    #[test]
    fn a_busy_holder_that_answers_is_not_stalled_unless_its_queue_is_long_and_does_not_shrink() {
        let mut watch = Watch::new();
        assert_ne!(watch.after(20, 63, true), Verdict::Stalled);
        let mut watch = Watch::new();
        for queue in [700, 600, 500, 400, 300, 200, 100, 70] {
            assert_ne!(watch.see(queue, true), Verdict::Stalled, "{queue}");
        }
        assert_eq!(watch.after(5, 70, true), Verdict::Stalled);
    }

    #[test]
    fn it_turns_when_it_has_answered_for_a_second() {
        let mut watch = Watch::new();
        assert_eq!(watch.after(8, 1, false), Verdict::Stalled);
        assert_eq!(watch.after(4, 0, true), Verdict::Calm);
        assert_eq!(watch.see(0, true), Verdict::Turning);
    }

    #[test]
    fn a_gap_in_the_answers_starts_the_second_anew() {
        let mut watch = Watch::new();
        assert_eq!(watch.after(8, 0, true), Verdict::Turning);
        assert_eq!(watch.after(4, 0, false), Verdict::Calm);
        assert_eq!(watch.after(4, 0, true), Verdict::Calm);
        assert_eq!(watch.see(0, true), Verdict::Turning);
    }

    #[test]
    fn a_pause_of_the_whole_machine_makes_nobody_accept() {
        let mut watch = Watch::new();
        assert_eq!(watch.after(4, 5, false), Verdict::Calm);
        watch.now += Duration::from_secs(20);
        assert_eq!(watch.after(4, 5, false), Verdict::Calm);
        assert_eq!(watch.see(5, false), Verdict::Stalled);
    }
}
