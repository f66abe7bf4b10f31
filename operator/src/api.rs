//! What talks to the Kubernetes API: the client, the watches, and the events that are published.

pub mod backoff;
pub mod client;
pub mod events;
pub mod watch;
