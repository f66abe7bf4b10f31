//! The document of a node that is installed before its cluster: from the members that the command line names, or from a
//! file.

use std::net::SocketAddr;

use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, Document, HealthCheck, Listener, RolloutTarget, Tls,
};

use super::{members::NamedMember, names::PoolName};
use crate::{
    cause,
    document::{self, seed::Seed},
};

/// The revision of a document that is made without a cluster. The operator's are Unix times, so the first one of the
/// cluster is newer, whatever the clock of the machine on which the manifest was made.
const REVISION: u64 = 1;

/// The longest seed: the kernel takes no variable of 128 KiB or more (`MAX_ARG_STRLEN`).
const LONGEST: usize = 120 * 1024;

/// What a document is made of without a cluster.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The pool.
    pub pool: PoolName,
    /// Its members.
    pub members: Vec<NamedMember>,
    /// Where proxies listen.
    pub listen: Vec<SocketAddr>,
    /// The certificates of the cluster's authorities, PEM.
    pub authorities: String,
    /// The name that the certificates of the members have.
    pub tls_server_name: String,
    /// About how many nodes the cluster has.
    pub nodes: u32,
}

/// A seed that a proxy follows, with what the manifest needs to know of it.
#[derive(Clone, Debug)]
pub struct CheckedSeed {
    /// The seed.
    pub seed: Seed,
    /// Its pool.
    pub pool: PoolName,
    /// Its `connection.drainTimeoutSeconds`.
    pub drain_timeout_seconds: u32,
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two members have an address and port in common.
    #[error(
        "--member {0} must be the address of one member only; give an apiserver one --member with all of its addresses"
    )]
    SharedAddress(SocketAddr),
    /// The listeners have different ports.
    #[error("--listen {0} must have the port of the first --listen; a pool has one port on all nodes")]
    Port(SocketAddr),
    /// A proxy would reject the document.
    #[error("{0}")]
    Rejected(String),
    /// The document cannot be written.
    #[error("{0}")]
    Unwritable(String),
    /// The pool of a document has a name that no ApiserverPool can have.
    #[error("pool {name:?} {rule}")]
    Pool {
        /// The name.
        name: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The document does not fit into a variable.
    #[error(
        "the document has {0} bytes and must have at most {LONGEST}, because the pod gets it as an environment variable; leave out authorities that sign no apiserver"
    )]
    TooLong(usize),
}

/// The document of these parts, with the pool's defaults for everything else.
pub fn from_parts(parts: Parts, now: u64) -> Result<CheckedSeed, Error> {
    let members: Vec<_> = parts.members.iter().map(NamedMember::member).collect();
    let mut sockets: Vec<_> = members.iter().flat_map(|member| member.sockets()).collect();
    sockets.sort_unstable();
    if let Some(shared) = sockets.windows(2).find_map(|pair| match pair {
        [left, right] if left == right => Some(*left),
        _ => None,
    }) {
        return Err(Error::SharedAddress(shared));
    }
    let port = parts.listen.first().map_or(0, SocketAddr::port);
    if let Some(other) = parts.listen.iter().find(|listen| listen.port() != port) {
        return Err(Error::Port(*other));
    }
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: parts.pool.to_string(),
        revision: REVISION,
        hash: String::new(),
        members: members.into_iter().cloned().collect(),
        disabled_members: Vec::new(),
        further_endpoints: Vec::new(),
        listeners: vec![Listener::apiserver(
            parts.listen.iter().map(SocketAddr::ip).collect(),
            port,
        )],
        balancing: Balancing::default(),
        rollout: RolloutTarget::default(),
        health_check: default_health_check(),
        connection: default_connection(),
        nodes: parts.nodes,
        tls: Tls {
            ca_bundle: parts.authorities,
            server_name: parts.tls_server_name,
        },
    };
    let written = document.seal().and_then(|document| document.to_text());
    let text = written.map_err(|error| Error::Unwritable(cause::chain(&error)))?;
    check(text, now)
}

/// Checks a document as a proxy does.
pub fn check(text: String, now: u64) -> Result<CheckedSeed, Error> {
    if text.len() > LONGEST {
        return Err(Error::TooLong(text.len()));
    }
    let settings = document::read(&text, now).map_err(|rejection| Error::Rejected(rejection.message))?;
    let document = &settings.document;
    let pool = document.pool.parse().map_err(|rule| Error::Pool {
        name: document.pool.clone(),
        rule,
    })?;
    Ok(CheckedSeed {
        pool,
        drain_timeout_seconds: document.connection.drain_timeout_seconds,
        seed: Seed::new(text),
    })
}

/// The defaults of `spec.healthCheck` and `spec.connection`.
fn default_health_check() -> HealthCheck {
    HealthCheck {
        period_milliseconds: 1000,
        timeout_milliseconds: 1000,
        failure_threshold: 2,
        success_threshold: 2,
    }
}

fn default_connection() -> Connection {
    Connection {
        connect_timeout_milliseconds: 1000,
        hedge_delay_milliseconds: 250,
        user_timeout_milliseconds: 5000,
        keep_alive_seconds: 5,
        drain_timeout_seconds: 60,
        max_connections: 16_384,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_not_given_is_the_pools_default() {
        let schema = include_str!("../../../crds/trivet.dev_apiserverpools.yaml");
        let schema: Value = serde_saphyr::from_str(schema).unwrap();
        let spec =
            &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let defaults = |part: &str| spec[part]["default"].clone();
        assert_eq!(
            serde_json::to_value(default_connection()).unwrap(),
            defaults("connection")
        );
        let mut health_check = defaults("healthCheck");
        health_check.as_object_mut().unwrap().remove("tlsServerName");
        assert_eq!(
            serde_json::to_value(default_health_check()).unwrap(),
            health_check
        );
    }
}
