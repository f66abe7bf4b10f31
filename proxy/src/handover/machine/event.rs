//! What the machine is told.

use std::net::SocketAddr;

use crate::handover::{
    rank::Rank,
    record::{Listener, Message, Snapshot},
};

/// A channel between two processes, numbered by its end in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A timer of the machine. There is one of each; setting it again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Look again for a holder or a free lock.
    Seek,
    /// Bind again.
    Bind,
    /// Processes that seek have had the time to connect to a new holder.
    Settle,
    /// Peers have had the time to ask a holder that leaves.
    Gather,
    /// The other side of a give is overdue.
    Give,
    /// The former holder is overdue with its end.
    Predecessor,
    /// This process has been leaving for as long as it may.
    Leave,
}

/// Something that happened.
///
/// The caller keeps three rules. The outcome of an action is told before anything else. What can be read is told
/// before a timer that has elapsed: a process that was stopped learns first what happened meanwhile. And
/// [`Event::AllRead`] follows when nothing more can be read, after each batch of other events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process has started.
    Started,
    /// SIGTERM has come.
    Terminated,
    /// A timer has elapsed.
    Elapsed(Timer),
    /// Nothing more can be read on any channel for now.
    AllRead,

    /// A record has come on a channel. What comes on a channel that this process did not open is of a peer.
    Received(ChannelId, Message),
    /// The end of file of a channel: the other side has closed it or has died. All its records were told before.
    Closed(ChannelId),
    /// A record of this channel could not be read. The channel is still open.
    Broken(ChannelId),

    /// Outcome of `Connect`: this channel leads to whichever process has the socket path.
    Connected(ChannelId),
    /// Outcome of `Connect`: no process answers at the socket path.
    Unreachable,
    /// Outcome of `Connect` or `TryLock`: there is no directory to work in, or no unix socket can be made here.
    Unavailable,
    /// Outcome of `TryLock`: this process has the lock.
    Locked,
    /// Outcome of `TryLock`: another process has the lock, or this one has nothing to serve on yet and leaves it to others.
    LockHeld,
    /// Outcome of `Bind`: these listeners are bound, all or some of those that the document names. It has none where there
    /// is no document yet.
    Bound(Vec<Listener>),
    /// Outcome of `Bind`: the document names listeners, and none of them can be bound.
    PortTaken,
    /// Outcome of `Confirm`: `Taken` is written.
    Confirmed,
    /// Outcome of `Confirm`: the other side reads no more.
    Unconfirmed,
    /// Outcome of `CloseForReading`: all that was left on the channel has been told.
    Emptied(ChannelId),

    /// This process holds exactly these listeners from now on: the document has changed, or a port is free now.
    Listening(Vec<Listener>),
    /// This process has shut down the listeners with these addresses.
    ShutDown(Vec<SocketAddr>),
    /// There is a new snapshot to push.
    SnapshotReady(Snapshot),
    /// This process has applied the snapshot with this serial.
    Applied(u64),
    /// The document in force names another target. Rank and gate come as one, because a document names a template and closes
    /// its gate at once.
    Retargeted {
        /// This process's rank by it.
        rank: Rank,
        /// The template whose gate it closes on this node.
        closed: Option<String>,
    },
    /// A connection of its own through its own relay was answered.
    Proven,
    /// The accept queue is not drained by the process that should (told for as long as it is so).
    Stalled,
    /// The holder has been alive for long enough again (told for as long as it is so).
    Turning,
    /// The lock that this process has is not the one at the path any more (told for as long as it is so).
    LockLost,
    /// The lock that this process has is the one at the path, but the socket at the path is another process's (told for as
    /// long as it is so).
    PathLost,
    /// Another process of this user listens on the same port: a release that shares it by `SO_REUSEPORT`.
    AnotherListens,
}
