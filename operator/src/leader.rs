//! Which of several operators writes: the one that leads. The others watch, and are ready to go on.
//!
//! `election` decides, `campaign` reads and writes the Lease, and `take` makes the writes of an earlier leader fail. Whatever
//! writes goes through [`crate::api::fence`], which asks [`Leadership::check`] at the moment of each request.

pub mod campaign;
pub mod election;
pub mod take;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc};
use tokio::time::Instant;

use self::election::Term;

/// Why a write must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeader {
    /// This process does not hold the Lease.
    #[error("this operator does not lead")]
    Other,
    /// It has not renewed the Lease in time, because it was stopped or reached no API server. Another one may lead.
    #[error("this operator has not renewed its Lease in time")]
    Expired,
}

impl NotLeader {
    /// One fixed word for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Other => "NotLeader",
            Self::Expired => "LeaseExpired",
        }
    }
}

/// Whether this process leads, and the work that only a leader does.
#[derive(Debug)]
pub struct Leadership {
    lead: Mutex<Option<Lead>>,
    work: Arc<RwLock<()>>,
    begun: mpsc::Sender<()>,
}

#[derive(Clone, Debug)]
struct Lead {
    term: Arc<Term>,
    until: Instant,
}

/// Work of a leader that is under way. The term that it belongs to is not followed by another one of this process before
/// it has ended.
#[derive(Debug)]
pub struct Work {
    /// The term in which it began.
    pub term: Arc<Term>,
    _is_under_way: OwnedRwLockReadGuard<()>,
}

impl Leadership {
    /// That of a process that does not lead, and its news: an item each time that a term begins.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (begun, news) = mpsc::channel(1);
        let leadership = Self {
            lead: Mutex::default(),
            work: Arc::default(),
            begun,
        };
        (leadership, news)
    }

    /// Whether this process may send a write at `now`.
    pub fn check(&self, now: Instant) -> Result<(), NotLeader> {
        match &*self.lock() {
            None => Err(NotLeader::Other),
            Some(lead) if lead.until <= now => Err(NotLeader::Expired),
            Some(_) => Ok(()),
        }
    }

    /// The term in which this process has begun to lead, and may lead still.
    pub fn term(&self) -> Option<Arc<Term>> {
        self.lock().as_ref().map(|lead| Arc::clone(&lead.term))
    }

    /// Begins work that only a leader does; `None` while this process does not lead.
    pub fn enter(&self, now: Instant) -> Option<Work> {
        let under_way = Arc::clone(&self.work).try_read_owned().ok()?;
        let lead = self.lock().clone().filter(|lead| now < lead.until)?;
        Some(Work {
            term: lead.term,
            _is_under_way: under_way,
        })
    }

    /// This process leads until this moment. Returns whether a term has begun.
    pub fn lead(&self, term: &Term, until: Instant) -> bool {
        let mut lead = self.lock();
        if let Some(lead) = &mut *lead
            && *lead.term == *term
        {
            lead.until = until;
            return false;
        }
        *lead = Some(Lead {
            term: Arc::new(term.clone()),
            until,
        });
        // Full: one that waits says the same.
        self.begun.try_send(()).ok();
        true
    }

    /// This process does not lead any more.
    pub fn step_down(&self) {
        *self.lock() = None;
    }

    /// Waits until no work is under way. None begins while this waits.
    pub async fn work_has_ended(&self) {
        drop(self.work.write().await);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lead>> {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;

    use super::election::{Candidate, Found, Record, Step};
    use super::*;

    /// A term of the process with this name, which so many others were before.
    pub(crate) fn term(identity: &str, number: i32, now: Instant) -> Term {
        let mut candidate = Candidate::new(identity.to_owned());
        let released = Record {
            transitions: number - 1,
            ..Record::default()
        };
        let found = Found {
            record: released,
            version: "1".to_owned(),
        };
        candidate.read((number > 0).then_some(found), now);
        let Step::Write(write) = candidate.next(now, Timestamp::UNIX_EPOCH) else {
            panic!("it takes a Lease that nobody has");
        };
        candidate.written(write, "2".to_owned(), now);
        candidate.leads(now).unwrap().0.clone()
    }

    /// A process that leads for an hour, in its first term.
    pub(crate) fn leader(identity: &str) -> Leadership {
        lead(&term(identity, 0, Instant::now()))
    }

    /// A process that leads for an hour, in a term that so many others were before.
    pub(crate) fn leader_in(number: i32) -> Leadership {
        lead(&term("operator", number, Instant::now()))
    }

    fn lead(term: &Term) -> Leadership {
        let (leadership, _) = Leadership::new();
        leadership.lead(term, Instant::now() + Duration::from_secs(3600));
        leadership
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_deadline_a_leader_may_not_write_though_nobody_has_told_it() {
        let (leadership, mut begun) = Leadership::new();
        let now = Instant::now();
        assert_eq!(leadership.check(now), Err(NotLeader::Other));
        assert!(leadership.enter(now).is_none());
        let (term, until) = (term("a", 0, now), now + Duration::from_secs(10));
        assert!(leadership.lead(&term, until));
        assert!(begun.recv().await.is_some());
        assert_eq!(leadership.check(now), Ok(()));
        assert_eq!(leadership.enter(now).unwrap().term.text(), term.text());
        assert_eq!(leadership.check(until), Err(NotLeader::Expired));
        assert!(leadership.enter(until).is_none());
        assert!(
            !leadership.lead(&term, until + Duration::from_secs(2)),
            "it goes on"
        );
        assert_eq!(leadership.check(until), Ok(()));
        leadership.step_down();
        assert!(leadership.term().is_none());
        assert_eq!(leadership.check(now), Err(NotLeader::Other));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_end_of_work_is_waited_for_none_begins() {
        let leadership = leader("a");
        let work = leadership.enter(Instant::now()).unwrap();
        let mut ended = Box::pin(leadership.work_has_ended());
        assert!(futures::poll!(&mut ended).is_pending());
        assert!(leadership.enter(Instant::now()).is_none());
        drop(work);
        ended.await;
        assert!(leadership.enter(Instant::now()).is_some());
    }
}
