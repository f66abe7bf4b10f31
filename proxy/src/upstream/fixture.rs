//! Upstreams for the tests of what uses them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use trivet_crds::wire::{API_VERSION, Balancing, Connection, Document, HealthCheck, RolloutTarget, Tls};

use super::Upstreams;
use crate::{
    balance::{
        Disabled, Event, PathId, PathKey, Target,
        health::{Outcome, Policy},
        place::{Distance, Place},
    },
    settings::Settings,
};

/// Proven upstreams; the first of them is dialled first. No document is in force, so they are not probed: the test reports
/// their outcomes.
pub(crate) fn proven<const COUNT: usize>(
    addresses: [SocketAddr; COUNT],
) -> (Arc<Upstreams>, [PathId; COUNT]) {
    let place = Place {
        node: "w1".to_owned(),
        zone: String::new(),
    };
    let upstreams = Upstreams::new(place, Arc::default(), None, watch::Sender::default());
    configure(&upstreams, addresses);
    let known = upstreams.view();
    let id = |address| {
        let found = known.iter().find(|view| view.key.address == address);
        found.unwrap().id
    };
    (upstreams, addresses.map(id))
}

/// Makes these the members, the first of them the nearest.
pub(crate) fn configure<const COUNT: usize>(upstreams: &Arc<Upstreams>, addresses: [SocketAddr; COUNT]) {
    let targets = addresses.map(|address| Target {
        distance: if Some(&address) == addresses.first() {
            Distance::Local
        } else {
            Distance::Elsewhere
        },
        ..target(address)
    });
    obey(upstreams, targets.into());
}

/// An active member with this one address, from which this node had a verified answer.
pub(crate) fn target(address: SocketAddr) -> Target {
    Target {
        key: PathKey {
            member: address.to_string(),
            address,
        },
        preference: 0,
        draining: false,
        proven: true,
        distance: Distance::Elsewhere,
    }
}

/// A document with these members comes.
pub(crate) fn obey(upstreams: &Arc<Upstreams>, targets: Vec<Target>) {
    let policy = Policy {
        failure_threshold: 2,
        success_threshold: 2,
        probe_interval: Duration::from_secs(1),
    };
    let event = Event::Configured {
        targets,
        disabled: Disabled::default(),
        policy,
    };
    upstreams.observe(event, "");
}

/// The event of a probe that has just ended.
pub(crate) fn probed(id: PathId, outcome: Outcome) -> Event {
    Event::Probed {
        id,
        asked: Instant::now(),
        verified: false,
        outcome,
    }
}

/// The settings of a document without members. Every time-out is short.
pub(crate) fn settings() -> Settings {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: "default".to_owned(),
        revision: 1,
        hash: String::new(),
        members: Vec::new(),
        disabled_members: Vec::new(),
        further_endpoints: Vec::new(),
        listeners: Vec::new(),
        balancing: Balancing::default(),
        rollout: RolloutTarget::default(),
        health_check: HealthCheck {
            period_milliseconds: 200,
            timeout_milliseconds: 200,
            failure_threshold: 2,
            success_threshold: 2,
        },
        connection: Connection {
            connect_timeout_milliseconds: 1000,
            hedge_delay_milliseconds: 50,
            user_timeout_milliseconds: 5000,
            keep_alive_seconds: 5,
            drain_timeout_seconds: 1,
            max_connections: 1000,
        },
        nodes: 5,
        tls: Tls {
            ca_bundle: authority.self_signed(&key).unwrap().pem(),
            server_name: "kubernetes".to_owned(),
        },
    };
    Settings::new(Arc::new(document)).unwrap()
}

/// Fails if the future takes far longer than a loaded machine needs.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}
