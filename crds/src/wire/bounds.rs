//! The bounds of the fields of a wire document.
//!
//! The pool's schema has the same bounds, and the tests compare the two. A proxy checks them too, because no schema
//! validates a file that is written by hand.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use super::{DisabledMember, Document, Gate, Listener, ListenerKind, Member};

/// The most members of a document: 32 of the spec and 32 discovered ones.
pub const MAX_MEMBERS: usize = 64;

/// The most disabled members of a document: 32 of the spec, each by its own name and by that of its node.
pub const MAX_DISABLED: usize = 64;

/// The most further endpoints of a document. A cluster has 3 to 9 masters, so twice the addresses of one whose members are
/// all others; a proxy that has lost all members probes each of them.
pub const MAX_FURTHER_ENDPOINTS: usize = 16;

/// The most addresses of one member, disabled member or listener.
pub const MAX_ADDRESSES: usize = 4;

/// The most listeners of a document.
pub const MAX_LISTENERS: usize = 8;

/// The highest revision. Revisions are Unix seconds or a little more, so this lasts for 34,000 years; without a bound, one
/// document with the highest number would be the last one that a proxy ever follows.
pub const MAX_REVISION: u64 = (1 << 40) - 1;

/// How far a revision may be ahead of the clock, in seconds: ten years. Operators with a wrong clock and hand-written
/// revisions stay below, and a revision above it is a mistake that would block every later document.
pub const MAX_AHEAD_SECONDS: u64 = 3653 * 86_400;

/// How far a revision may be ahead of the operator's clock, in seconds, so that the operator still uses the next number
/// after it: a day. Clocks that differ by more break TLS anyway.
pub const MAX_ADVANCE_SECONDS: u64 = 86_400;

/// Ports of apiservers.
const PORT: RangeInclusive<u32> = 1..=65_535;

/// Ports of listeners. A proxy has no privileges, so it cannot bind lower ones.
const LISTENER_PORT: RangeInclusive<u32> = 1024..=65_535;

/// Lengths of a pool's name, of a member's name (that of its node), and of a zone (a label's value).
const POOL_NAME: RangeInclusive<usize> = 1..=40;
const MEMBER_NAME: RangeInclusive<usize> = 1..=253;
const ZONE: RangeInclusive<usize> = 0..=63;

/// Length of the name that certificates must have: that of a DNS name.
const SERVER_NAME: RangeInclusive<usize> = 1..=253;

/// Length of the hash of a template: that of a label's value.
const TEMPLATE: RangeInclusive<usize> = 0..=63;

/// The most nodes that a gate lists. A rollout begins with one, and opens everywhere after it.
pub const MAX_GATE_NODES: usize = 64;

/// Length of the path that the servers of an HTTPS listener are asked.
const CHECK_PATH: RangeInclusive<usize> = 1..=253;

/// Length of the name of a node.
const NODE_NAME: RangeInclusive<usize> = 1..=253;

