//! What the machine wants done.

use std::time::Duration;

use super::event::{ChannelId, Timer};
use crate::handover::record::Message;

/// Something to do, in the order in which it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the socket path.
    Connect,
    /// Try to lock the file at the path. A lock that this process has already is kept until the new one is locked.
    TryLock,
    /// Close the lock, also one that came with `Commit`. Never unlock it: that would free it for all who have a duplicate.
    DropLock,
    /// Bind the document's listeners.
    Bind,
    /// Listen at the socket path.
    BindPath,
    /// Listen there no more. The path is not unlinked: it may be another process's by now.
    ClosePath,
    /// Accept on all listeners.
    Accept,
    /// Accept no more.
    StopAccepting,
    /// Close all listeners, without `shutdown`.
    DropListeners,
    /// Send a message. One that does not fit into the socket's buffer waits there, before all that follow on this channel.
    Send(ChannelId, Message),
    /// Send `Taken` with this number at once, and tell whether that was possible.
    Confirm(ChannelId, u64),
    /// Shut the channel down for reading, tell what is left on it, then tell that it is empty. The kernel decides by this
    /// whether `Taken` came in time: both sides see the same.
    CloseForReading(ChannelId),
    /// Close the channel once all messages to it are written.
    Close(ChannelId),
    /// Tell when this much time has passed.
    Set(Timer, Duration),
    /// Do not tell.
    Clear(Timer),
    /// Close the listeners, end this process's connections gradually, then the process.
    Drain {
        /// Whether no process goes on with the listeners. Then they are kept open for a release that shares the port, for a
        /// moment, and their queues are emptied.
        is_last: bool,
    },
}
