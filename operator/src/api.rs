//! Access to the Kubernetes API: the client, the watches, and the publishing of events.

pub mod backoff;
pub mod client;
pub mod events;
pub mod watch;
