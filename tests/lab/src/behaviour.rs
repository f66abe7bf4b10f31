//! How a fake apiserver is told to behave, and what it tells about itself: one line of JSON each way.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// What a test tells an apiserver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Behave so from now on.
    Behave(Behaviour),
    /// Only say what was counted.
    Count,
}

/// How an apiserver behaves. A hung process needs no word here: it is stopped by a signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Behaviour {
    /// What becomes of a connection that comes in.
    pub door: Door,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What every answer takes, that of `/livez` too.
    pub delay: Duration,
    /// Whether watches say no more, while everything else goes on.
    pub stalled: bool,
    /// The certificate for connections from now on.
    pub identity: Identity,
    /// The token without which nobody is told of its health, as with `anonymous-auth=false`; none tells everybody.
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

/// What becomes of a connection that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// It is served.
    Open,
    /// It is refused: nothing listens. Those that are open stay.
    Closed,
    /// It is accepted and reset.
    Resets,
    /// It is accepted, and nothing is said.
    SilentBeforeHandshake,
    /// It is accepted, TLS is set up, and nothing more is said.
    SilentAfterHandshake,
}

/// What `/readyz` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// The status.
    pub status: u16,
    /// The checks that fail, by name.
    pub failing: Vec<String>,
    /// What the answer takes.
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

    /// As an apiserver without its etcd answers: after four seconds, and badly.
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
    /// Questions for `/readyz`.
    pub readyz: u64,
    /// Questions for `/livez`.
    pub livez: u64,
    /// The most questions for `/readyz` that waited for their answers at one time.
    pub readyz_at_once: u64,
    /// The most questions for `/livez` that waited for their answers at one time.
    pub livez_at_once: u64,
    /// Requests of clients.
    pub requests: u64,
    /// Connections that it has accepted.
    pub connections: u64,
}
