//! Reads the EndpointSlices of `default/kubernetes`, which every apiserver keeps up to date with its own address.

pub mod further;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use trivet_crds::wire::{self, MAX_ADDRESSES};

use super::masters::{Master, Origin, ZONE_LABEL, has_address, is_usable};

/// One endpoint of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where an apiserver says it listens.
    pub socket: SocketAddr,
    /// The node that has this address, if exactly one has.
    pub node_name: String,
}

/// The endpoints of these slices, in the order of their addresses.
pub fn endpoints(slices: &[EndpointSlice], nodes: &[&Node]) -> Vec<Endpoint> {
    let mut found: Vec<_> = slices.iter().flat_map(sockets).collect();
    found.sort_unstable();
    found.dedup();
    let endpoint = |socket: SocketAddr| Endpoint {
        socket,
        node_name: node_at(socket.ip(), nodes)
            .map(ResourceExt::name_any)
            .unwrap_or_default(),
    };
    found.into_iter().map(endpoint).collect()
}

fn sockets(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find_map(|port| port.port.and_then(|number| u16::try_from(number).ok()));
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        ready != Some(false)
    });
    let addresses = ready.flat_map(|endpoint| &endpoint.addresses);
    let usable = addresses
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .filter(is_usable);
    usable.filter_map(|ip| Some(SocketAddr::new(ip, port?))).collect()
}

fn node_at<'a>(ip: IpAddr, nodes: &[&'a Node]) -> Option<&'a Node> {
    let mut having = nodes.iter().filter(|node| has_address(node, ip));
    let first = having.next()?;
    having.next().is_none().then_some(*first)
}

/// The endpoints as masters: those of one node together and with its name, each other one by itself.
pub fn masters(endpoints: &[Endpoint], nodes: &[&Node]) -> Vec<Master> {
    let mut found: BTreeMap<(String, u16), Master> = BTreeMap::new();
    for Endpoint { socket, node_name } in endpoints {
        let name = if node_name.is_empty() {
            name(socket.ip())
        } else {
            node_name.clone()
        };
        let node = nodes.iter().find(|node| node.name_any() == *node_name);
        let zone = node.and_then(|node| node.labels().get(ZONE_LABEL).cloned());
        let master = found
            .entry((name.clone(), socket.port()))
            .or_insert_with(|| Master {
                name,
                zone: zone.unwrap_or_default(),
                origin: Origin::EndpointSlice {
                    port: socket.port(),
                    node_name: node_name.clone(),
                },
                ..Master::default()
            });
        if master.addresses.len() < MAX_ADDRESSES {
            master.addresses.push(socket.ip());
        }
    }
    found.into_values().collect()
}

/// The name of a member that no node backs: its address, with the characters that names may have.
pub fn name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(four) => four.to_string(),
        // In full: a shortened address may end with what a name must not end with.
        IpAddr::V6(six) => six.segments().map(|part| format!("{part:x}")).join("-"),
    }
}

/// Whether a member in force has the name of an endpoint.
pub fn is_named_by_address(member: &wire::Member) -> bool {
    member.addresses.iter().any(|ip| member.name == name(*ip))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(addresses: &[&str], port: u16, ready: bool) -> EndpointSlice {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|address| json!({ "addresses": [address], "conditions": { "ready": ready } }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": "kubernetes" },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "https", "port": port }],
        }))
        .unwrap()
    }

    fn node(name: &str, address: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { ZONE_LABEL: "a" } },
            "status": { "addresses": [{ "type": "ExternalIP", "address": address }] },
        }))
        .unwrap()
    }

    #[test]
    fn an_endpoint_is_named_by_the_one_node_that_has_its_address() {
        let slices = [
            slice(&["10.0.0.12", "10.0.0.11", "10.0.0.13"], 6444, true),
            slice(&["10.0.0.11", "127.0.0.1"], 6444, true),
            slice(&["10.0.0.14"], 6444, false),
        ];
        let nodes = [
            node("cp1", "10.0.0.11"),
            node("a", "10.0.0.12"),
            node("b", "10.0.0.12"),
        ];
        let nodes: Vec<_> = nodes.iter().collect();
        let found = endpoints(&slices, &nodes);
        let told: Vec<_> = found
            .iter()
            .map(|endpoint| (endpoint.socket.to_string(), endpoint.node_name.as_str()))
            .collect();
        let expected = [
            ("10.0.0.11:6444", "cp1"),
            ("10.0.0.12:6444", ""),
            ("10.0.0.13:6444", ""),
        ];
        assert_eq!(told, expected.map(|(socket, node)| (socket.to_owned(), node)));

        let masters = masters(&found, &nodes);
        let names: Vec<_> = masters.iter().map(|master| master.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.12", "10.0.0.13", "cp1"]);
        assert_eq!(masters[2].zone, "a");
        assert_eq!(
            masters[2].origin,
            Origin::EndpointSlice {
                port: 6444,
                node_name: "cp1".to_owned()
            }
        );
    }

    #[test]
    fn a_name_made_of_an_address_is_one_that_an_entry_may_have() {
        for (address, expected) in [("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00-0-0-0-0-0-0-1")] {
            assert_eq!(name(address.parse().unwrap()), expected);
        }
    }
}
