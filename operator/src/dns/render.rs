//! The objects behind the names of a pool. Pure; tests compare them with committed golden files.
//!
//! No object has an ownerReference: that of a deleted pool says where its apiservers are until its proxies are retired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::wish::{Candidate, Records};
use crate::render::labels;

/// The label that keeps Kubernetes' own controllers from an EndpointSlice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Its value.
pub const MANAGER: &str = "operator.trivet.dev";

/// The label with the Service of an EndpointSlice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The name of the port, by which SRV records find it.
const PORT_NAME: &str = "https";

/// The longest label of a DNS name.
const LABEL_LIMIT: usize = 63;

/// The kind of external-dns.
pub fn dns_endpoint() -> ApiResource {
    ApiResource {
        group: "externaldns.k8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "externaldns.k8s.io/v1alpha1".to_owned(),
        kind: "DNSEndpoint".to_owned(),
        plural: "dnsendpoints".to_owned(),
    }
}

/// What a DNSEndpoint says, as far as Trivet writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSets {
    /// One for each address family.
    #[serde(default)]
    pub endpoints: Vec<RecordSet>,
}

/// The addresses of one family for one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordSet {
    /// The name.
    pub dns_name: String,
    /// A or AAAA.
    pub record_type: String,
    /// The time to live in seconds.
    #[serde(rename = "recordTTL")]
    pub record_ttl: i64,
    /// The addresses, never none.
    pub targets: Vec<String>,
}

