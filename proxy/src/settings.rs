//! The document in force, and the values that connections and probes derive from it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use trivet_crds::wire::{Document, Listener, Member, MemberState};

use crate::{
    balance::{PathKey, health::Policy, schedule},
    net::socket::UpstreamOptions,
    trust::{self, Trust},
};

/// One immutable snapshot. A new document makes a new snapshot, swapped as a whole.
#[derive(Debug)]
pub struct Settings {
    /// The document itself.
    pub document: Arc<Document>,
    /// How to verify the members' certificates.
    pub trust: Trust,
    /// Options of the upstream sockets that serve clients.
    pub socket: UpstreamOptions,
    /// Options of the upstream sockets that serve probes.
    pub probe_socket: UpstreamOptions,
    /// How long one dial may take.
    pub connect_timeout: Duration,
    /// The hedge delay: how long to wait for one upstream before the next is tried beside it.
    pub hedge_delay: Duration,
    /// Over which time draining connections are closed.
    pub drain_timeout: Duration,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// The thresholds of health.
    pub policy: Policy,
}

impl Settings {
    /// Derives the settings of a document. Fails if its certificates cannot be used.
    pub fn new(document: Arc<Document>) -> Result<Self, trust::Error> {
        let connection = &document.connection;
        let health_check = &document.health_check;
        let keepalive_idle = Duration::from_secs(connection.keep_alive_seconds.into());
        Ok(Self {
            trust: Trust::new(&document.tls)?,
            socket: UpstreamOptions::for_clients(keepalive_idle),
            probe_socket: UpstreamOptions::for_probes(
                keepalive_idle,
                milliseconds(connection.user_timeout_milliseconds),
            ),
            connect_timeout: milliseconds(connection.connect_timeout_milliseconds),
            hedge_delay: milliseconds(connection.hedge_delay_milliseconds),
            drain_timeout: Duration::from_secs(connection.drain_timeout_seconds.into()),
            probe_timeout: milliseconds(health_check.timeout_milliseconds),
            policy: Policy {
                failure_threshold: health_check.failure_threshold,
                success_threshold: health_check.success_threshold,
                probe_interval: schedule::probe_interval(
                    document.nodes,
                    milliseconds(health_check.period_milliseconds),
                ),
            },
            document,
        })
    }

    /// The extra listener of this name.
    pub fn extra_listener(&self, name: &str) -> Option<&Listener> {
        let mut listeners = self.document.extra_listeners();
        listeners.find(|listener| listener.name == name)
    }

    /// Whether the document has a member of this name that gets new connections.
    pub fn has_active(&self, member: &str) -> bool {
        let mut members = self.document.members.iter();
        members.any(|known| known.name == member && !drains(known))
    }
}

/// The paths to a member's apiserver: one for each of its addresses, the preferred first.
pub fn paths(member: &Member) -> impl Iterator<Item = PathKey> {
    paths_at(member, member.port)
}

/// The paths to another server of a member, which listens on this port.
pub fn paths_at(member: &Member, port: u16) -> impl Iterator<Item = PathKey> {
    member.sockets_at(port).map(|address| PathKey {
        member: member.name.clone(),
        address,
    })
}

/// The addresses at which clients reach the apiservers, each once.
pub fn listening_on(document: &Document) -> Vec<IpAddr> {
    let addresses = document
        .apiserver_listeners()
        .flat_map(|listener| &listener.addresses);
    let each_once: BTreeSet<_> = addresses.copied().collect();
    each_once.into_iter().collect()
}

/// The ports on which members listen on this node, their other servers too.
pub fn ports_on_node(document: &Document, node: &str) -> BTreeSet<u16> {
    let members = document.members.iter();
    let here = members.filter(|member| !node.is_empty() && member.node_name == node);
    let others = || {
        document
            .listeners
            .iter()
            .filter_map(|listener| listener.member_port)
    };
    here.flat_map(|member| others().chain([member.port])).collect()
}

/// Whether a member gets no new connection.
pub fn drains(member: &Member) -> bool {
    match member.state {
        MemberState::Active => false,
        MemberState::Draining => true,
    }
}

fn milliseconds(value: u32) -> Duration {
    Duration::from_millis(value.into())
}
