//! The wire document of a lab's pool, with the times that every pool has by default.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, Document, HealthCheck, Listener, Member, MemberState, RolloutTarget,
    Tls,
};

use trivet_instruments::SERVER_NAME;

use crate::{authority::Authority, network::Place};

/// The port of every apiserver.
pub(crate) const APISERVER: u16 = 6443;

/// The port of the proxy on the node's loopback.
pub(crate) const PROXY: u16 = 7443;

/// A builder of a wire document.
#[derive(Clone, Debug)]
pub struct Pool {
    document: Document,
}

impl Pool {
    /// No member yet, and the times and numbers of `spec: {}`.
    pub(crate) fn new(authority: &Authority) -> Self {
        let document = Document {
            api_version: API_VERSION.to_owned(),
            pool: "default".to_owned(),
            revision: 1,
            hash: String::new(),
            members: Vec::new(),
            disabled_members: Vec::new(),
            further_endpoints: Vec::new(),
            listeners: vec![Listener::apiserver(
                vec![[127, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()],
                PROXY,
            )],
            balancing: Balancing::default(),
            rollout: RolloutTarget::default(),
            health_check: HealthCheck {
                period_milliseconds: 1000,
                timeout_milliseconds: 1000,
                failure_threshold: 2,
                success_threshold: 2,
            },
            connection: Connection {
                connect_timeout_milliseconds: 1000,
                hedge_delay_milliseconds: 250,
                user_timeout_milliseconds: 5000,
                keep_alive_seconds: 5,
                drain_timeout_seconds: 60,
                max_connections: 10_000,
            },
            nodes: 5,
            tls: Tls {
                ca_bundle: authority.bundle().to_owned(),
                server_name: SERVER_NAME.to_owned(),
            },
        };
        Self { document }
    }

    /// Sets the revision.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.document.revision = revision;
        self
    }

    /// Adds the apiserver at this place, by its IPv4 address.
    #[must_use]
    pub fn member(self, place: Place) -> Self {
        self.member_at(&place.name(), vec![place.ipv4()])
    }

    /// Adds a member with this name and these addresses.
    #[must_use]
    pub fn member_at(mut self, name: &str, addresses: Vec<IpAddr>) -> Self {
        self.document.members.push(Member {
            name: name.to_owned(),
            addresses,
            port: APISERVER,
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        });
        self
    }

    /// Adds the apiserver at this place to those that are no members.
    #[must_use]
    pub fn endpoint(mut self, place: Place) -> Self {
        let endpoint = SocketAddr::new(place.ipv4(), APISERVER);
        self.document.further_endpoints.push(endpoint);
        self
    }

    /// Sets the most connections of the proxy.
    #[must_use]
    pub fn max_connections(mut self, limit: u32) -> Self {
        self.document.connection.max_connections = limit;
        self
    }

    /// Sets the drain time-out of the proxy, in seconds.
    #[must_use]
    pub fn drain_within(mut self, seconds: u32) -> Self {
        self.document.connection.drain_timeout_seconds = seconds;
        self
    }

    /// Sets the trusted authorities.
    #[must_use]
    pub fn trusting(mut self, authorities: &[&Authority]) -> Self {
        self.document.tls.ca_bundle = authorities.iter().map(|authority| authority.bundle()).collect();
        self
    }

    /// The content of the file.
    pub fn text(&self) -> Result<String> {
        Ok(self.document.clone().seal()?.to_text()?)
    }
}
