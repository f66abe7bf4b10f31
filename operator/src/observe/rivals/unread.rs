//! The listeners of specs and documents, as far as they can be read: a port that a later release has given away is not free.
//!
//! An entry counts whatever its kind. An address that cannot be read may be any of the node, and a port that is absent is the
//! default.

use std::net::IpAddr;

use serde_json::Value;
use trivet_crds::pool::{ApiserverPoolSpec, MetricsExposure, PoolListener, ProxyMetrics};
use trivet_crds::wire::Listener;

use crate::plan::conflict::EVERY_ADDRESS;

/// Where a spec asks to listen.
pub(super) struct Asked {
    pub(super) listeners: Vec<Listener>,
    pub(super) metrics: ProxyMetrics,
}

/// Where a spec asks to listen that cannot be read as a whole.
pub(super) fn asked(spec: Option<&Value>) -> Asked {
    let spec = spec.unwrap_or(&Value::Null);
    Asked {
        listeners: if spec.get("listeners").is_some() {
            listeners(spec)
        } else {
            defaults().iter().map(default_listener).collect()
        },
        metrics: metrics(spec.pointer("/proxy/metrics")),
    }
}

/// The listeners of a spec or of a document, whatever they serve: only where they listen counts.
pub(super) fn listeners(of: &Value) -> Vec<Listener> {
    let entries = of.get("listeners").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(listener).collect()
}

/// A listener, once for each of its addresses that is told, or for the default ones.
fn listener(entry: &Value) -> Option<Listener> {
    let defaults = defaults();
    let default = default_listener(defaults.first()?);
    let addresses = match entry.get("addresses").and_then(Value::as_array) {
        Some(told) => told.iter().map(address).collect(),
        None if entry.get("addresses").is_some() => vec![EVERY_ADDRESS],
        None => default.addresses,
    };
    Some(Listener::apiserver(
        addresses,
        port(entry).unwrap_or(default.port),
    ))
}

fn address(told: &Value) -> IpAddr {
    let told = told.as_str().and_then(|text| text.parse().ok());
    told.unwrap_or(EVERY_ADDRESS)
}

fn port(of: &Value) -> Option<u16> {
    of.get("port")?.as_u64()?.try_into().ok()
}

/// The metrics. Where they cannot be read they may be at any address.
fn metrics(told: Option<&Value>) -> ProxyMetrics {
    let Some(told) = told else {
        return ProxyMetrics::default();
    };
    let read = serde_json::from_value(told.clone()).ok();
    read.unwrap_or_else(|| ProxyMetrics {
        exposure: MetricsExposure::Node,
        port: port(told).unwrap_or(ProxyMetrics::default().port),
        ..ProxyMetrics::default()
    })
}

fn defaults() -> Vec<PoolListener> {
    ApiserverPoolSpec::default().listeners
}

fn default_listener(listener: &PoolListener) -> Listener {
    let addresses = listener.addresses.iter();
    Listener::apiserver(
        addresses.filter_map(|text| text.parse().ok()).collect(),
        listener.port,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::conflict::{claims, listening};
    use crate::plan::rival::Claim;

    fn of_spec(spec: &Value) -> Vec<Claim> {
        let Asked { listeners, metrics } = asked(Some(spec));
        claims(&listeners, &metrics)
    }

    fn claim(address: &str, port: u16) -> Claim {
        (address.parse().unwrap(), port)
    }

    #[test]
    fn a_spec_that_cannot_be_read_claims_what_its_entries_say() {
        let spec = json!({
            "listeners": [
                { "name": "apiserver", "port": 7500 },
                { "name": "konnectivity", "kind": "Later", "addresses": ["127.0.0.2", "@lo"], "port": 8132 },
            ],
            "proxy": { "metrics": { "exposure": "Everywhere", "port": 7600 } },
        });
        let expected = [
            claim("127.0.0.1", 7500),
            claim("::1", 7500),
            claim("127.0.0.2", 8132),
            claim("0.0.0.0", 8132),
            claim("127.0.0.1", 7600),
            claim("0.0.0.0", 7600),
        ];
        assert_eq!(of_spec(&spec), expected);
    }

    #[test]
    fn a_spec_that_says_nothing_of_it_claims_the_defaults() {
        let expected = [
            claim("127.0.0.1", 7443),
            claim("::1", 7443),
            claim("127.0.0.1", 7444),
        ];
        assert_eq!(of_spec(&json!({ "discovery": 1 })), expected);
        assert_eq!(of_spec(&Value::Null), expected);
    }

    #[test]
    fn a_document_of_a_later_release_holds_the_ports_of_all_its_listeners() {
        let document = json!({ "apiVersion": "trivet.dev/wire/v9", "listeners": [
            { "name": "apiserver", "addresses": ["127.0.0.1"], "port": 7443 },
            { "name": "later", "kind": "Later", "addresses": ["127.0.0.1"], "port": 8132 },
        ] });
        let held: Vec<_> = listening(&listeners(&document)).collect();
        assert_eq!(held, [claim("127.0.0.1", 7443), claim("127.0.0.1", 8132)]);
    }
}
