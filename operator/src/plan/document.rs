//! Builds the wire document.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kube::ResourceExt;
use trivet_crds::data_plane_name;
use trivet_crds::pool::{
    ApiserverPool, ApiserverPoolSpec, ListenerBalancing, ListenerKind, Locality, PoolListener,
    PoolMemberState,
};
use trivet_crds::wire::{self, DisabledMember, Document, Listener, MAX_DISABLED};

use super::endpoints::further::Further;
use super::facts::Facts;
use super::members::Member;
use super::rejection::Rejection;

/// From here on the number of nodes is told in steps of this size, below in powers of two.
const NODES_STEP: u32 = 512;

/// What a document has besides what follows from pool and members.
#[derive(Clone, Debug)]
pub struct Next<'a> {
    /// The one in force, if it may stay.
    pub lasting: Option<&'a Document>,
    /// The revision of one that takes its place.
    pub revision: u64,
    /// Which proxies should serve.
    pub rollout: wire::RolloutTarget,
    /// Where an apiserver may be beside the members.
    pub further: Further,
}

/// Rejects every spec while the document in force is one of a later release that this one cannot read.
pub fn check_in_force(pool: &ApiserverPool, facts: &Facts) -> Result<(), Rejection> {
    match &facts.current.unreadable {
        None => Ok(()),
        Some(why) => Err(Rejection::DocumentUnreadable {
            name: data_plane_name(&pool.name_any()),
            why: why.clone(),
        }),
    }
}

/// The document for these members: the one in force if that may stay and asks the same of the proxies, but for further
/// endpoints that are not due; else the next revision.
pub fn build(
    pool: &ApiserverPool,
    listeners: Vec<Listener>,
    members: &[Member],
    facts: &Facts,
    next: Next<'_>,
) -> Result<Document, wire::Error> {
    let spec = &pool.spec;
    let current = facts.current.document.as_ref();
    let Further { sockets, is_due, .. } = next.further;
    let document = Document {
        api_version: wire::API_VERSION.to_owned(),
        pool: pool.name_any(),
        revision: next.revision,
        hash: String::new(),
        members: members.iter().filter_map(in_document).collect(),
        disabled_members: disabled_members(spec, members),
        further_endpoints: sockets,
        listeners,
        balancing: balancing(spec),
        health_check: health_check(spec),
        connection: connection(spec),
        nodes: nodes(facts.node_count, current.map(|document| document.nodes)),
        tls: tls(spec, facts),
        rollout: next.rollout,
    };
    let stays = |current: &Document| {
        let with_its_endpoints = Document {
            further_endpoints: current.further_endpoints.clone(),
            ..document.clone()
        };
        !is_due && current.same_content(&with_its_endpoints)
    };
    match next.lasting {
        Some(current) if stays(current) => Ok(current.clone()),
        Some(_) | None => document.seal_with(&facts.current.later),
    }
}

/// The listeners, parsed.
pub fn listeners(spec: &ApiserverPoolSpec) -> Result<Vec<Listener>, Rejection> {
    let parse = |text: &String| {
        let invalid = || Rejection::Invalid {
            field: "spec.listeners[].addresses",
            value: text.clone(),
            rule: "is no loopback address",
        };
        text.parse().ok().filter(IpAddr::is_loopback).ok_or_else(invalid)
    };
    let listener = |listener: &PoolListener| {
        check_kind(listener)?;
        let addresses = listener.addresses.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Listener {
            name: listener.name.clone(),
            kind: kind(listener.kind),
            addresses,
            port: listener.port,
            member_port: listener.member_port,
            balancing: match listener.balancing {
                ListenerBalancing::LeastConnections => wire::ListenerBalancing::LeastConnections,
                ListenerBalancing::Spread => wire::ListenerBalancing::Spread,
            },
            health_check: listener
                .health_check
                .as_ref()
                .map(|check| wire::ListenerHealthCheck {
                    path: check.path.clone(),
                }),
        })
    };
    spec.listeners.iter().map(listener).collect()
}

/// Rejects an entry beside `apiserver` that has lost what makes it another one. The API server leaves fields out that its CRD does
/// not have, and evaluates no rule when it reads: under an older CRD such an entry looks like a listener of the apiservers, and its
/// clients would be sent there.
fn check_kind(listener: &PoolListener) -> Result<(), Rejection> {
    let is_of_apiservers = listener.kind == ListenerKind::Apiserver;
    let is_extra = !is_of_apiservers && listener.member_port.is_some();
    if (listener.name == wire::APISERVER) == is_of_apiservers && (is_of_apiservers || is_extra) {
        return Ok(());
    }
    Err(Rejection::Invalid {
        field: "spec.listeners[].name",
        value: listener.name.clone(),
        rule: "is another entry than apiserver and has no kind with a memberPort: set them, and where the API server drops them \
               apply the CRDs of this release",
    })
}

