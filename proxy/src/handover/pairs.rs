//! Hand-over of the connections of one process to the process of its node that serves: established pairs, and clients whose
//! connection is still being opened.
//!
//! It follows the hand-over of the listeners, on a channel of its own. A process gives its connections when it ends, or when
//! it has stood by for a while. They go in batches, one at a time: [`batch`] is the form of one, [`giving`] and [`taking`]
//! decide what each side does, [`giver`] and [`taker`] do it.
//!
//! What keeps a connection from being served twice, and one from being lost that a living process has:
//! - The giver stops to relay before it sends duplicates of the sockets, and closes its own only when it has read `Taken`.
//! - The taker reads and writes nothing before it could send `Taken`. One that could not reads on: `Abort` says that the giver
//!   goes on, an end of file without it that the giver is dead.
//! - A giver that has waited too long shuts the channel down for reading and reads what is left. The kernel lets `Taken` in or
//!   refuses it, so that both sides agree. The channel ends with that batch.
//!
//! These are the rules by which the lock goes from one process to another, see [`super::machine`].

mod answer;
pub mod batch;
pub mod giver;
pub mod giving;
pub mod taker;
pub mod taking;
pub mod takings;

use std::time::Duration;

use super::channel::MAX_DESCRIPTORS;

/// The most pairs in one batch: each has two sockets, and the batch has a file.
pub const MAX_PAIRS: usize = (MAX_DESCRIPTORS - 1) / 2;

/// Once a batch holds so many bytes of clients and upstreams, what follows waits for the next one.
const FULL: usize = 4 << 20;

/// The pause between two attempts: to find a process that serves, which binds the path a moment after a take, and to use a
/// channel where a call has failed. After batches that were not taken it is longer, see [`giver`].
const PAUSE: Duration = Duration::from_millis(5);

/// How long the giver waits for an answer. The taker answers at once unless it is stopped.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
