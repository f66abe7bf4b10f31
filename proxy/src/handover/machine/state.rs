//! What a process is to the others of its node, and what follows from it.

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// There is no hand-over here: no directory, or no unix sockets.
    Alone,
    /// Looks for a holder or a free lock.
    Seeking,
    /// Has the lock, but another program has the port.
    Binding,
    /// May take, once it has proven itself.
    Newcomer,
    /// May take once the rollout reaches this node: the gate of its template is closed here.
    Gated,
    /// Has accepted an offer.
    Taking,
    /// Serves.
    Serving,
    /// Serves and has made an offer.
    Giving,
    /// Holds the listeners in case that they are needed.
    Standby,
    /// Accepts beside a holder that seems to hang.
    Assisting,
    /// Serves until another takes over: SIGTERM has come.
    Leaving,
    /// Ends; it was not the holder.
    Retiring,
    /// Ends; it was the holder.
    Draining,
}

/// Whether a process probes the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// It does.
    Always,
    /// It does while it relays connections, because a silent member must still be cut.
    WhileItRelays,
    /// It does not.
    Never,
}

impl State {
    /// The words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Seeking => "looking for other proxies of this node",
            Self::Binding => "waiting for a port that another program has",
            Self::Newcomer => "about to take over from another proxy of this node",
            Self::Gated => "waiting until the rollout reaches this node",
            Self::Taking => "taking over from another proxy of this node",
            Self::Serving => "serving",
            Self::Giving => "handing over to another proxy of this node",
            Self::Standby => "standing by",
            Self::Assisting => "serving beside a proxy that hangs",
            Self::Leaving => "ending once another proxy of this node serves",
            Self::Retiring | Self::Draining => "ending",
        }
    }

    /// Whether this process is the one that serves, or would if it had its port, and so the one that reports.
    pub fn serves(self) -> bool {
        match self {
            Self::Alone | Self::Binding | Self::Serving | Self::Giving | Self::Leaving => true,
            Self::Seeking
            | Self::Newcomer
            | Self::Gated
            | Self::Taking
            | Self::Standby
            | Self::Assisting
            | Self::Retiring
            | Self::Draining => false,
        }
    }

    /// Whether it probes.
    pub fn probing(self) -> Probing {
        match self {
            Self::Alone
            | Self::Binding
            | Self::Newcomer
            | Self::Gated
            | Self::Taking
            | Self::Serving
            | Self::Giving
            | Self::Assisting
            | Self::Leaving
            | Self::Draining => Probing::Always,
            Self::Standby | Self::Retiring => Probing::WhileItRelays,
            Self::Seeking => Probing::Never,
        }
    }
}

/// What makes a process ready besides its state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merits {
    /// A connection of its own through its own relay was answered once.
    pub is_proven: bool,
    /// It has served and has given, or is a static pod that has applied a snapshot.
    pub is_spare: bool,
    /// SIGTERM has come.
    pub is_leaving: bool,
}

/// Whether a process is ready. A newcomer is not, though it holds the listeners and has proven itself: the DaemonSet
/// controller would delete the pod that serves. One that has given stays ready, or the controller would delete it.
pub fn is_ready(state: State, merits: Merits) -> bool {
    match state {
        State::Alone | State::Serving | State::Giving => merits.is_proven && !merits.is_leaving,
        State::Standby | State::Taking => merits.is_spare,
        State::Assisting => !merits.is_leaving,
        State::Seeking
        | State::Binding
        | State::Newcomer
        | State::Gated
        | State::Leaving
        | State::Retiring
        | State::Draining => false,
    }
}