/// A number of the document: its path in the document and, below `spec`, in the pool; its bounds; its value.
type Number = (&'static str, RangeInclusive<u32>, fn(&Document) -> u32);

/// The bounds of all numbers that are settings. A period of 1 ms would be a denial of service against the apiservers, and
/// the kernel rejects `TCP_KEEPIDLE` above 32,767 s and `TCP_USER_TIMEOUT` from 2^31 ms on, so that every dial would fail.
const NUMBERS: &[Number] = &[
    ("healthCheck.periodMilliseconds", 250..=15_000, |document| {
        document.health_check.period_milliseconds
    }),
    ("healthCheck.timeoutMilliseconds", 100..=15_000, |document| {
        document.health_check.timeout_milliseconds
    }),
    ("healthCheck.failureThreshold", 1..=10, |document| {
        document.health_check.failure_threshold
    }),
    ("healthCheck.successThreshold", 1..=10, |document| {
        document.health_check.success_threshold
    }),
    (
        "connection.connectTimeoutMilliseconds",
        100..=10_000,
        |document| document.connection.connect_timeout_milliseconds,
    ),
    ("connection.hedgeDelayMilliseconds", 20..=5000, |document| {
        document.connection.hedge_delay_milliseconds
    }),
    ("connection.userTimeoutMilliseconds", 1000..=60_000, |document| {
        document.connection.user_timeout_milliseconds
    }),
    ("connection.keepAliveSeconds", 1..=300, |document| {
        document.connection.keep_alive_seconds
    }),
    ("connection.drainTimeoutSeconds", 0..=3600, |document| {
        document.connection.drain_timeout_seconds
    }),
    ("connection.maxConnections", 64..=262_144, |document| {
        document.connection.max_connections
    }),
];

/// A value of a document that is outside its bounds.
#[derive(Debug)]
pub(super) struct Violation {
    /// The path of the field.
    pub(super) field: String,
    /// Its value, or the number of its items.
    pub(super) value: String,
    /// The bound that it breaks, and the remedy.
    pub(super) rule: String,
}

/// Checks all bounds that need no clock, and returns the first violation in the order of the document.
pub(super) fn check(document: &Document) -> Result<(), Violation> {
    length("pool", &document.pool, &POOL_NAME)?;
    require(
        document.revision <= MAX_REVISION,
        "revision",
        document.revision,
        "must be below 2^40, or no later document could have a higher one; use the current Unix time in seconds",
    )?;
    members(document)?;
    disabled_members(document)?;
    further_endpoints(document)?;
    listeners(&document.listeners)?;
    length("tls.serverName", &document.tls.server_name, &SERVER_NAME)?;
    length("rollout.template", &document.rollout.template, &TEMPLATE)?;
    gate(&document.rollout.gate)?;
    for (field, bounds, value) in NUMBERS {
        number(field, value(document), bounds)?;
    }
    require(
        document.health_check.timeout_milliseconds <= document.health_check.period_milliseconds,
        "healthCheck.timeoutMilliseconds",
        document.health_check.timeout_milliseconds,
        "must be at most periodMilliseconds; lower it, or raise the period",
    )
}

/// Checks that the revision is not too far ahead of `now`, in Unix seconds.
pub(super) fn check_revision(revision: u64, now: u64) -> Result<(), Violation> {
    require(
        revision <= now.saturating_add(MAX_AHEAD_SECONDS),
        "revision",
        revision,
        "must be at most ten years ahead of the clock in Unix seconds, or it blocks every later document; use the current Unix time in seconds",
    )
}

fn members(document: &Document) -> Result<(), Violation> {
    let members = &document.members;
    require(
        (1..=MAX_MEMBERS).contains(&members.len()),
        "members",
        list_of(members.len()),
        "must hold 1 to 64 apiservers; list those that the nodes shall use, and no more",
    )?;
    for (index, member) in members.iter().enumerate() {
        let field = |name: &str| format!("members[{index}].{name}");
        length(field("name"), &member.name, &MEMBER_NAME)?;
        require(
            !members.iter().take(index).any(|other| other.name == member.name),
            field("name"),
            quoted(&member.name),
            "must be unique, and an earlier entry has the same; give each apiserver one entry with a name of its own",
        )?;
        require(
            (1..=MAX_ADDRESSES).contains(&member.addresses.len()),
            field("addresses"),
            list_of(member.addresses.len()),
            "must hold 1 to 4 addresses of one apiserver; make several apiservers several members",
        )?;
        number(field("port"), member.port.into(), &PORT)?;
        length(field("zone"), &member.zone, &ZONE)?;
        length(field("nodeName"), &member.node_name, &(0..=*MEMBER_NAME.end()))?;
        for address in &member.addresses {
            reachable(&field("addresses"), *address)?;
            let extra = document
                .listeners
                .iter()
                .filter_map(|listener| listener.member_port);
            for port in extra.chain([member.port]) {
                let socket = SocketAddr::new(*address, port);
                no_listener(&document.listeners, field("addresses"), socket)?;
            }
        }
    }
    Ok(())
}

fn disabled_members(document: &Document) -> Result<(), Violation> {
    let disabled = &document.disabled_members;
    require(
        disabled.len() <= MAX_DISABLED,
        "disabledMembers",
        list_of(disabled.len()),
        "must hold 64 entries at most; leave out apiservers that are gone",
    )?;
    let is_used = |socket: &SocketAddr| {
        let mut used = document.members.iter().flat_map(Member::sockets);
        used.any(|used| used == *socket)
    };
    for (index, DisabledMember { name, sockets }) in disabled.iter().enumerate() {
        let field = |name: &str| format!("disabledMembers[{index}].{name}");
        length(field("name"), name, &MEMBER_NAME)?;
        require(
            !document.members.iter().any(|member| member.name == *name),
            field("name"),
            quoted(name),
            "must not be the name of a member; leave the entry out, or leave the member out",
        )?;
        require(
            sockets.len() <= MAX_ADDRESSES,
            field("sockets"),
            list_of(sockets.len()),
            "must hold 4 addresses with their ports at most; leave out those where it does not listen",
        )?;
        if let Some(used) = sockets.iter().find(|socket| is_used(socket)) {
            require(
                false,
                field("sockets"),
                used,
                "must not be the address of a member; leave it out, or leave the member out",
            )?;
        }
    }
    Ok(())
}

/// One that is also a member's does no harm: it is that member's.
fn further_endpoints(document: &Document) -> Result<(), Violation> {
    let endpoints = &document.further_endpoints;
    require(
        endpoints.len() <= MAX_FURTHER_ENDPOINTS,
        "furtherEndpoints",
        list_of(endpoints.len()),
        "must hold 16 addresses with their ports at most; make apiservers that nodes shall use members",
    )?;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let field = format!("furtherEndpoints[{index}]");
        number(&field, endpoint.port().into(), &PORT)?;
        reachable(&field, endpoint.ip())?;
        no_listener(&document.listeners, &field, *endpoint)?;
    }
    Ok(())
}