fn kind(kind: ListenerKind) -> wire::ListenerKind {
    match kind {
        ListenerKind::Apiserver => wire::ListenerKind::Apiserver,
        ListenerKind::Tls => wire::ListenerKind::Tls,
        ListenerKind::Https => wire::ListenerKind::Https,
    }
}

/// What to write into a kubeconfig on the nodes.
pub fn endpoints(listeners: &[Listener]) -> Vec<String> {
    let of_apiservers = listeners.iter().filter(|listener| !listener.is_extra());
    of_apiservers
        .flat_map(Listener::sockets)
        .take(4)
        .map(|socket| format!("https://{socket}"))
        .collect()
}

/// What apiservers are verified by, for proxies and for the operator's own probes.
pub fn tls(spec: &ApiserverPoolSpec, facts: &Facts) -> wire::Tls {
    wire::Tls {
        ca_bundle: facts.authorities.clone(),
        server_name: spec.health_check.tls_server_name.clone(),
    }
}

/// The disabled members by every name that earlier documents may have for them: their own, and that of their node, which
/// a discovered member has. One that discovery has lost meanwhile is known by its entry in the spec only. Names and addresses
/// that another member has are left out.
fn disabled_members(spec: &ApiserverPoolSpec, members: &[Member]) -> Vec<DisabledMember> {
    let (disabled, used): (Vec<_>, Vec<_>) = members
        .iter()
        .partition(|member| member.state == PoolMemberState::Disabled);
    let used_names: BTreeSet<_> = used.iter().map(|member| member.name.as_str()).collect();
    let used_sockets: BTreeSet<_> = used.iter().flat_map(|member| member.sockets()).collect();
    let mut told: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
    let entries = spec.members.iter();
    for entry in entries.filter(|entry| entry.state == PoolMemberState::Disabled) {
        told.entry(&entry.name).or_default();
    }
    for member in disabled {
        told.entry(&member.node_name).or_default();
        let sockets = member.sockets().filter(|socket| !used_sockets.contains(socket));
        told.entry(&member.name).or_default().extend(sockets);
    }
    told.retain(|name, _| !name.is_empty() && !used_names.contains(name));
    let told = told.into_iter().take(MAX_DISABLED);
    told.map(|(name, sockets)| DisabledMember {
        name: name.to_owned(),
        sockets: sockets.into_iter().collect(),
    })
    .collect()
}

fn in_document(member: &Member) -> Option<wire::Member> {
    let state = match member.state {
        PoolMemberState::Active => wire::MemberState::Active,
        PoolMemberState::Draining => wire::MemberState::Draining,
        PoolMemberState::Disabled => return None,
    };
    Some(wire::Member {
        name: member.name.clone(),
        addresses: member.addresses.clone(),
        port: member.port,
        state,
        zone: member.zone.clone(),
        node_name: member.node_name.clone(),
    })
}

fn balancing(spec: &ApiserverPoolSpec) -> wire::Balancing {
    let locality = match spec.balancing.locality {
        Locality::PreferLocal => wire::Locality::PreferLocal,
        Locality::PreferSameZone => wire::Locality::PreferSameZone,
        Locality::Any => wire::Locality::Any,
    };
    wire::Balancing { locality }
}

fn health_check(spec: &ApiserverPoolSpec) -> wire::HealthCheck {
    let check = &spec.health_check;
    wire::HealthCheck {
        period_milliseconds: check.period_milliseconds,
        timeout_milliseconds: check.timeout_milliseconds,
        failure_threshold: check.failure_threshold,
        success_threshold: check.success_threshold,
    }
}

fn connection(spec: &ApiserverPoolSpec) -> wire::Connection {
    let connection = &spec.connection;
    wire::Connection {
        connect_timeout_milliseconds: connection.connect_timeout_milliseconds,
        hedge_delay_milliseconds: connection.hedge_delay_milliseconds,
        user_timeout_milliseconds: connection.user_timeout_milliseconds,
        keep_alive_seconds: connection.keep_alive_seconds,
        drain_timeout_seconds: connection.drain_timeout_seconds,
        max_connections: connection.max_connections,
    }
}

