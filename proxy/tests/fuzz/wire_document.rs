//! The wire document: a text that parses keeps every bound.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, DisabledMember, Document, Error, Gate, HealthCheck, Listener,
    ListenerBalancing, ListenerHealthCheck, ListenerKind, Locality, MAX_ADDRESSES, MAX_DISABLED,
    MAX_FURTHER_ENDPOINTS, MAX_GATE_NODES, MAX_LISTENERS, MAX_MEMBERS, MAX_REVISION, Member, MemberState,
    RolloutTarget, Tls, is_reachable,
};

use crate::search::{fuzz, keep};

#[test]
fn a_text_that_parses_keeps_every_bound() {
    let mut real = beyond_their_bounds();
    real.push(document(7).into());
    fuzz("wire_document", &real, |text| {
        let text = String::from_utf8_lossy(text);
        if let Err(Error::HashMismatch { actual, .. }) = read(&text) {
            // The hash rejects most mutations; with a fitting hash the other rules must hold by themselves.
            let mut value: Value = serde_json::from_str(&text).unwrap();
            value["hash"] = actual.into();
            let again = read(&value.to_string());
            assert!(!matches!(again, Err(Error::HashMismatch { .. })), "{value}");
        }
    });
}

#[test]
fn a_document_of_a_release_without_locality_is_valid() {
    // Written by that release, with its hash.
    let text = include_str!("corpus/wire_document/whole");
    assert!(!text.contains("balancing") && !text.contains("nodeName"));
    assert_eq!(read(text).unwrap().balancing, Balancing::default());
}

fn read(text: &str) -> Result<Document, Error> {
    let document = Document::parse(text)?;
    assert!((1..=MAX_MEMBERS).contains(&document.members.len()));
    let names: BTreeSet<_> = document.members.iter().map(|member| &member.name).collect();
    assert_eq!(names.len(), document.members.len());
    let reachable =
        |member: &Member| member.port > 0 && (1..=MAX_ADDRESSES).contains(&member.addresses.len());
    assert!(document.members.iter().all(reachable));
    let disabled = &document.disabled_members;
    assert!(disabled.len() <= MAX_DISABLED);
    let used: BTreeSet<_> = document.members.iter().flat_map(Member::sockets).collect();
    let is_apart = |member: &DisabledMember| {
        (1..=253).contains(&member.name.len())
            && !names.contains(&member.name)
            && member.sockets.len() <= MAX_ADDRESSES
            && !member.sockets.iter().any(|socket| used.contains(socket))
    };
    assert!(disabled.iter().all(is_apart));
    let is_usable = |endpoint: &SocketAddr| endpoint.port() > 0 && is_reachable(endpoint.ip());
    assert!(document.further_endpoints.len() <= MAX_FURTHER_ENDPOINTS);
    assert!(document.further_endpoints.iter().all(is_usable));
    let on_loopback = |listener: &Listener| {
        let addresses = &listener.addresses;
        listener.port >= 1024
            && (1..=MAX_ADDRESSES).contains(&addresses.len())
            && addresses.iter().all(IpAddr::is_loopback)
    };
    assert!((1..=MAX_LISTENERS).contains(&document.listeners.len()));
    assert!(document.listeners.iter().all(on_loopback));
    assert!(document.apiserver_listeners().next().is_some());
    assert!(document.listeners.iter().all(is_whole));
    for extra in document.extra_listeners() {
        let shared = |other: &Listener| {
            let mut sockets = other.sockets();
            other.name != extra.name && sockets.any(|socket| extra.sockets().any(|own| own == socket))
        };
        assert!(!document.listeners.iter().any(shared));
    }
    assert!(
        !document
            .members
            .iter()
            .any(|member| loops(member, &document.listeners))
    );
    let names: BTreeSet<_> = document.listeners.iter().map(|listener| &listener.name).collect();
    assert_eq!(names.len(), document.listeners.len());
    let check = &document.health_check;
    assert!((1..=check.period_milliseconds).contains(&check.timeout_milliseconds));
    assert!((250..=15_000).contains(&check.period_milliseconds));
    let connection = &document.connection;
    assert!((64..=262_144).contains(&connection.max_connections));
    // What the kernel takes for the sockets of dials and probes.
    assert!((1..=32_767).contains(&connection.keep_alive_seconds));
    assert!((1..1 << 31).contains(&connection.user_timeout_milliseconds));
    assert!(document.revision <= MAX_REVISION);
    let gated = &document.rollout.gate.nodes;
    assert!(gated.len() <= MAX_GATE_NODES);
    assert!(gated.iter().all(|node| (1..=253).contains(&node.len())));
    // The known fields are written and read back unchanged.
    let written = document.clone().seal().unwrap();
    assert_eq!(Document::parse(&written.to_text().unwrap()).unwrap(), written);
    Ok(document)
}