fn reachable(field: &str, address: IpAddr) -> Result<(), Violation> {
    require(
        is_reachable(address),
        field,
        address,
        "must not be an unspecified, link-local, multicast or IPv4-mapped address; use one under which the nodes reach the apiserver",
    )
}

/// Whether a wire document may have this address for a member.
///
/// Loopback addresses are accepted, unlike in a pool: a file for the proxy of one master may name its own apiserver.
pub fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_link_local() || address.is_multicast())
        }
        IpAddr::V6(address) => {
            let is_ipv4_mapped = address.to_ipv4_mapped().is_some();
            !(address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || is_ipv4_mapped)
        }
    }
}

fn no_listener(listeners: &[Listener], field: impl Display, socket: SocketAddr) -> Result<(), Violation> {
    let is_at =
        |listener: &Listener| listener.port == socket.port() && listener.addresses.contains(&socket.ip());
    require(
        !listeners.iter().any(is_at),
        field,
        socket.ip(),
        "must not be a listener of this proxy, which would forward connections to itself; use the apiserver's own address and port",
    )
}

fn listeners(listeners: &[Listener]) -> Result<(), Violation> {
    require(
        (1..=MAX_LISTENERS).contains(&listeners.len()),
        "listeners",
        list_of(listeners.len()),
        "must hold 1 to 8 entries; list where clients connect, such as 127.0.0.1 with port 7443",
    )?;
    require(
        !listeners.iter().all(Listener::is_extra),
        "listeners",
        list_of(listeners.len()),
        "must hold an entry of kind Apiserver; list where clients of the apiservers connect",
    )?;
    for (index, listener) in listeners.iter().enumerate() {
        let field = |name: &str| format!("listeners[{index}].{name}");
        length(field("name"), &listener.name, &MEMBER_NAME)?;
        require(
            !listeners
                .iter()
                .take(index)
                .any(|other| other.name == listener.name),
            field("name"),
            quoted(&listener.name),
            "must be unique, and an earlier entry has the same; rename one",
        )?;
        require(
            (1..=MAX_ADDRESSES).contains(&listener.addresses.len()),
            field("addresses"),
            list_of(listener.addresses.len()),
            "must hold 1 to 4 loopback addresses; use 127.0.0.1, ::1 or both",
        )?;
        for address in &listener.addresses {
            require(
                address.is_loopback(),
                field("addresses"),
                address,
                "must be loopback addresses, so that no other host can use the proxy; use 127.0.0.1, ::1 or both",
            )?;
        }
        number(field("port"), listener.port.into(), &LISTENER_PORT)?;
        let shares = |other: &Listener| {
            (listener.is_extra() || other.is_extra())
                && listener.port == other.port
                && other
                    .addresses
                    .iter()
                    .any(|address| listener.addresses.contains(address))
        };
        require(
            !listeners.iter().take(index).any(shares),
            field("port"),
            listener.port,
            "must not be that of another listener at the same address; give each a port of its own",
        )?;
        extra(listener, field)?;
    }
    Ok(())
}

