//! Hand-over of listeners between the Trivet processes of one node: old and new pod, pod and static standby, two runs of a
//! systemd unit.
//!
//! One of them serves: it holds the lock, accepts, and lends duplicates of its listeners to all others over a unix socket.
//! They hold the listeners without accepting, so that any of them can go on at once when the one that serves ends, leaves
//! or hangs.
//!
//! [`rank`] says who may take from whom, [`record`] is what they say to each other. They meet in a [`directory`] with the
//! [`lock`] and talk over a [`channel`] in records of one form ([`codec`]); [`lent`] holds the listeners and [`snapshot`]
//! what else a standby needs. [`machine`] decides the part of each process, and [`stall`] sees when the holder hangs.
//! [`inquiry`] asks the holder who is there.

pub mod channel;
pub mod codec;
pub mod directory;
pub mod driver;
pub mod inquiry;
pub mod lent;
pub mod lock;
pub mod machine;
pub mod pairs;
pub mod rank;
pub mod record;
pub mod sealed;
pub mod snapshot;
pub mod stall;
