//! Ports that proxies must not listen on: one port for two purposes, and the port of an apiserver of their own node.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use trivet_crds::pool::ProxyTemplate;
use trivet_crds::wire::Listener;

use super::facts::Facts;
use super::masters::has_address;
use super::members::Member;
use super::rejection::Rejection;
use super::scope::{Placement, Scope};

/// Rejects a metrics port that is a listener's port too.
pub fn check_own(listeners: &[Listener], proxy: &ProxyTemplate) -> Result<(), Rejection> {
    let port = proxy.metrics.port;
    if listeners.iter().any(|listener| listener.port == port) {
        return Err(Rejection::Invalid {
            field: "spec.proxy.metrics.port",
            value: port.to_string(),
            rule: "is the port in spec.listeners[].port too; give the metrics a port of their own",
        });
    }
    Ok(())
}

/// Rejects a port on which an apiserver listens that runs on a node with a proxy, or a server beside it that an extra listener
/// leads to. Most of them bind all addresses of their node: the proxy would wait for the port, take it when the server
/// restarts, and keep the server from its port.
pub fn check_apiservers(
    listeners: &[Listener],
    proxy: &ProxyTemplate,
    members: &[Member],
    facts: &Facts,
) -> Result<(), Rejection> {
    let listening = listeners
        .iter()
        .map(|listener| ("spec.listeners[].port", listener.port));
    let ports: Vec<_> = listening
        .chain([("spec.proxy.metrics.port", proxy.metrics.port)])
        .collect();
    let scope = Scope::wanted(proxy);
    for member in members {
        let of_others = || listeners.iter().filter_map(|listener| listener.member_port);
        let is_of_member = |port: u16| port == member.port || of_others().any(|other| other == port);
        let Some((field, port)) = ports.iter().find(|(_, port)| is_of_member(*port)) else {
            continue;
        };
        let mut nodes = facts
            .nodes
            .iter()
            .filter(|node| runs(node, member) && has_proxy(node, scope.placement(node), facts));
        if let Some(node) = nodes.next() {
            return Err(Rejection::PortOfApiserver {
                field,
                port: *port,
                server: server(*port, member),
                node: node.name_any(),
                member: member.name.clone(),
            });
        }
    }
    Ok(())
}

fn server(port: u16, member: &Member) -> &'static str {
    if port == member.port {
        "the apiserver"
    } else {
        "the server that spec.listeners[].memberPort names"
    }
}

/// Whether proxies in place listen on the port of this member's apiserver, on its node.
pub fn is_of_proxies(member: &Member, facts: &Facts) -> bool {
    let mut nodes = facts.nodes.iter();
    facts.serving.iter().any(|(_, port)| *port == member.port)
        && nodes.any(|node| runs(node, member) && has_proxy(node, facts.in_place.placement(node), facts))
}

fn has_proxy(node: &Node, placement: Placement, facts: &Facts) -> bool {
    match placement {
        Placement::Placed => true,
        Placement::Kept => facts.in_place.has(node),
        Placement::Excluded => false,
    }
}

fn runs(node: &Node, member: &Member) -> bool {
    node.name_any() == member.node_name || member.addresses.iter().any(|ip| has_address(node, *ip))
}

#[cfg(test)]
mod tests;