/// What only some kinds of listeners have.
fn extra(listener: &Listener, field: impl Fn(&str) -> String) -> Result<(), Violation> {
    match (listener.is_extra(), listener.member_port) {
        (true, Some(port)) => number(field("memberPort"), port.into(), &PORT)?,
        (false, None) => {}
        (true, None) => require(
            false,
            field("memberPort"),
            "absent",
            "must be the port of the members' servers, with kind TLS and HTTPS; set it",
        )?,
        (false, Some(port)) => require(
            false,
            field("memberPort"),
            port,
            "must be absent with kind Apiserver, because each member has a port; remove it, or set the kind",
        )?,
    }
    let Some(check) = &listener.health_check else {
        return Ok(());
    };
    require(
        listener.kind == ListenerKind::Https,
        field("healthCheck"),
        "set",
        "must be absent unless the kind is HTTPS; remove it, or set the kind",
    )?;
    length(field("healthCheck.path"), &check.path, &CHECK_PATH)?;
    require(
        check.path.starts_with('/') && check.path.chars().all(|character| character.is_ascii_graphic()),
        field("healthCheck.path"),
        quoted(&check.path),
        "must begin with a slash and have visible ASCII characters only; use a path such as /healthz",
    )
}

fn gate(gate: &Gate) -> Result<(), Violation> {
    require(
        gate.nodes.len() <= MAX_GATE_NODES,
        "rollout.gate.nodes",
        list_of(gate.nodes.len()),
        "must hold 64 names at most; list the first nodes of a rollout, and use the policy Open for all",
    )?;
    for (index, node) in gate.nodes.iter().enumerate() {
        length(format!("rollout.gate.nodes[{index}]"), node, &NODE_NAME)?;
    }
    Ok(())
}

fn number(field: impl Display, value: u32, bounds: &RangeInclusive<u32>) -> Result<(), Violation> {
    let (least, most) = (bounds.start(), bounds.end());
    require(
        bounds.contains(&value),
        field,
        value,
        format_args!("must be {least} to {most}; docs/configuration.md has the default"),
    )
}

fn length(field: impl Display, text: &str, bounds: &RangeInclusive<usize>) -> Result<(), Violation> {
    let (least, most) = (bounds.start(), bounds.end());
    require(
        bounds.contains(&text.len()),
        field,
        quoted(text),
        format_args!("must have {least} to {most} bytes; choose another"),
    )
}

fn require(
    holds: bool,
    field: impl Display,
    value: impl Display,
    rule: impl Display,
) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    Err(Violation {
        field: field.to_string(),
        value: value.to_string(),
        rule: rule.to_string(),
    })
}

fn list_of(count: usize) -> String {
    format!("a list of {count}")
}

/// A name may hold any character, also line ends, which must not break the log line that quotes it. It is shortened, so
/// that a long one does not fill the log.
fn quoted(name: &str) -> String {
    const SHOWN: usize = 60;
    let shown: String = name.chars().take(SHOWN).collect();
    if shown.len() < name.len() {
        format!("{shown:?}… of {} bytes", name.len())
    } else {
        format!("{shown:?}")
    }
}

#[cfg(test)]
mod tests;
