//! The protocol between a test and a fake apiserver: orders and counters, one line of JSON each.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// An order of a test to an apiserver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Behave like this from now on.
    Behave(Behaviour),
    /// Only return the counters.
    Count,
}

/// How an apiserver behaves. There is no value for a hung process: tests use SIGSTOP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Behaviour {
    /// What happens to a new connection.
    pub door: Door,
    /// The answer of `/readyz`.
    pub readiness: Readiness,
    /// The delay of every answer, that of `/livez` too.
    pub delay: Duration,
    /// Whether watches send no more events, while everything else works.
    pub stalled: bool,
    /// The certificate for connections from now on.
    pub identity: Identity,
    /// The token that a caller needs to read its health, as with `anonymous-auth=false`; none for anonymous access.
    pub token: Option<String>,
}

impl Behaviour {
    /// All is well.
    pub fn good(identity: Identity) -> Self {
        Self {
            door: Door::Open,
            readiness: Readiness::default(),
            delay: Duration::ZERO,
            stalled: false,
            identity,
            token: None,
        }
    }
}

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// It is served.
    Open,
    /// It is refused: nothing listens. Open connections stay.
    Closed,
    /// It is accepted and reset.
    Resets,
    /// It is accepted, and no byte is sent.
    SilentBeforeHandshake,
    /// It is accepted, the TLS handshake completes, and then no byte is sent.
    SilentAfterHandshake,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// The status.
    pub status: u16,
    /// The checks that fail, by name.
    pub failing: Vec<String>,
    /// The delay of the answer.
    pub delay: Duration,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            status: 200,
            failing: Vec::new(),
            delay: Duration::ZERO,
        }
    }
}

impl Readiness {
    /// Not ready, because of this check.
    pub fn failing(check: &str) -> Self {
        Self {
            status: 500,
            failing: vec![check.to_owned()],
            delay: Duration::ZERO,
        }
    }

    /// The answer of an apiserver without its etcd: it fails after four seconds.
    pub fn without_etcd() -> Self {
        Self {
            delay: Duration::from_secs(4),
            ..Self::failing("etcd")
        }
    }
}

/// A certificate and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What an apiserver has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests for `/readyz`.
    pub readyz: u64,
    /// Requests for `/livez`.
    pub livez: u64,
    /// The most requests for `/readyz` that waited for their answers at one time.
    pub readyz_at_once: u64,
    /// The most requests for `/livez` that waited for their answers at one time.
    pub livez_at_once: u64,
    /// Requests of clients.
    pub requests: u64,
    /// Connections that it has accepted.
    pub connections: u64,
}