/// Whether a listener has what its kind needs, and nothing else.
fn is_whole(listener: &Listener) -> bool {
    let path = listener.health_check.as_ref().map(|check| check.path.as_str());
    let is_path = |path: &str| {
        path.starts_with('/')
            && path.len() <= 253
            && path.chars().all(|character| character.is_ascii_graphic())
    };
    match listener.kind {
        ListenerKind::Apiserver => listener.member_port.is_none() && path.is_none(),
        ListenerKind::Tls => listener.member_port.is_some_and(|port| port > 0) && path.is_none(),
        ListenerKind::Https => {
            listener.member_port.is_some_and(|port| port > 0)
                && path.is_none_or(is_path)
                && listener.check_path().is_some_and(is_path)
        }
    }
}

/// Whether a connection to a server of the member would come back to the proxy.
fn loops(member: &Member, listeners: &[Listener]) -> bool {
    let at = |listener: &Listener, address: &IpAddr| {
        address.is_unspecified() || listener.addresses.contains(&address.to_canonical())
    };
    let others: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.member_port)
        .collect();
    listeners.iter().any(|listener| {
        (listener.port == member.port || others.contains(&listener.port))
            && member.addresses.iter().any(|address| at(listener, address))
    })
}

/// Real documents with what no change of a few bytes makes.
fn beyond_their_bounds() -> Vec<Vec<u8>> {
    let edits: [fn(&mut Value); 8] = [
        |document| document["listeners"][1]["memberPort"] = Value::Null,
        |document| document["listeners"][1]["healthCheck"]["path"] = "healthz\r\nhost: a".into(),
        |document| document["listeners"][1]["port"] = document["listeners"][0]["port"].clone(),
        |document| {
            document["members"][0]["addresses"] = json!(["127.0.0.1"]);
            document["listeners"][1]["memberPort"] = 7443.into();
        },
        |document| document["revision"] = u64::MAX.into(),
        |document| document["rollout"]["gate"]["nodes"] = vec!["w1"; MAX_GATE_NODES + 1].into(),
        |document| {
            let listener = |number: usize| json!({ "name": number.to_string(), "addresses": ["::1"], "port": 7443 + number });
            document["listeners"] = (0..=MAX_LISTENERS).map(listener).collect();
        },
        |document| {
            document["members"][0]["addresses"] = json!(["127.0.0.1"]);
            document["members"][0]["port"] = 7443.into();
        },
    ];
    let edited = edits.map(|edit| {
        let mut value = serde_json::from_str(&document(7)).unwrap();
        edit(&mut value);
        value.to_string().into_bytes()
    });
    edited.into()
}

/// A real document, of a cluster with an authority of its own.
pub(crate) fn document(revision: u64) -> String {
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: "default".to_owned(),
        revision,
        rollout: RolloutTarget {
            template: "0123456789".to_owned(),
            gate: Gate::of_node("w1"),
        },
        hash: String::new(),
        members: vec![Member {
            name: "cp1".to_owned(),
            addresses: vec!["10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap()],
            port: 6443,
            state: MemberState::Active,
            zone: "a".to_owned(),
            node_name: "cp1".to_owned(),
        }],
        disabled_members: vec![DisabledMember {
            name: "retired".to_owned(),
            sockets: vec![
                "10.0.0.12:6443".parse().unwrap(),
                "[fd00::12]:6443".parse().unwrap(),
            ],
        }],
        further_endpoints: vec!["10.0.0.19:6443".parse().unwrap()],
        listeners: vec![
            Listener::apiserver(vec!["127.0.0.1".parse().unwrap()], 7443),
            Listener {
                name: "supervisor".to_owned(),
                kind: ListenerKind::Https,
                member_port: Some(9345),
                balancing: ListenerBalancing::Spread,
                health_check: Some(ListenerHealthCheck {
                    path: "/ping".to_owned(),
                }),
                ..Listener::apiserver(vec!["127.0.0.1".parse().unwrap()], 19345)
            },
        ],
        balancing: Balancing {
            locality: Locality::PreferSameZone,
        },
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
            max_connections: 16384,
        },
        nodes: 5,
        tls: Tls {
            ca_bundle: authority(),
            server_name: "kubernetes".to_owned(),
        },
    };
    document.seal().unwrap().to_text().unwrap()
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_documents() {
    let text = document(7);
    keep("wire_document", "whole", text.as_bytes());
    keep("wire_document", "torn", &text.as_bytes()[..text.len() / 2]);
    keep(
        "wire_document",
        "edited",
        text.replace("10.0.0.11", "10.0.0.12").as_bytes(),
    );
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let further = serde_json::json!({ "name": "dns", "kind": "UDP", "port": 8053, "memberPort": 53 });
    value["listeners"].as_array_mut().unwrap().push(further);
    value.as_object_mut().unwrap().remove("hash");
    keep("wire_document", "later-kind", value.to_string().as_bytes());
    keep(
        "wire_document",
        "later-version",
        text.replace("v1alpha1", "v9").as_bytes(),
    );
}