/// The number of nodes, rounded up in coarse steps, and kept while it is about right: a node that joins must not change
/// the document of every proxy. Proxies only stretch their intervals by it.
fn nodes(count: Option<u32>, told: Option<u32>) -> u32 {
    let Some(count) = count.filter(|count| *count > 0) else {
        return told.unwrap_or(1);
    };
    let stepped = if count <= NODES_STEP {
        count.next_power_of_two()
    } else {
        count.next_multiple_of(NODES_STEP)
    };
    match told {
        Some(told)
            if told >= stepped
                && told <= stepped.saturating_mul(2).min(stepped.saturating_add(NODES_STEP)) =>
        {
            told
        }
        Some(_) | None => stepped,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trivet_crds::pool::MemberSource;

    use super::*;

    #[test]
    fn an_entry_that_an_older_crd_has_cut_is_no_listener_of_the_apiservers() {
        let read = |entries: serde_json::Value| {
            let spec = serde_json::from_value(json!({ "listeners": entries })).unwrap();
            listeners(&spec)
        };
        let apiserver = json!({ "name": "apiserver", "port": 7443 });
        assert!(read(json!([apiserver])).is_ok());
        for cut in [
            json!({ "name": "konnectivity", "port": 18132 }),
            json!({ "name": "konnectivity", "kind": "TLS", "port": 18132 }),
            json!({ "name": "apiserver", "kind": "TLS", "port": 7443, "memberPort": 8132 }),
        ] {
            let rejection = read(json!([apiserver, cut])).unwrap_err();
            assert_eq!(rejection.reason(), "Invalid");
            assert!(rejection.to_string().contains("apply the CRDs"), "{rejection}");
        }
    }

    #[test]
    fn an_extra_listener_is_written_whole_and_is_no_endpoint() {
        let spec: ApiserverPoolSpec = serde_json::from_value(json!({ "listeners": [
            { "name": "apiserver" },
            {
                "name": "konnectivity", "kind": "TLS", "port": 18132, "memberPort": 8132, "balancing": "Spread",
                "addresses": ["127.0.0.1"],
            },
            { "name": "supervisor", "kind": "HTTPS", "port": 19345, "memberPort": 9345, "healthCheck": { "path": "/ping" } },
        ] }))
        .unwrap();
        let listeners = listeners(&spec).unwrap();
        let written = serde_json::to_value(&listeners).unwrap();
        let expected = json!([
            { "name": "apiserver", "addresses": ["127.0.0.1", "::1"], "port": 7443 },
            {
                "name": "konnectivity", "kind": "TLS", "addresses": ["127.0.0.1"], "port": 18132, "memberPort": 8132,
                "balancing": "Spread",
            },
            {
                "name": "supervisor", "kind": "HTTPS", "addresses": ["127.0.0.1", "::1"], "port": 19345,
                "memberPort": 9345, "healthCheck": { "path": "/ping" },
            },
        ]);
        assert_eq!(written, expected);
        assert_eq!(
            endpoints(&listeners),
            ["https://127.0.0.1:7443", "https://[::1]:7443"]
        );
    }

    #[test]
    fn names_and_addresses_of_members_in_use_are_not_disabled() {
        let member = |name: &str, node_name: &str, ips: &[u8], state| Member {
            name: name.to_owned(),
            addresses: ips.iter().map(|ip| IpAddr::from([10, 0, 0, *ip])).collect(),
            port: 6443,
            state,
            zone: String::new(),
            source: MemberSource::Node,
            node_name: node_name.to_owned(),
            note: String::new(),
        };
        let members = [
            member("cp1", "cp1", &[1], PoolMemberState::Active),
            member("cp2", "cp2", &[2], PoolMemberState::Draining),
            member("old", "cp1", &[9, 1, 3, 2], PoolMemberState::Disabled),
        ];
        let told = disabled_members(&ApiserverPoolSpec::default(), &members);
        let expected = DisabledMember {
            name: "old".to_owned(),
            sockets: vec!["10.0.0.3:6443".parse().unwrap(), "10.0.0.9:6443".parse().unwrap()],
        };
        assert_eq!(told, [expected]);
    }

    #[test]
    fn a_node_more_or_less_does_not_change_the_count_told() {
        assert_eq!(nodes(Some(5), None), 8);
        assert_eq!(nodes(Some(8), Some(8)), 8);
        assert_eq!(nodes(Some(9), Some(8)), 16);
        assert_eq!(nodes(Some(8), Some(16)), 16);
        assert_eq!(nodes(Some(4), Some(16)), 4);
        assert_eq!(nodes(Some(5000), None), 5120);
        assert_eq!(nodes(Some(4600), Some(5120)), 5120);
    }

    #[test]
    fn an_unknown_count_keeps_the_one_told() {
        assert_eq!(nodes(None, Some(64)), 64);
        assert_eq!(nodes(Some(0), Some(64)), 64);
        assert_eq!(nodes(None, None), 1);
    }
}
