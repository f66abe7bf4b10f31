//! What the proxy promises, on real sockets against apiservers that misbehave on command.

mod documents;
mod draining;
mod health;
mod opening;
mod relaying;
mod support;
