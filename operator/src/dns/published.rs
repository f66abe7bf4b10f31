//! What people are told of the names of a pool. Pure.

use std::time::Duration;

use kube::api::DynamicObject;
use tokio::time::Instant;
use trivet_crds::pool::DnsStatus;

use super::decision::Live;
use super::wish::Wish;

/// How long external-dns may take to observe a DNSEndpoint: its default interval is a minute.
pub const OBSERVED_WITHIN: Duration = Duration::from_secs(90);

/// The reason where the CRD of external-dns is not installed.
pub const KIND_ABSENT: &str = "DNSEndpointAbsent";

/// The reason where the API server refuses to read or write what a name needs.
pub const REFUSED: &str = "ApplyFailed";

/// The reason where external-dns does not look at the DNSEndpoint.
pub const NOT_OBSERVED: &str = "NotObserved";

/// Why a name is not as the spec wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One fixed word.
    pub reason: &'static str,
    /// What it is, and the way out.
    pub words: String,
}

/// What is published of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The names, and their addresses.
    pub status: DnsStatus,
    /// Whether no Active member is Up, so that all are published.
    pub is_open: bool,
    /// Whether external-dns has observed the records as they are; `None` if there are none.
    pub is_observed: Option<bool>,
    /// Why a name is not as the spec wants it.
    pub trouble: Option<Trouble>,
    /// Whether the operator has looked.
    pub is_known: bool,
}

/// Since when external-dns has not observed which generation.
pub type Unobserved = Option<(i64, Instant)>;

impl Published {
    /// What `live`, the objects of a pool, says, of which `wish` is wanted. `failure` is why a write has failed.
    pub fn new(
        (live, wish): (&Live, &Wish),
        namespace: &str,
        failure: Option<&Trouble>,
        unobserved: &mut Unobserved,
        now: Instant,
    ) -> Self {
        let mut status = DnsStatus::default();
        if let Some(name) = &wish.service
            && live
                .services
                .iter()
                .any(|service| service.metadata.name.as_ref() == Some(name))
        {
            status.service_name = format!("{name}.{namespace}.svc");
            let mut ready: Vec<_> = live.ready(name).iter().map(std::net::SocketAddr::ip).collect();
            ready.dedup();
            status.service_addresses = ready.iter().map(ToString::to_string).collect();
        }
        let records = live.records.iter().flatten().next();
        if let Some(wanted) = &wish.external
            && records.is_some()
        {
            status.hostname.clone_from(&wanted.hostname);
            status.targets = live.targets().iter().map(ToString::to_string).collect();
        }
        let records = records.filter(|_| wish.external.is_some());
        let is_late = records.is_some_and(|object| is_late(object, unobserved, now));
        let trouble = failure.cloned().or_else(|| match &wish.external {
            Some(_) if live.records.is_none() => Some(no_records(live.refused.as_deref())),
            Some(_) if is_late => Some(not_observed()),
            Some(_) | None => None,
        });
        Self {
            status,
            is_open: false,
            is_observed: records.map(is_observed),
            trouble,
            is_known: true,
        }
    }
}

/// Whether external-dns has observed what the object says.
fn is_observed(object: &DynamicObject) -> bool {
    let observed = object.data.pointer("/status/observedGeneration");
    observed.and_then(serde_json::Value::as_i64) == object.metadata.generation
}

/// Whether external-dns should have observed it by now.
fn is_late(object: &DynamicObject, unobserved: &mut Unobserved, now: Instant) -> bool {
    let generation = object.metadata.generation.unwrap_or_default();
    if is_observed(object) {
        *unobserved = None;
        return false;
    }
    let since = match *unobserved {
        Some((of, since)) if of == generation => since,
        Some(_) | None => now,
    };
    *unobserved = Some((generation, since));
    now.saturating_duration_since(since) >= OBSERVED_WITHIN
}

fn no_records(refused: Option<&str>) -> Trouble {
    if let Some(words) = refused {
        return Trouble {
            reason: REFUSED,
            words: format!(
                "the API server refuses to tell of DNSEndpoints: {words}; helm upgrade puts the chart's roles back"
            ),
        };
    }
    Trouble {
        reason: KIND_ABSENT,
        words: "the API server knows no DNSEndpoint (externaldns.k8s.io/v1alpha1), so spec.dns.external has no effect: install \
                external-dns with its CRD; it is noticed by itself"
            .to_owned(),
    }
}

fn not_observed() -> Trouble {
    Trouble {
        reason: NOT_OBSERVED,
        words: format!(
            "external-dns has not observed the DNSEndpoint for {} s, so the records may be old: does it run with --source=crd, \
             and look at this namespace and these labels?",
            OBSERVED_WITHIN.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dns::wish::Records;

    fn live(observed: i64, generation: i64) -> Live {
        let object = json!({
            "apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
            "metadata": { "name": "trivet-default", "generation": generation },
            "spec": { "endpoints": [
                { "dnsName": "api.example.com", "recordType": "A", "recordTTL": 30, "targets": ["10.0.0.1"] },
            ] },
            "status": { "observedGeneration": observed },
        });
        Live {
            records: Some(vec![serde_json::from_value(object).unwrap()]),
            ..Live::default()
        }
    }

    fn wish() -> Wish {
        Wish {
            service: None,
            external: Some(Records {
                hostname: "api.example.com".to_owned(),
                ttl_seconds: 30,
            }),
        }
    }

    fn reason(published: &Published) -> Option<&'static str> {
        published.trouble.as_ref().map(|trouble| trouble.reason)
    }

    #[test]
    fn an_external_dns_that_looks_at_no_new_generation_is_named_after_a_while() {
        let (start, mut unobserved) = (Instant::now(), None);
        let mut look = |observed, generation, seconds| {
            let now = start + Duration::from_secs(seconds);
            let published = Published::new(
                (&live(observed, generation), &wish()),
                "n",
                None,
                &mut unobserved,
                now,
            );
            (published.is_observed, reason(&published))
        };
        assert_eq!(look(1, 1, 0), (Some(true), None));
        assert_eq!(look(1, 2, 100), (Some(false), None));
        assert_eq!(look(1, 2, 189), (Some(false), None));
        assert_eq!(look(1, 2, 190), (Some(false), Some(NOT_OBSERVED)));
        assert_eq!(
            look(1, 3, 191),
            (Some(false), None),
            "a new generation has its time"
        );
        assert_eq!(look(3, 3, 300), (Some(true), None));
    }

    #[test]
    fn what_is_shown_is_what_is_there() {
        let published = Published::new((&live(1, 1), &wish()), "n", None, &mut None, Instant::now());
        assert_eq!(published.status.targets, ["10.0.0.1"]);
        assert_eq!(published.status.hostname, "api.example.com");
        let absent = Published::new((&Live::default(), &wish()), "n", None, &mut None, Instant::now());
        assert_eq!(
            (absent.status.hostname.as_str(), reason(&absent)),
            ("", Some(KIND_ABSENT))
        );
    }
}
