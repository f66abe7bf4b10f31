//! Finds the control-plane nodes among all nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use trivet_crds::wire::{MAX_ADDRESSES, is_reachable};

/// The labels that say that a node is of the control plane; the second is the older one.
pub const CONTROL_PLANE_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// The label that says in which zone a node is.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// An apiserver that discovery has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// Its node's name, or one made of its address.
    pub name: String,
    /// Its addresses that other hosts can reach, in the source's own order. There may be none.
    pub addresses: Vec<IpAddr>,
    /// The addresses that other hosts cannot reach.
    pub unusable: Vec<String>,
    /// Its zone, or nothing.
    pub zone: String,
    /// What tells of it.
    pub origin: Origin,
}

/// What tells of a master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A node of the control plane.
    #[default]
    Node,
    /// An EndpointSlice of `default/kubernetes`.
    EndpointSlice {
        /// The port that it names.
        port: u16,
        /// The node that has the address, or nothing.
        node_name: String,
    },
}

/// The masters among `nodes`.
pub fn masters<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    selector: &BTreeMap<String, String>,
) -> Vec<Master> {
    let matching = nodes.into_iter().filter(|node| is_selected(node, selector));
    let mut found: Vec<_> = matching.map(master).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn is_selected(node: &Node, selector: &BTreeMap<String, String>) -> bool {
    let labels = node.labels();
    if selector.is_empty() {
        return CONTROL_PLANE_LABELS
            .iter()
            .any(|label| labels.contains_key(*label));
    }
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn master(node: &Node) -> Master {
    let addresses = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    let mut usable: Vec<IpAddr> = Vec::new();
    let mut unusable = Vec::new();
    for text in internal.map(|address| &address.address) {
        match text.parse().ok().filter(is_usable) {
            Some(ip) if !usable.contains(&ip) && usable.len() < MAX_ADDRESSES => usable.push(ip),
            Some(_) => {}
            None => unusable.push(text.clone()),
        }
    }
    Master {
        name: node.name_any(),
        addresses: usable,
        unusable,
        origin: Origin::Node,
        zone: node.labels().get(ZONE_LABEL).cloned().unwrap_or_default(),
    }
}

/// Whether a node reports this address, of whatever type.
pub fn has_address(node: &Node, ip: IpAddr) -> bool {
    let reported = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    reported
        .map(|address| address.address.parse())
        .any(|reported| reported == Ok(ip))
}

/// Whether another host may have this address, and a document may have it.
pub fn is_usable(ip: &IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(four) if four.is_broadcast());
    is_reachable(*ip) && !ip.is_loopback() && !is_broadcast
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, label: &str, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(kind, address)| json!({ "type": kind, "address": address }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { label: "", ZONE_LABEL: "a" } },
            "status": { "addresses": addresses },
        }))
        .unwrap()
    }

    #[test]
    fn control_plane_nodes_are_found_by_either_label_with_both_families() {
        let addresses = [
            ("Hostname", "cp1"),
            ("InternalIP", "10.0.0.11"),
            ("InternalIP", "fd00::11"),
        ];
        let nodes = [
            node("cp2", CONTROL_PLANE_LABELS[1], &addresses),
            node("cp1", CONTROL_PLANE_LABELS[0], &addresses),
            node("w1", "node-role.kubernetes.io/worker", &addresses),
        ];
        let found = masters(&nodes, &BTreeMap::new());
        assert_eq!(
            found
                .iter()
                .map(|master| master.name.as_str())
                .collect::<Vec<_>>(),
            ["cp1", "cp2"]
        );
        assert_eq!(
            found[0].addresses,
            ["10.0.0.11", "fd00::11"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(found[0].zone, "a");
    }

    #[test]
    fn a_selector_replaces_the_labels() {
        let nodes = [
            node("cp1", CONTROL_PLANE_LABELS[0], &[("InternalIP", "10.0.0.11")]),
            node("m1", "masters", &[("InternalIP", "10.0.0.12")]),
        ];
        let found = masters(&nodes, &[("masters".to_owned(), String::new())].into());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "m1");
    }

    #[test]
    fn a_node_without_a_usable_address_tells_what_it_has() {
        let addresses = [
            ("InternalIP", "127.0.0.1"),
            ("InternalIP", "fe80::1"),
            ("InternalIP", "::ffff:10.0.0.1"),
            ("ExternalIP", "192.0.2.1"),
        ];
        let found = masters(
            &[node("cp1", CONTROL_PLANE_LABELS[0], &addresses)],
            &BTreeMap::new(),
        );
        assert!(found[0].addresses.is_empty());
        assert_eq!(found[0].unusable, ["127.0.0.1", "fe80::1", "::ffff:10.0.0.1"]);
    }
}
