//! Access to the Kubernetes API: the client, what it may write, the watches, and the publishing of events.

pub mod backoff;
pub mod client;
pub mod events;
pub mod fence;
pub mod watch;
