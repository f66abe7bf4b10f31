//! Waits until the process that serves on this node says something.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use crate::handover::inquiry::{self, Error, Processes};

/// How long the process that serves may take for its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The pause between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The pause between two lines that say what is waited for.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Whom to ask, and for how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::program) struct Wait<'a> {
    /// The directory in which the proxies of the node meet.
    pub(in crate::program) handover_dir: &'a Path,
    /// The longest wait for the first answer that will do.
    pub(in crate::program) within: Duration,
    /// How long all answers must do.
    pub(in crate::program) steady: Duration,
}

/// How a wait ends.
#[derive(Debug)]
pub(in crate::program) enum Waited<O> {
    /// The answers did for long enough.
    Done,
    /// The last answer did not, for this reason.
    Overdue(O),
}

impl Wait<'_> {
    /// Asks until `obstacle` finds nothing against the answers. `words` says what is waited for.
    pub(in crate::program) async fn until<O>(
        &self,
        obstacle: impl Fn(Result<&Processes, &Error>) -> Option<O>,
        words: impl Fn(&O) -> String,
    ) -> Waited<O> {
        let started = Instant::now();
        let (mut told, mut good_since) = (started, None);
        loop {
            let answer = inquiry::ask(self.handover_dir, ANSWER_LIMIT).await;
            let now = Instant::now();
            match obstacle(answer.as_ref()) {
                None if now - *good_since.get_or_insert(now) >= self.steady => return Waited::Done,
                None => {}
                Some(obstacle) if now - started >= self.within => return Waited::Overdue(obstacle),
                Some(obstacle) => {
                    good_since = None;
                    if now - told >= TELL_AGAIN {
                        told = now;
                        println!(
                            "waiting: {} ({} s of {} s)",
                            words(&obstacle),
                            (now - started).as_secs(),
                            self.within.as_secs()
                        );
                    }
                }
            }
            sleep(ASK_AGAIN).await;
        }
    }
}
