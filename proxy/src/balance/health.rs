//! The health of one path: Up, Unready or Down, folded from what probes and dials bring.
//!
//! Only silence makes a path Down. One that answers, even by a refusal, or whose clients get replies is at worst Unready.

mod progress;
mod silence;
mod traffic;
mod unasked;

use std::time::Duration;

use tokio::time::Instant;

pub use self::progress::Progress;
use self::{silence::Silence, traffic::Traffic, unasked::Unasked};
use super::hold_down::HoldDown;

/// Answers in a row that bring a path back whose apiserver withholds its readiness. An apiserver that starts refuses all
/// callers with 403, for its health and its API alike, until it has read its own rules: a second or two.
const WITHHELD_THRESHOLD: u32 = 5;

/// For how long a path that said that it cannot reach its etcd counts as cut off while it withholds its readiness: a
/// 401 or 403 says nothing about etcd. It covers the longest wait before a refused token is sent again; past it the token is
/// refused for good, and the path is judged as others without one.
const STRANDED_WHILE_WITHHELD: Duration = Duration::from_secs(360);

/// What a path may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// New connections.
    Up,
    /// No new connection while another is Up; the old ones are left alone.
    Unready,
    /// Silent: its connections are cut, so that clients reconnect at once.
    Down,
}

impl State {
    /// All of them, in the order of the metric.
    pub const ALL: [Self; 3] = [Self::Up, Self::Unready, Self::Down];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "Up",
            Self::Unready => "Unready",
            Self::Down => "Down",
        }
    }
}

/// Why a path is in its state. Ordered: where none is Up, the one with the least reason is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It answers as it should.
    Answering,
    /// Remembered from before this process started, not probed yet.
    Remembered,
    /// It answers, but does not tell its readiness.
    Withheld,
    /// It answers well again and must go on doing so.
    Recovering,
    /// It answers well again, but fell too often lately.
    HeldDown,
    /// It says that it is not ready.
    NotReady,
    /// It is alive but too late with its readiness.
    Late,
    /// It says that it cannot reach its etcd.
    EtcdFailed,
    /// It answers with a certificate that is not of this cluster.
    Untrusted,
    /// It has not answered this proxy yet.
    NotProbed,
    /// It refuses or resets connections, or a router says that it cannot be reached.
    Refused,
    /// It says nothing at all.
    Silent,
}

impl Reason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answering => "Answering",
            Self::Remembered => "Remembered",
            Self::Withheld => "Withheld",
            Self::Recovering => "Recovering",
            Self::HeldDown => "HeldDown",
            Self::NotReady => "NotReady",
            Self::Late => "Late",
            Self::EtcdFailed => "EtcdFailed",
            Self::Untrusted => "Untrusted",
            Self::NotProbed => "NotProbed",
            Self::Refused => "Refused",
            Self::Silent => "Silent",
        }
    }
}

/// Whether a path of this health is expected to answer a new connection.
pub fn answers(state: State, reason: Reason) -> bool {
    match (state, reason) {
        (State::Down, _)
        | (State::Unready, Reason::Untrusted | Reason::NotProbed | Reason::Refused | Reason::Silent) => false,
        (State::Up, _)
        | (
            State::Unready,
            Reason::Answering
            | Reason::Remembered
            | Reason::Withheld
            | Reason::Recovering
            | Reason::HeldDown
            | Reason::NotReady
            | Reason::Late
            | Reason::EtcdFailed,
        ) => true,
    }
}

/// What one probe of a path brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Ready.
    Ready,
    /// Alive, but it does not tell its readiness to this caller (401, 403).
    Withheld,
    /// It says that it is not ready.
    NotReady,
    /// Alive, but late with its readiness.
    Late,
    /// It says that it is not ready because it cannot reach its etcd.
    EtcdFailed,
    /// It answered with a certificate that is not of this cluster.
    Untrusted,
    /// Refused or reset: a kernel answered, and no apiserver.
    Refused,
    /// Nothing came in time.
    Silent,
}

impl Outcome {
    /// Whether an apiserver of this cluster answered, well or not.
    pub fn is_answer(self) -> bool {
        match self {
            Self::Ready | Self::Withheld | Self::NotReady | Self::Late | Self::EtcdFailed => true,
            Self::Untrusted | Self::Refused | Self::Silent => false,
        }
    }

    /// Whether nothing speaks against giving it connections.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Ready | Self::Withheld)
    }

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Withheld,
        Self::NotReady,
        Self::Late,
        Self::EtcdFailed,
        Self::Untrusted,
        Self::Refused,
        Self::Silent,
    ];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Withheld => "Withheld",
            Self::NotReady => "NotReady",
            Self::Late => "Late",
            Self::EtcdFailed => "EtcdFailed",
            Self::Untrusted => "Untrusted",
            Self::Refused => "Refused",
            Self::Silent => "Silent",
        }
    }
}

/// The numbers by which health is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silent probes in a row that make a path Down.
    pub failure_threshold: u32,
    /// Good answers in a row that bring it back.
    pub success_threshold: u32,
    /// The time between two probes of a path that is in use.
    pub probe_interval: Duration,
}

/// The health of one path.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    reason: Reason,
    since: Instant,
    silent: u32,
    passes: u32,
    hold: HoldDown,
    silence: Option<Silence>,
    answering: bool,
    judged: bool,
    stranded: Option<Stranded>,
    unasked: Option<Unasked>,
    traffic: Traffic,
}

/// A member that says that it cannot reach its etcd.
#[derive(Clone, Copy, Debug)]
struct Stranded {
    since: Instant,
    /// When it said so last.
    told: Instant,
}