/// The headless Service of a pool. It has no selector: the endpoints are the operator's.
pub fn service(pool: &str, namespace: &str, name: &str, candidates: &[Candidate]) -> Service {
    let port = candidates.iter().map(|candidate| candidate.socket.port()).min();
    let port = i32::from(port.unwrap_or(443));
    Service {
        metadata: metadata(pool, namespace, name.to_owned()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                protocol: Some("TCP".to_owned()),
                port,
                target_port: Some(IntOrString::Int(port)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The EndpointSlices of a Service: one for each address family and, should members differ in it, port. `ready` are the
/// endpoints that resolvers give.
pub fn slices(
    pool: &str,
    namespace: &str,
    service: &str,
    candidates: &[Candidate],
    ready: &BTreeSet<SocketAddr>,
) -> Vec<EndpointSlice> {
    let mut by_place = BTreeMap::<_, Vec<&Candidate>>::new();
    for candidate in candidates {
        let family = family(&candidate.socket.ip());
        let place = (family, candidate.socket.port());
        by_place.entry(place).or_default().push(candidate);
    }
    let slice = |((family, port), mut found): ((&str, u16), Vec<&Candidate>)| {
        found.sort_by_key(|candidate| candidate.socket);
        let name = format!("{service}-{}-{port}", family.to_lowercase());
        let mut metadata = metadata(pool, namespace, name);
        let further = [(MANAGED_BY, MANAGER), (SERVICE_NAME, service)];
        let further = further.map(|(key, value)| (key.to_owned(), value.to_owned()));
        metadata.labels.get_or_insert_default().extend(further);
        EndpointSlice {
            metadata,
            address_type: family.to_owned(),
            endpoints: found
                .into_iter()
                .map(|candidate| endpoint(candidate, ready.contains(&candidate.socket)))
                .collect(),
            ports: Some(vec![EndpointPort {
                name: Some(PORT_NAME.to_owned()),
                port: Some(i32::from(port)),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
        }
    };
    by_place.into_iter().map(slice).collect()
}

/// The DNSEndpoint of a pool.
pub fn records(pool: &str, namespace: &str, records: &Records, targets: &BTreeSet<IpAddr>) -> DynamicObject {
    let set = |record_type: &str, is_of: fn(&&IpAddr) -> bool| RecordSet {
        dns_name: records.hostname.clone(),
        record_type: record_type.to_owned(),
        record_ttl: i64::from(records.ttl_seconds),
        targets: targets.iter().filter(is_of).map(ToString::to_string).collect(),
    };
    let mut sets = vec![set("A", |ip| ip.is_ipv4()), set("AAAA", |ip| ip.is_ipv6())];
    // An empty list would have another meaning: the targets that external-dns takes by default, or none.
    sets.retain(|set| !set.targets.is_empty());
    let mut object =
        DynamicObject::new("", &dns_endpoint()).data(json!({ "spec": RecordSets { endpoints: sets } }));
    object.metadata = metadata(pool, namespace, records_name(pool));
    object
}

/// The name of the DNSEndpoint of a pool.
pub fn records_name(pool: &str) -> String {
    trivet_crds::data_plane_name(pool)
}

/// What a DNSEndpoint says.
pub fn record_sets(object: &DynamicObject) -> RecordSets {
    let spec = object.data.get("spec").cloned();
    spec.and_then(|spec| serde_json::from_value(spec).ok())
        .unwrap_or_default()
}

fn metadata(pool: &str, namespace: &str, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(pool)),
        ..ObjectMeta::default()
    }
}

fn family(ip: &IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn endpoint(candidate: &Candidate, is_ready: bool) -> Endpoint {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    Endpoint {
        addresses: vec![candidate.socket.ip().to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            serving: Some(is_ready || candidate.drains && candidate.is_up != Some(false)),
            // What is ready in spite of it is the last resort.
            terminating: Some(candidate.drains && !is_ready),
        }),
        // By it each master has a name of its own below that of the Service.
        hostname: said(&candidate.member).filter(|name| is_label(name)),
        node_name: said(&candidate.node_name),
        zone: said(&candidate.zone),
        ..Endpoint::default()
    }
}

/// Whether a member's name can be one label of a DNS name.
fn is_label(name: &str) -> bool {
    let of_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= LABEL_LIMIT && name.chars().all(of_label) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(socket: &str, member: &str) -> Candidate {
        Candidate {
            socket: socket.parse().unwrap(),
            member: member.to_owned(),
            node_name: member.to_owned(),
            zone: "a".to_owned(),
            drains: false,
            is_up: Some(true),
        }
    }

    fn candidates() -> Vec<Candidate> {
        vec![
            candidate("10.0.0.2:6443", "cp2"),
            candidate("10.0.0.1:6443", "cp1"),
            candidate("[fd00::1]:6443", "cp1"),
            Candidate {
                drains: true,
                node_name: String::new(),
                zone: String::new(),
                ..candidate("10.0.0.3:6443", "master.example.com")
            },
            candidate("10.0.0.4:6444", "cp4"),
        ]
    }

    #[test]
    fn the_service_is_as_committed() {
        let service = service("default", "trivet-system", "default-apiservers", &candidates());
        insta::assert_yaml_snapshot!("service", service);
    }

    #[test]
    fn the_slices_are_as_committed() {
        let ready = ["10.0.0.1:6443", "[fd00::1]:6443", "10.0.0.4:6444"];
        let ready = ready.iter().map(|socket| socket.parse().unwrap()).collect();
        let slices = slices(
            "default",
            "trivet-system",
            "default-apiservers",
            &candidates(),
            &ready,
        );
        insta::assert_yaml_snapshot!("slices", slices);
    }

    #[test]
    fn the_records_are_as_committed_and_no_family_has_an_empty_list() {
        let wanted = Records {
            hostname: "api.example.com".to_owned(),
            ttl_seconds: 30,
        };
        let targets = |ips: &[&str]| {
            ips.iter()
                .map(|ip| ip.parse().unwrap())
                .collect::<BTreeSet<IpAddr>>()
        };
        let object = records(
            "default",
            "trivet-system",
            &wanted,
            &targets(&["fd00::1", "10.0.0.2", "10.0.0.1"]),
        );
        insta::assert_yaml_snapshot!("records", object);
        let object = records("default", "trivet-system", &wanted, &targets(&["fd00::1"]));
        let sets = record_sets(&object).endpoints;
        assert_eq!(sets.len(), 1);
        assert_eq!(
            (sets[0].record_type.as_str(), &sets[0].targets),
            ("AAAA", &vec!["fd00::1".to_owned()])
        );
    }
}