impl Health {
    /// A path that was not probed yet: trusted if this node has had a verified answer from it before.
    pub fn new(proven: bool, now: Instant) -> Self {
        let (state, reason) = if proven {
            (State::Up, Reason::Remembered)
        } else {
            (State::Unready, Reason::NotProbed)
        };
        Self {
            state,
            reason,
            since: now,
            silent: 0,
            passes: 0,
            hold: HoldDown::default(),
            silence: None,
            answering: false,
            judged: false,
            stranded: None,
            unasked: None,
            traffic: Traffic::default(),
        }
    }

    /// What it may get now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// For how long it has been alive but cut off from its etcd, if it is. What it serves then is old, and watches through
    /// it stand still.
    pub fn stranded_for(&self, now: Instant) -> Option<Duration> {
        let stranded = self.stranded.filter(|_| self.state == State::Unready)?;
        Some(now.saturating_duration_since(stranded.since))
    }

    /// Folds in the outcome of a probe that was sent at `asked`.
    pub fn fold(&mut self, outcome: Outcome, asked: Instant, at: (Instant, Policy)) {
        let (now, policy) = at;
        self.judged = true;
        self.unasked = None;
        self.stranded = self.stranded_after(outcome, asked, now);
        if outcome.is_answer() {
            self.traffic.answer();
        }
        match outcome {
            Outcome::Ready => self.pass(now, policy.success_threshold, true),
            Outcome::Withheld if self.stranded.is_some() => self.answer_badly(Reason::EtcdFailed, now),
            Outcome::Withheld => {
                self.pass(now, policy.success_threshold.max(WITHHELD_THRESHOLD), false);
            }
            Outcome::NotReady => self.answer_badly(Reason::NotReady, now),
            Outcome::Late => self.answer_badly(Reason::Late, now),
            Outcome::EtcdFailed => self.answer_badly(Reason::EtcdFailed, now),
            Outcome::Untrusted => self.answer_badly(Reason::Untrusted, now),
            Outcome::Refused => self.refuse(now),
            Outcome::Silent if self.traffic.excuses(asked, now) => self.answer_badly(Reason::Late, now),
            Outcome::Silent => self.stay_silent(asked, now, policy),
        }
    }

    fn stranded_after(&self, outcome: Outcome, asked: Instant, now: Instant) -> Option<Stranded> {
        match outcome {
            Outcome::EtcdFailed => Some(Stranded {
                since: self.stranded.map_or(asked, |stranded| stranded.since),
                told: now,
            }),
            // Between two answers about etcd it is late, or misses one.
            Outcome::Late | Outcome::Silent => self.stranded,
            Outcome::Withheld => {
                let lately = |stranded: &Stranded| {
                    now.saturating_duration_since(stranded.told) < STRANDED_WHILE_WITHHELD
                };
                self.stranded.filter(lately)
            }
            Outcome::Ready | Outcome::NotReady | Outcome::Untrusted | Outcome::Refused => None,
        }
    }

    /// A client that had waited got a reply at `at`.
    pub fn reply(&mut self, at: Instant) {
        self.traffic.reply(at);
    }

    /// A probe is overdue.
    pub fn wait(&mut self) {
        self.silence.get_or_insert_default();
    }

    /// Another path that can tell answered at `now`: if this one is overdue meanwhile, the fault is not this node's.
    pub fn hear_another(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence {
            silence.hear_another(now);
        }
    }

    /// Whether this process has had an outcome from it.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// Whether it is expected to answer a new connection.
    pub fn answers(&self) -> bool {
        answers(self.state, self.reason)
    }

    /// Whether its latest outcome is an answer, and no probe is overdue since.
    pub fn is_answering(&self) -> bool {
        self.answering && self.silence.is_none()
    }

    /// Since when it is Down, if its silence is its own.
    pub fn silent_alone_since(&self) -> Option<Instant> {
        let alone = self.state == State::Down && self.silence.is_some_and(Silence::is_its_own);
        alone.then_some(self.since)
    }

    fn pass(&mut self, now: Instant, threshold: u32, ready: bool) {
        self.answer();
        self.passes = self.passes.saturating_add(1);
        // The first answer of a new path is enough if it tells its readiness.
        let at_once = self.state == State::Up || ready && self.reason == Reason::NotProbed;
        let up = if ready {
            Reason::Answering
        } else {
            Reason::Withheld
        };
        let (state, reason) = if at_once {
            (State::Up, up)
        } else if self.passes < threshold {
            (State::Unready, Reason::Recovering)
        } else if self.hold.holds(now) {
            (State::Unready, Reason::HeldDown)
        } else {
            (State::Up, up)
        };
        self.become_state(state, reason, now);
    }

    fn answer_badly(&mut self, reason: Reason, now: Instant) {
        self.answer();
        self.passes = 0;
        self.become_state(State::Unready, reason, now);
    }

    fn answer(&mut self) {
        self.silent = 0;
        self.silence = None;
        self.answering = true;
    }

    fn refuse(&mut self, now: Instant) {
        self.silent = 0;
        self.passes = 0;
        self.silence = None;
        self.answering = false;
        self.fall_from_up(now);
        self.become_state(State::Unready, Reason::Refused, now);
    }

    fn stay_silent(&mut self, asked: Instant, now: Instant, policy: Policy) {
        self.passes = 0;
        self.silence.get_or_insert_default().go_on(asked);
        self.silent = self.silent.saturating_add(1);
        if self.silent >= policy.failure_threshold && self.state != State::Down {
            self.fall_from_up(now);
            self.become_state(State::Down, Reason::Silent, now);
        }
    }

    fn fall_from_up(&mut self, now: Instant) {
        if self.state == State::Up {
            self.hold.fall(self.since, now);
        }
    }

    fn become_state(&mut self, state: State, reason: Reason, now: Instant) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
        self.reason = reason;
    }
}
